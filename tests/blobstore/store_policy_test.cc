#include "store_support.h"

// What the store tells its policy, and what that makes of it; pins and times to live.
namespace bigcast {
namespace {

bool is_here(BlobStore& store, BlobId id, uint32_t index) {
  const auto chunks = store.resident_chunks(id);
  return std::ranges::find(chunks, index) != chunks.end();
}

std::unique_ptr<BlobStore> relay_full_of(const CreateOptions& options, const char* policy) {
  BlobStore::Options store_options = memory_only();
  store_options.policy = policy;
  auto store = open_or_fail(store_options);
  REQUIRE(store->create(options));
  for (uint32_t i = 0; i < kFit; ++i) REQUIRE(put(*store, options.id, i, kSmallChunk));
  return store;
}

}  // namespace

TEST_CASE("an unknown policy is refused by name") {
  BlobStore::Options options = memory_only();
  options.policy = "mru";
  const auto store = BlobStore::open(options);
  CHECK(code_of(store) == ErrorCode::kInvalidArgument);
  CHECK(message_has(store, "policy: 'mru'"));
}

TEST_CASE("with any policy relays' chunks make way and those that stay are right") {
  for (const std::string_view policy : eviction::kPolicyNames) {
    CAPTURE(policy);
    const CreateOptions options = relay_options(1);
    const auto store = relay_full_of(options, std::string(policy).c_str());
    std::mt19937_64 random(7);
    uint32_t hits = 0;
    for (uint32_t i = 0; i < 6 * kFit; ++i) {
      const auto index = static_cast<uint32_t>(random() % (2 * kFit));
      const auto location = store->locate(options.id, index);
      REQUIRE(location);
      if (location->presence == Presence::kAbsent) {
        REQUIRE(put(*store, options.id, index, kSmallChunk));
      } else {
        ++hits;
        CHECK(reads_back(*store, options.id, index, kSmallChunk));
      }
    }
    CHECK(hits > 0);
    CHECK(store->usage().memory_used <= kMemory);
    check_totals(*store, {options.id}, 2 * kFit);
  }
}

TEST_CASE("demand keeps what an open stream is about to read") {
  const CreateOptions read = relay_options(1);
  const auto store = relay_full_of(read, "demand");
  const auto stream = store->open_stream(read.id, ReadOrder::kAscending);
  REQUIRE(stream);
  for (uint32_t i = 0; i < kFit / 2; ++i) REQUIRE(store->locate(read.id, i, *stream));
  const CreateOptions other = relay_options(2);
  REQUIRE(store->create(other));
  // First goes what the stream is past, though it was used last.
  for (uint32_t i = 0; i < kFit / 2; ++i) {
    REQUIRE(put(*store, other.id, i, kSmallChunk));
    CHECK_FALSE(is_here(*store, read.id, i));
  }
  CHECK(store->resident_chunks(read.id).size() == kFit / 2);
  store->close_stream(*stream);
  // Then nothing speaks for the rest any more.
  for (uint32_t i = 0; i < kFit; ++i) {
    REQUIRE(put(*store, other.id, kFit / 2 + i, kSmallChunk));
  }
  CHECK(store->resident_chunks(read.id).empty());
  store->close_stream(*stream);
  CHECK(code_of(store->open_stream(BlobId{1, 99}, ReadOrder::kAscending)) == ErrorCode::kNotFound);
}

TEST_CASE("of released blobs nothing stays while others can") {
  const CreateOptions old = relay_options(1);
  const CreateOptions released = relay_options(2);
  const auto store = open_or_fail(memory_only());
  REQUIRE(store->create(old));
  REQUIRE(store->create(released));
  for (uint32_t i = 0; i < kFit / 2; ++i) REQUIRE(put(*store, old.id, i, kSmallChunk));
  for (uint32_t i = 0; i < kFit / 2; ++i) REQUIRE(put(*store, released.id, i, kSmallChunk));
  store->release(released.id);
  for (uint32_t i = 0; i < kFit / 2; ++i) {
    REQUIRE(put(*store, old.id, kFit / 2 + i, kSmallChunk));
  }
  CHECK(store->resident_chunks(old.id).size() == kFit);
  CHECK(store->resident_chunks(released.id).empty());
}

TEST_CASE("a pinned blob stays in memory until all its pins are gone") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, 4 * kMemory));
  const CreateOptions pinned = blob_options(1);
  constexpr uint32_t kPinned = kFit / 4;
  write_blob(*store, pinned, uint64_t{kPinned} * kSmallChunk);
  REQUIRE(store->pin(pinned.id));
  REQUIRE(store->pin(pinned.id));
  CHECK(store->stat(pinned.id)->pins == 2);
  CHECK(store->usage().pinned >= uint64_t{kPinned} * kSmallChunk);
  write_blob(*store, blob_options(2), 2 * kMemory);  // pushes all others to disk
  CHECK(store->resident_chunks(pinned.id).size() == kPinned);
  store->unpin(pinned.id);
  write_blob(*store, blob_options(3), kMemory / 2);
  CHECK(store->resident_chunks(pinned.id).size() == kPinned);
  store->unpin(pinned.id);
  store->unpin(pinned.id);
  CHECK(store->usage().pinned == 0);
  write_blob(*store, blob_options(4), kMemory);
  CHECK(store->resident_chunks(pinned.id).empty());
  for (uint32_t i = 0; i < kPinned; ++i) CHECK(reads_back(*store, pinned.id, i, kSmallChunk));
}

