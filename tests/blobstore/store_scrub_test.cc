#include <filesystem>

#include "store_support.h"
#include "tests/blobstore/sim_disk.h"
#include "tests/support/faulty_disk.h"

// What is damaged on disk is found, mended where the same bytes are, and kept from readers.
namespace bigcast {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kCount = 4;
constexpr uint64_t kSize = kCount * uint64_t{kSmallChunk};

// Changes a byte of the first chunk that was written to disk, or of a later one.
void damage_chunk(const std::string& directory, uint64_t place) {
  flip(directory + "/bigcast/extent-000001", place * kSmallChunk + 17, 1);
}

void scrub_all(BlobStore& store) {
  while (!store.scrub(1).cycle_ended) {
  }
}

bool whole(BlobStore& store, BlobId id) {
  for (uint32_t i = 0; i < kCount; ++i) {
    if (!reads_back(store, id, i, kSmallChunk)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("one cycle reads all that is on disk, in turns") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  CHECK(store->scrub(1).cycle_ended);  // there is nothing
  write_blob(*store, durable_options(1), kSize);
  write_blob(*store, durable_options(2), kSize);
  for (int cycle = 1; cycle <= 2; ++cycle) {
    for (uint32_t i = 0; i < 2 * kCount; ++i) {
      const ScrubTurn turn = store->scrub(1);
      CHECK(turn.bytes == kSmallChunk);
      CHECK_FALSE(turn.cycle_ended);
    }
    CHECK(store->scrub(1).cycle_ended);
    CHECK(store->usage().chunks_scrubbed == 2 * kCount * static_cast<uint64_t>(cycle));
  }
  CHECK(store->usage().scrub_cycles == 3);
  CHECK(store->usage().checksum_failures == 0);
}

TEST_CASE("a durable chunk that is damaged on disk is written anew from memory") {
  const TemporaryDirectory directory;
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    write_blob(*store, durable_options(1), kSize);
    damage_chunk(directory.path, 1);
    scrub_all(*store);
    CHECK(store->usage().chunks_repaired == 1);
    CHECK(store->usage().checksum_failures == 1);
    CHECK(store->usage().chunks_quarantined == 0);
    scrub_all(*store);
    CHECK(store->usage().checksum_failures == 1);
  }
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  CHECK(whole(*store, {1, 1}));
}

TEST_CASE("what can't be written anew stays in memory, until it can") {
  const TemporaryDirectory directory;
  Faults faults;
  const auto store =
      open_store(with_disk(directory.path, kDisk), std::make_unique<FaultyDisk>(faults)).value();
  write_blob(*store, durable_options(1), kSize);
  REQUIRE(store->resident_chunks({1, 1}).size() == kCount);
  damage_chunk(directory.path, 1);
  faults.write_full = true;
  scrub_all(*store);
  scrub_all(*store);
  CHECK(store->usage().checksum_failures == 1);
  CHECK(store->usage().chunks_repaired == 0);
  faults.write_full = false;
  const auto push_out = [&] {  // others take all of memory but what has to stay
    write_blob(*store, blob_options(2), kMemory);
    REQUIRE(store->remove({1, 2}));
  };
  push_out();
  CHECK(store->resident_chunks({1, 1}) == std::vector<uint32_t>{1});
  CHECK(whole(*store, {1, 1}));
  scrub_all(*store);
  CHECK(store->usage().chunks_repaired == 1);
  push_out();
  push_out();
  CHECK(whole(*store, {1, 1}));
  CHECK(store->usage().chunks_quarantined == 0);
}

TEST_CASE("a copy on disk that made way for another chunk is not taken for a damaged one") {
  const TemporaryDirectory directory;
  Faults faults;
  const auto store =
      open_store(with_disk(directory.path, 2 * kSize), std::make_unique<FaultyDisk>(faults))
          .value();
  write_blob(*store, blob_options(1), kSize);
  write_blob(*store, blob_options(2), kMemory);  // pushes the first one out
  REQUIRE(store->resident_chunks({1, 1}).empty());
  REQUIRE(store->remove({1, 2}));
  Bytes buffer(kSmallChunk);
  for (uint32_t i = 0; i < kCount; ++i) REQUIRE(store->load_chunk({1, 1}, i, buffer));
  REQUIRE(store->resident_chunks({1, 1}).size() == kCount);
  REQUIRE(store->usage().disk_used == kSize);
  REQUIRE(store->pin({1, 1}));  // it is others that have to go to disk
  bool is_first = true;
  faults.before_read = [&] {  // while the scrub reads: what is demoted now takes the copies' places
    if (!std::exchange(is_first, false)) return;
    write_blob(*store, blob_options(3), kMemory + 2 * kSmallChunk);
  };
  scrub_all(*store);
  faults.before_read = nullptr;
  CHECK_FALSE(is_first);
  CHECK(store->usage().checksum_failures == 0);
  CHECK(whole(*store, {1, 1}));
}

TEST_CASE("without a copy in memory it is quarantined, until somebody brings it again") {
  const TemporaryDirectory directory;
  write_blob(*open_or_fail(with_disk(directory.path, kDisk)), durable_options(1), kSize);
  damage_chunk(directory.path, 2);
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    CHECK(store->damaged_chunks(10).empty());
    scrub_all(*store);
    scrub_all(*store);
    CHECK(store->usage().chunks_quarantined == 1);
    CHECK(store->usage().chunks_damaged == 1);
    const auto damaged = store->damaged_chunks(10);
    REQUIRE(damaged.size() == 1);
    CHECK(damaged[0].id == BlobId{1, 1});
    CHECK(damaged[0].meta.index == 2);
    CHECK(store->damaged_chunks(0).empty());
    CHECK(store->damaged_chunks(10, &damaged.front()).empty());
    Bytes buffer(kSmallChunk);
    CHECK(code_of(store->read_chunk({1, 1}, 2, buffer)) == ErrorCode::kCorrupt);
    const Bytes other = noise(kSmallChunk, 99);
    CHECK(code_of(store->put_chunk({1, 1}, raw_meta(2, other), other)) ==
          ErrorCode::kInvalidArgument);
    REQUIRE(put(*store, {1, 1}, 2, kSmallChunk));
    CHECK(store->usage().chunks_damaged == 0);
    CHECK(store->usage().chunks_repaired == 1);
    CHECK(whole(*store, {1, 1}));
  }
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  CHECK(whole(*store, {1, 1}));
  damage_chunk(directory.path, 0);
  scrub_all(*store);
  REQUIRE(store->damaged_chunks(10).size() == 1);
  REQUIRE(store->remove({1, 1}));
  CHECK(store->damaged_chunks(10).empty());
  CHECK(store->usage().disk_used == 0);
}

TEST_CASE("a sector that can't be read is damage as any other, unless it can be read later") {
  for (const std::string found_by : {"a reader", "the scrub"}) {
    CAPTURE(found_by);
    const TemporaryDirectory directory;
    SimMachine machine(1);
    const auto open = [&] {
      return open_store(with_disk(directory.path, kDisk), machine.disk()).value();
    };
    write_blob(*open(), durable_options(1), kSize);
    const auto store = open();
    Bytes buffer(kSmallChunk);
    const auto fail_one = [&] {
      machine.fail_next_read();
      if (found_by == "the scrub") return static_cast<void>(store->scrub(1));
      CHECK(code_of(store->read_chunk({1, 1}, 0, buffer)) == ErrorCode::kIo);
    };
    fail_one();
    CHECK(store->usage().chunks_quarantined == 1);
    CHECK(store->usage().checksum_failures == 0);
    const auto damaged = store->damaged_chunks(10);
    REQUIRE(damaged.size() == 1);
    CHECK(damaged[0].meta.index == 0);
    CHECK(code_of(store->read_chunk({1, 1}, 0, buffer)) == ErrorCode::kCorrupt);
    CHECK(reads_back(*store, {1, 1}, 1, kSmallChunk));
    REQUIRE(put(*store, {1, 1}, 0, kSmallChunk));
    CHECK(store->usage().chunks_repaired == 1);
    CHECK(whole(*store, {1, 1}));
    fail_one();  // this time for nobody to mend
    CHECK(store->usage().chunks_damaged == 1);
    scrub_all(*store);
    scrub_all(*store);
    CHECK(store->usage().chunks_damaged == 0);
    CHECK(store->usage().chunks_repaired == 1);
    CHECK(whole(*store, {1, 1}));
  }
}

TEST_CASE("damage that two find at once is counted once") {
  const TemporaryDirectory directory;
  write_blob(*open_or_fail(with_disk(directory.path, kDisk)), durable_options(1), kSize);
  damage_chunk(directory.path, 2);
  Faults faults;
  const auto store =
      open_store(with_disk(directory.path, kDisk), std::make_unique<FaultyDisk>(faults)).value();
  const auto read_it = [&] {
    Bytes buffer(kSmallChunk);
    CHECK(code_of(store->read_chunk({1, 1}, 2, buffer)) == ErrorCode::kCorrupt);
  };
  bool is_first = true;
  faults.before_read = [&] {
    if (std::exchange(is_first, false)) read_it();  // while the first one reads
  };
  read_it();
  CHECK(store->usage().chunks_quarantined == 1);
  CHECK(store->usage().chunks_damaged == 1);
}

TEST_CASE("a damaged copy of what memory has, too, is given up; a relay's chunk is dropped") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  const CreateOptions relay = relay_options(1);
  REQUIRE(store->create(relay));
  for (uint32_t i = 0; i < kCount; ++i) REQUIRE(put(*store, relay.id, i, kSmallChunk));
  write_blob(*store, blob_options(2), kMemory);
  REQUIRE(store->resident_chunks(relay.id).empty());
  REQUIRE(store->remove({1, 2}));
  Bytes buffer(kSmallChunk);
  REQUIRE(store->load_chunk(relay.id, 0, buffer));
  REQUIRE(store->resident_chunks(relay.id).size() == 1);
  for (uint64_t place = 0; place < kCount; ++place) damage_chunk(directory.path, place);
  scrub_all(*store);
  CHECK(store->usage().checksum_failures == kCount);
  CHECK(store->usage().disk_used == 0);
  CHECK(store->stored_chunks(relay.id).size() == 1);
  CHECK(reads_back(*store, relay.id, 0, kSmallChunk));
}

