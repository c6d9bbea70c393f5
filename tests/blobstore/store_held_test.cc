#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "store_support.h"
#include "tests/support/faulty_disk.h"

// Everything is held at once: by pins, views, and writes to a disk that does not come to an end.
// What must go on nevertheless goes on.
namespace bigcast {
namespace {

constexpr uint64_t kPinned = kMemory / 2 - limits::kMiB;

// Writes wait while it is shut.
class Gate {
 public:
  void set_shut(bool shut) {
    const std::lock_guard lock(mutex_);
    shut_ = shut;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !shut_; });
    --waiting_;
  }
  void wait_for_waiting(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool shut_ = false;
  int waiting_ = 0;
};

}  // namespace

TEST_CASE("when everything is held, what is stored is served, and puts go on once it is not") {
  const TemporaryDirectory directory;
  Gate gate;
  Faults faults;
  faults.before_write = [&] { gate.pass(); };
  auto opened =
      open_store(with_disk(directory.path, 4 * kMemory), std::make_unique<FaultyDisk>(faults));
  REQUIRE(opened);
  BlobStore& store = **opened;
  const CreateOptions on_disk = blob_options(1);
  write_blob(store, on_disk, kMemory);
  // Nearly half of the memory is pinned, a quarter viewed.
  const CreateOptions pinned = blob_options(2);
  write_blob(store, pinned, kPinned);
  REQUIRE(store.pin(pinned.id));
  const CreateOptions viewed = blob_options(3);
  write_blob(store, viewed, kMemory);
  std::vector<ChunkView> views;
  for (const uint32_t index : store.resident_chunks(viewed.id)) {
    auto view = store.view_chunk(viewed.id, index);
    if (!view) break;
    views.push_back(std::move(*view));
  }
  CHECK(views.size() == kFit / 4);

  // The rest is on its way to a disk that takes nothing: as many puts as the disk has buffers.
  gate.set_shut(true);
  const CreateOptions put_there = blob_options(4, uint64_t{kFit} * kSmallChunk);
  REQUIRE(store.create(put_there));
  std::vector<std::thread> writers;
  std::atomic<uint32_t> next{0};
  std::atomic<uint32_t> stored{0};
  for (uint32_t i = 0; i < limits::kDiskBuffers; ++i) {
    writers.emplace_back([&] {
      for (uint32_t index = next++; index < kFit; index = next++) {
        if (put(store, put_there.id, index, kSmallChunk)) ++stored;
      }
    });
  }
  gate.wait_for_waiting(limits::kDiskBuffers);

  // Reads of memory take no part in it, and those of the disk need no memory.
  for (const uint32_t index : store.resident_chunks(pinned.id)) {
    CHECK(reads_back(store, pinned.id, index, kSmallChunk));
  }
  const uint64_t resident = store.stat(on_disk.id)->memory_bytes;
  struct alignas(limits::kDiskAlignment) Buffer {
    std::array<std::byte, kSmallChunk> bytes;
  };
  const auto buffer = std::make_unique<Buffer>();
  for (uint32_t i = 0; i < kFit; ++i) {
    REQUIRE(store.read_chunk(on_disk.id, i, buffer->bytes));
    const Bytes expected = chunk_bytes(on_disk.id, i, kSmallChunk);
    CHECK(std::equal(expected.begin(), expected.end(), buffer->bytes.begin()));
  }
  CHECK(store.usage().memory_used <= kMemory);
  CHECK(store.stat(pinned.id)->memory_bytes == kPinned);

  gate.set_shut(false);
  for (std::thread& writer : writers) writer.join();
  CHECK(stored == kFit);
  CHECK(store.stat(on_disk.id)->memory_bytes <= resident);
  for (uint32_t i = 0; i < kFit; ++i) {
    CHECK(reads_back(store, on_disk.id, i, kSmallChunk));
    CHECK(reads_back(store, put_there.id, i, kSmallChunk));
  }
  CHECK(store.stat(pinned.id)->memory_bytes == kPinned);
  for (const ChunkView& view : views) {
    const Bytes expected = chunk_bytes(viewed.id, view.meta.index, kSmallChunk);
    CHECK(std::equal(view.bytes.begin(), view.bytes.end(), expected.begin(), expected.end()));
  }
}

TEST_CASE("a quota counts what is stored and promised, and is free again when it is not") {
  BlobStore::Options options = memory_only();
  options.quotas["test"] = 4 * kSmallChunk;
  const auto store = open_or_fail(options);
  const auto usage = [&] {
    const auto all = store->namespaces();
    return *std::ranges::find(all, "test", &NamespaceUsage::name);
  };
  const auto used = [&] { return usage().used; };
  const auto reserved = [&] { return usage().reserved; };
  CHECK(usage().quota == 4 * kSmallChunk);
  REQUIRE(store->create(blob_options(1, 3 * kSmallChunk)));
  CHECK(reserved() == 3 * kSmallChunk);
  const auto refused = store->create(blob_options(2, 2 * kSmallChunk));
  CHECK(code_of(refused) == ErrorCode::kResourceExhausted);
  CHECK(message_has(refused, "namespace 'test'"));
  CHECK(message_has(refused, "quota of 262144"));
  REQUIRE(put(*store, {1, 1}, 0, kSmallChunk));
  CHECK(used() == kSmallChunk);
  CHECK(reserved() == 2 * kSmallChunk);
  // Of unknown size: in steps.
  REQUIRE(store->create(blob_options(3)));
  CHECK(store->reserve({1, 3}, kSmallChunk));
  CHECK(code_of(store->reserve({1, 3}, 2 * kSmallChunk)) == ErrorCode::kResourceExhausted);
  REQUIRE(put(*store, {1, 3}, 0, kSmallChunk));
  CHECK(code_of(put(*store, {1, 3}, 1, kSmallChunk)) == ErrorCode::kResourceExhausted);
  // Others have their own, and relays have none.
  CreateOptions other = blob_options(4, 8 * kSmallChunk);
  other.name_space = "other";
  CHECK(store->create(other));
  CHECK(store->namespaces().size() == 2);
  REQUIRE(store->create(relay_options(5)));
  for (uint32_t i = 0; i < 8; ++i) CHECK(put(*store, {1, 5}, i, kSmallChunk));
  // Changed, what is there stays and counts.
  store->set_quotas({{"more", kSmallChunk}}, kSmallChunk);
  CHECK(usage().quota == kSmallChunk);
  CHECK_FALSE(usage().has_own_quota);
  CHECK(used() == 2 * kSmallChunk);
  CHECK(store->namespaces().size() == 3);
  CHECK(code_of(store->create(blob_options(6, 1))) == ErrorCode::kResourceExhausted);
  store->set_quotas(options.quotas, 0);
  REQUIRE(store->remove({1, 1}));
  CHECK(used() == kSmallChunk);
  CHECK(reserved() == 0);
  CHECK(store->reserve({1, 3}, 4 * kSmallChunk));
  REQUIRE(store->remove({1, 3}));
  REQUIRE(store->remove({1, 4}));
  CHECK(store->namespaces().size() == 1);
  CHECK(used() + reserved() == 0);
}

}  // namespace bigcast