TEST_CASE("pins hold half of the memory at most, and go with their blob") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, 4 * kMemory));
  const CreateOptions first = blob_options(1);
  write_blob(*store, first, kMemory / 4);
  write_blob(*store, blob_options(2), kMemory / 4);
  REQUIRE(store->pin(first.id));
  const auto refused = store->pin({1, 2});
  CHECK(code_of(refused) == ErrorCode::kResourceExhausted);
  CHECK(message_has(refused, "pin: "));
  REQUIRE(store->remove(first.id));
  CHECK(store->usage().pinned == 0);
  CHECK(store->pin({1, 2}));
  CHECK(code_of(store->pin(first.id)) == ErrorCode::kNotFound);
  store->unpin(first.id);

  REQUIRE(store->create(blob_options(3)));
  CHECK(code_of(store->pin({1, 3})) == ErrorCode::kInvalidArgument);
  REQUIRE(store->create(relay_options(4)));
  CHECK(code_of(store->pin({1, 4})) == ErrorCode::kInvalidArgument);
}

TEST_CASE("a blob's time to live begins with its seal, and again with a start") {
  const TemporaryDirectory directory;
  constexpr auto kTtl = std::chrono::minutes(10);
  auto store = open_or_fail(with_disk(directory.path, kMemory));
  CreateOptions options = durable_options(1);
  options.ttl = kTtl;
  REQUIRE(store->create(options));
  REQUIRE(put(*store, options.id, 0, kSmallChunk));
  test_clock().advance(2 * kTtl);
  CHECK(store->expired().empty());
  REQUIRE(store->seal(options.id, kSmallChunk, 1));
  write_blob(*store, blob_options(2), kSmallChunk);
  test_clock().advance(kTtl - std::chrono::seconds(1));
  CHECK(store->expired().empty());
  store.reset();
  store = open_or_fail(with_disk(directory.path, kMemory));
  test_clock().advance(kTtl - std::chrono::seconds(1));
  CHECK(store->expired().empty());
  CHECK(store->stat(options.id)->expires_at == test_clock().now() + std::chrono::seconds(1));
  test_clock().advance(std::chrono::seconds(1));
  CHECK(store->expired() == std::vector{options.id});
  CHECK(store->expired() == std::vector{options.id});
  REQUIRE(store->remove(options.id));
  CHECK(store->expired().empty());
}

}  // namespace bigcast
