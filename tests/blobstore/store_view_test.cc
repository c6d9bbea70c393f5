#include <atomic>
#include <thread>

#include "store_support.h"

namespace bigcast {
namespace {

bool shows(const ChunkView& view, BlobId id, size_t size) {
  const Bytes expected = chunk_bytes(id, view.meta.index, size);
  return std::equal(view.bytes.begin(), view.bytes.end(), expected.begin(), expected.end());
}

bool is_resident(BlobStore& store, BlobId id, uint32_t index) {
  const auto location = store.locate(id, index);
  return location && location->presence == Presence::kMemfd;
}

}  // namespace

TEST_CASE("a view shows a chunk's bytes in place, zeros up to the next multiple of 8") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions options = blob_options(1);
  write_blob(*store, options, 2 * kSmallChunk + 13);
  for (const uint32_t index : {2u, 0u, 1u}) {
    const auto view = store->view_chunk(options.id, index);
    REQUIRE(view);
    CHECK(shows(*view, options.id, index == 2 ? 13 : kSmallChunk));
  }
  const auto last = store->view_chunk(options.id, 2);
  REQUIRE(last);
  for (size_t i = 13; i < 16; ++i) CHECK(last->bytes.data()[i] == std::byte{0});
  CHECK(code_of(store->view_chunk(options.id, 3)) == ErrorCode::kNotFound);
  CHECK(code_of(store->view_chunk(BlobId{1, 99}, 0)) == ErrorCode::kNotFound);
}

TEST_CASE("a small blob is viewed where it rests, and lives on in the view when it is removed") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions small = blob_options(1);
  write_blob(*store, small, 101);
  auto view = store->view_chunk(small.id, 0);
  REQUIRE(view);
  REQUIRE(view->bytes.size() == 101);
  for (size_t i = 101; i < 104; ++i) CHECK(view->bytes.data()[i] == std::byte{0});
  REQUIRE(store->remove(small.id));
  CHECK(shows(*view, small.id, 101));
  view = {};
  CHECK(store->usage().memory_used == 0);
}

TEST_CASE("a small blob that is viewed is not pushed out") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  const CreateOptions small = blob_options(1);
  write_blob(*store, small, 100);
  auto view = store->view_chunk(small.id, 0);
  REQUIRE(view);
  write_blob(*store, blob_options(2), 2 * kMemory);
  CHECK(store->stat(small.id)->memory_bytes > 0);
  view = {};
  write_blob(*store, blob_options(3), kMemory);
  CHECK(store->stat(small.id)->memory_bytes == 0);
  CHECK(code_of(store->view_chunk(small.id, 0)) == ErrorCode::kNotFound);
}

TEST_CASE("a view keeps its chunk from eviction, and only for as long as it lives") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions options = relay_options(1);
  REQUIRE(store->create(options));
  const auto chunks = static_cast<uint32_t>(kMemory / kSmallChunk);
  for (uint32_t i = 0; i < chunks; ++i) REQUIRE(put(*store, options.id, i, kSmallChunk));
  auto view = store->view_chunk(options.id, 0);
  REQUIRE(view);
  auto second = store->view_chunk(options.id, 0);
  REQUIRE(second);
  second = {};
  // All others make way, the viewed one would have been among the first.
  for (uint32_t i = 0; i < chunks - 1; ++i) {
    REQUIRE(put(*store, options.id, chunks + i, kSmallChunk));
  }
  CHECK(is_resident(*store, options.id, 0));
  CHECK(shows(*view, options.id, kSmallChunk));
  view = {};
  for (uint32_t i = 0; i < chunks; ++i) {
    REQUIRE(put(*store, options.id, 3 * chunks + i, kSmallChunk));
  }
  CHECK_FALSE(is_resident(*store, options.id, 0));
  CHECK(store->usage().memory_used <= kMemory);
}

TEST_CASE("a chunk that is removed while it is viewed leaves nothing behind") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions home = blob_options(1);
  write_blob(*store, home, 2 * kSmallChunk);
  const CreateOptions relay = relay_options(2);
  REQUIRE(store->create(relay));
  REQUIRE(put(*store, relay.id, 0, kSmallChunk));
  auto of_home = store->view_chunk(home.id, 0);
  auto of_relay = store->view_chunk(relay.id, 0);
  REQUIRE(of_home);
  REQUIRE(of_relay);
  REQUIRE(store->remove(home.id));
  REQUIRE(store->drop_chunks(relay.id));
  CHECK(store->usage().memory_used == 0);
  CHECK(shows(*of_home, home.id, kSmallChunk));  // what is being sent stays as it is
  CHECK(shows(*of_relay, relay.id, kSmallChunk));
  // The copy comes again under the old view, and goes like any other.
  REQUIRE(put(*store, relay.id, 0, kSmallChunk));
  of_relay = {};
  of_home = {};
  CHECK(store->usage().memory_used == kSmallChunk);
  CHECK(reads_back(*store, relay.id, 0, kSmallChunk));
  REQUIRE(store->remove(relay.id));
  free_spare(*store);
  CHECK(store->usage().descriptors == 0);
}

TEST_CASE("views are bounded by a quarter of the memory budget") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions options = blob_options(1);
  write_blob(*store, options, kMemory / 2);
  std::vector<ChunkView> views;
  while (true) {
    auto view = store->view_chunk(options.id, static_cast<uint32_t>(views.size()));
    if (!view) {
      CHECK(view.error().code == ErrorCode::kNotFound);
      break;
    }
    views.push_back(std::move(*view));
  }
  CHECK(views.size() == kMemory / 4 / kSmallChunk);
  views.pop_back();
  CHECK(store->view_chunk(options.id, 0));
}

TEST_CASE("views, puts, drops and removals from many threads") {
  const auto store = open_or_fail(memory_only());
  const auto chunks = static_cast<uint32_t>(2 * kMemory / kSmallChunk);
  const CreateOptions options = relay_options(1);
  REQUIRE(store->create(options));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < 400; ++round) {
        const uint32_t index = random() % chunks;
        if (t < 2) {
          // NOT_FOUND: its copies were dropped while it was stored.
          const auto stored = put(*store, options.id, index, kSmallChunk);
          if (!stored && stored.error().code != ErrorCode::kNotFound) ++wrong;
          if (round % 100 == 99 && !store->drop_chunks(options.id)) ++wrong;
        } else if (auto view = store->view_chunk(options.id, index)) {
          // Punched meanwhile: all zeros or none, a page at a time; never another chunk's bytes.
          const Bytes expected = chunk_bytes(options.id, index, kSmallChunk);
          for (size_t i = 0; i < expected.size(); i += 4096) {
            if (view->bytes[i] != expected[i] && view->bytes[i] != std::byte{0}) ++wrong;
          }
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  REQUIRE(store->remove(options.id));
  CHECK(store->usage().memory_used == 0);
  free_spare(*store);
  CHECK(store->usage().descriptors == 0);
}

}  // namespace bigcast
