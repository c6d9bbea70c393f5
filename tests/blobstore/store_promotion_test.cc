#include "store_support.h"

// Chunks that come back from disk, and room that is made ahead of need.
namespace bigcast {
namespace {

bool loads(BlobStore& store, BlobId id, uint32_t index) {
  Bytes buffer(kSmallChunk);
  const auto meta = store.load_chunk(id, index, buffer);
  if (!meta) return false;
  buffer.resize(meta->stored_size);
  return buffer == chunk_bytes(id, index, kSmallChunk);
}

void make_all_room(BlobStore& store) {
  while (store.make_room_ahead()) {
  }
}

// Blob 1, of as many bytes as the memory, all of it on disk; the memory is free.
std::unique_ptr<BlobStore> all_on_disk(const BlobStore::Options& options) {
  auto store = open_or_fail(options);
  write_blob(*store, blob_options(1), kMemory);
  write_blob(*store, blob_options(2), kMemory);
  REQUIRE(store->remove({1, 2}));
  REQUIRE(store->resident_chunks({1, 1}).empty());
  return store;
}

}  // namespace

TEST_CASE("what is loaded from disk is in memory then, and leaves again without a write") {
  const TemporaryDirectory directory;
  const auto store = all_on_disk(with_disk(directory.path, kDisk));
  const uint64_t demoted = store->usage().chunks_demoted;
  for (uint32_t i = 0; i < kFit; ++i) CHECK(loads(*store, {1, 1}, i));
  CHECK(store->resident_chunks({1, 1}).size() == kFit);
  CHECK(store->usage().chunks_promoted == kFit);
  const uint64_t read = store->usage().chunks_read_disk;
  for (uint32_t i = 0; i < kFit; ++i) CHECK(loads(*store, {1, 1}, i));
  CHECK(store->usage().chunks_read_disk == read);
  write_blob(*store, blob_options(3), kMemory);
  CHECK(store->resident_chunks({1, 1}).empty());
  CHECK(store->usage().chunks_demoted == demoted);
  for (uint32_t i = 0; i < kFit; ++i) CHECK(reads_back(*store, {1, 1}, i, kSmallChunk));
  REQUIRE(store->remove({1, 1}));
  REQUIRE(store->remove({1, 3}));
  CHECK(store->usage().memory_used == 0);
  CHECK(store->usage().disk_used == 0);
}

TEST_CASE("places on disk of what memory has, too, are in the way of nothing that was promised") {
  for (const bool pinned : {false, true}) {
    CAPTURE(pinned);
    const TemporaryDirectory directory;
    const auto store = all_on_disk(with_disk(directory.path, 2 * kMemory));
    for (uint32_t i = 0; i < kFit / 4; ++i) CHECK(loads(*store, {1, 1}, i));
    if (pinned) {
      write_blob(*store, blob_options(5), kMemory / 4);
      write_blob(*store, blob_options(6), kMemory);
      REQUIRE(store->pin({1, 5}));
      for (uint32_t i = 0; i < kFit / 4; ++i) CHECK(loads(*store, {1, 5}, i));
      REQUIRE(store->remove({1, 6}));
      for (uint32_t i = 0; i < kFit / 4; ++i) CHECK(loads(*store, {1, 5}, i));
      REQUIRE(store->resident_chunks({1, 5}).size() == kFit / 4);
    }
    const CreateOptions rest = blob_options(9);
    REQUIRE(store->create(rest));
    uint64_t reserved = 0;
    while (store->reserve(rest.id, reserved + kSmallChunk)) reserved += kSmallChunk;
    CHECK(reserved == 2 * kMemory - kSmallChunk - (pinned ? kMemory / 4 : 0));
    const auto count = static_cast<uint32_t>(reserved / kSmallChunk);
    for (uint32_t i = 0; i < count; ++i) {
      const auto done = put(*store, rest.id, i, kSmallChunk);
      if (!done) FAIL(done.error().to_string());
    }
    REQUIRE(store->seal(rest.id, reserved, count));
    for (uint32_t i = 0; i < count; ++i) CHECK(reads_back(*store, rest.id, i, kSmallChunk));
    for (uint32_t i = 0; i < kFit; ++i) CHECK(reads_back(*store, {1, 1}, i, kSmallChunk));
  }
}

TEST_CASE("a durable blob takes the places on disk of what memory has, too") {
  const TemporaryDirectory directory;
  const auto store = all_on_disk(with_disk(directory.path, kMemory + 2 * kSmallChunk));
  for (uint32_t i = 0; i < kFit; ++i) CHECK(loads(*store, {1, 1}, i));
  REQUIRE(store->usage().disk_used == kMemory);
  write_blob(*store, durable_options(2, kMemory / 2), kMemory / 2);
  CHECK(store->usage().disk_used <= kMemory + 2 * kSmallChunk);
  for (uint32_t i = 0; i < kFit; ++i) CHECK(reads_back(*store, {1, 1}, i, kSmallChunk));
}

TEST_CASE("a load without room gives the bytes; room is made ahead, and the next one stays") {
  const TemporaryDirectory directory;
  BlobStore::Options options = with_disk(directory.path, kDisk);
  options.memory_high = 100;
  options.policy = "lru";
  const auto store = all_on_disk(options);
  write_blob(*store, blob_options(3), kMemory);
  CHECK_FALSE(store->wants_room_ahead());
  CHECK(loads(*store, {1, 1}, 0));
  CHECK(store->resident_chunks({1, 1}).empty());
  CHECK(store->usage().memory_used == kMemory);
  CHECK(store->wants_room_ahead());
  make_all_room(*store);
  CHECK_FALSE(store->wants_room_ahead());
  CHECK(loads(*store, {1, 1}, 0));
  CHECK(store->resident_chunks({1, 1}).size() == 1);
}

TEST_CASE("what no reader needs takes no place from what one does") {
  const TemporaryDirectory directory;
  const auto store = all_on_disk(with_disk(directory.path, kDisk));
  const CreateOptions needed = blob_options(3);
  constexpr uint32_t kNeeded = kFit * 95 / 100;
  write_blob(*store, needed, uint64_t{kNeeded} * kSmallChunk);
  const auto stream = store->open_stream(needed.id, ReadOrder::kAscending);
  REQUIRE(stream);
  CHECK(loads(*store, {1, 1}, 0));
  CHECK(store->resident_chunks({1, 1}).empty());
  store->close_stream(*stream);
  CHECK(loads(*store, {1, 1}, 0));
  CHECK(store->resident_chunks({1, 1}).size() == 1);
}

TEST_CASE("above the high mark memory is made free down to the low one, in turns") {
  const TemporaryDirectory directory;
  BlobStore::Options options = with_disk(directory.path, kDisk);
  options.memory_high = 80;
  options.memory_low = 50;
  const auto store = open_or_fail(options);
  const CreateOptions blob = blob_options(1);
  REQUIRE(store->create(blob));
  uint32_t next = 0;
  const auto put_until = [&](uint64_t bytes) {
    while (store->usage().memory_used < bytes) REQUIRE(put(*store, blob.id, next++, kSmallChunk));
  };
  put_until(kMemory * 3 / 4);
  CHECK_FALSE(store->wants_room_ahead());
  CHECK_FALSE(store->make_room_ahead());
  put_until(kMemory * 9 / 10);
  CHECK(store->wants_room_ahead());
  CHECK(store->make_room_ahead());
  CHECK(store->usage().chunks_demoted == limits::kDemotionsPerTurn);
  make_all_room(*store);
  CHECK(store->usage().memory_used <= kMemory / 2);
  CHECK(store->usage().memory_used > kMemory / 2 - kSmallChunk);
  CHECK_FALSE(store->wants_room_ahead());
  const uint64_t demoted = store->usage().chunks_demoted;
  put_until(kMemory * 9 / 10);
  CHECK(store->usage().chunks_demoted == demoted);  // no put had to wait for the disk
  for (uint32_t i = 0; i < next; ++i) CHECK(reads_back(*store, blob.id, i, kSmallChunk));
  // Prefetch keeps below the low mark: else what is made free would be filled with it again.
  make_all_room(*store);
  const CreateOptions relay = relay_options(2);
  REQUIRE(store->create(relay));
  const Bytes bytes = chunk_bytes(relay.id, 0, kSmallChunk);
  CHECK(code_of(store->put_chunk(relay.id, raw_meta(0, bytes), bytes, Put::kAhead)) ==
        ErrorCode::kResourceExhausted);
}

TEST_CASE("marks that are none are refused by name") {
  for (const auto& [low, high] : {std::pair(49, 90), std::pair(91, 90), std::pair(90, 101)}) {
    BlobStore::Options options = memory_only();
    options.memory_low = static_cast<uint32_t>(low);
    options.memory_high = static_cast<uint32_t>(high);
    const auto refused = BlobStore::open(options);
    CHECK(code_of(refused) == ErrorCode::kInvalidArgument);
    CHECK(message_has(refused, "memory_low"));
  }
}

}  // namespace bigcast