TEST_CASE("a damaged file of the index is found by the next cycle, and ends writing") {
  for (const std::string damage : {"MANIFEST", ".sst", ".log", ".log is gone"}) {
    CAPTURE(damage);
    const std::string kind = damage.substr(0, damage.find(' '));
    const TemporaryDirectory directory;
    for (int start = 0; start < 2; ++start) {  // so that there is an SST
      const auto store = open_or_fail(with_disk(directory.path, kDisk));
      write_blob(*store, durable_options(static_cast<uint64_t>(start) + 1), kSize);
    }
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    for (uint64_t number = 3; number < 23; ++number) {
      write_blob(*store, durable_options(number), kSmallChunk);
    }
    scrub_all(*store);
    REQUIRE(store->disk_failure().empty());
    for (const auto& entry : fs::directory_iterator(directory.path + "/bigcast/index")) {
      const std::string name = entry.path().filename();
      if (name.find(kind) == std::string::npos || entry.file_size() == 0) continue;
      if (damage == kind) {
        flip(entry.path(), entry.file_size() / 2, 8);
      } else {
        fs::remove(entry.path());
      }
    }
    scrub_all(*store);
    CHECK(store->disk_failure().find("index") != std::string::npos);
    CHECK(code_of(store->create(durable_options(50))) == ErrorCode::kIo);
    CHECK(whole(*store, {1, 1}));
  }
}

}  // namespace bigcast
