#include <fcntl.h>
#include <unistd.h>

#include "tests/blobstore/store_support.h"

namespace bigcast {
namespace {

namespace fs = std::filesystem;

bool whole(BlobStore& store, BlobId id, uint64_t size) {
  for (uint64_t at = 0; at < size; at += kSmallChunk) {
    const auto index = static_cast<uint32_t>(at / kSmallChunk);
    if (!reads_back(store, id, index, std::min<uint64_t>(kSmallChunk, size - at))) return false;
  }
  return true;
}

// A chunk of zeros with its index before them, compressed: it takes one block.
Result<void> put_small(BlobStore& store, BlobId id, uint32_t index) {
  Bytes raw(kSmallChunk);
  std::memcpy(raw.data(), &index, sizeof index);
  Bytes stored(encode_bound(kSmallChunk));
  const ChunkMeta meta = encode_chunk(index, raw, stored, Compression::kAuto);
  return store.put_chunk(id, meta, std::span(stored).first(meta.stored_size));
}

// One byte of the file, in its middle, becomes another.
void damage(const fs::path& path) { flip(path, fs::file_size(path) / 2, 4); }

}  // namespace

TEST_CASE("durable blobs come back whole under their names, and nothing else does") {
  const TemporaryDirectory directory;
  constexpr uint64_t kSize = 20 * kSmallChunk + 77;
  CreateOptions leased = durable_options(2, kSize);
  leased.lease = {7, 7};
  BlobStat before;
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    write_blob(*store, durable_options(1), kSize);
    write_blob(*store, leased, kSize);
    write_blob(*store, durable_options(3), 0);
    write_blob(*store, durable_options(4), 100);
    write_blob(*store, durable_options(5), kSize);
    REQUIRE(store->remove({1, 5}));
    write_blob(*store, blob_options(6), 2 * kMemory);   // pushes all others out of memory
    REQUIRE(store->create(durable_options(7, kSize)));  // never sealed
    REQUIRE(put(*store, {1, 7}, 0, kSmallChunk));
    for (const uint64_t number : {1, 2, 4}) {
      CHECK(store->stat({1, number}).value().durability == Durability::kDisk);
    }
    CHECK(whole(*store, {1, 1}, kSize));
    before = store->stat({1, 1}).value();
  }
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  CHECK(store->usage().blobs_recovered == 4);
  CHECK(store->usage().blobs_lost == 0);
  CHECK(store->usage().blobs == 4);
  for (const uint64_t number : {1, 2}) CHECK(whole(*store, {1, number}, kSize));
  CHECK(whole(*store, {1, 4}, 100));
  const BlobStat after = store->stat(store->find("test", "blob-1").value()).value();
  CHECK(after.id == before.id);
  CHECK(after.sealed);
  CHECK(after.root_digest == before.root_digest);
  CHECK(after.size == kSize);
  CHECK(after.disk_bytes == whole_pages(kSize));
  CHECK(after.durability == Durability::kDisk);
  CHECK(store->stat({1, 3}).value().size == 0);
  CHECK(code_of(store->find("test", "blob-5")) == ErrorCode::kNotFound);
  CHECK(code_of(store->find("test", "blob-6")) == ErrorCode::kNotFound);
  CHECK(code_of(store->find("test", "blob-7")) == ErrorCode::kNotFound);
  check_totals(*store, {{1, 1}, {1, 2}, {1, 3}, {1, 4}}, 21);

  // The lease is known, and all space is accounted for: what is free can be promised and filled.
  CHECK(store->leases() == std::vector<LeaseId>{{7, 7}});
  CHECK(store->remove_lease({7, 7}) == std::vector<BlobId>{{1, 2}});
  const uint64_t rest = kDisk + kMemory - whole_pages(kSize) - whole_pages(100) - kSmallChunk;
  CHECK(code_of(store->create(blob_options(8, rest + 4096))) == ErrorCode::kResourceExhausted);
  write_blob(*store, blob_options(8, rest), rest);
  CHECK(whole(*store, {1, 8}, rest));
  CHECK(whole(*store, {1, 1}, kSize));
  for (const uint64_t number : {1, 3, 4, 8}) REQUIRE(store->remove({1, number}));
  CHECK(store->usage().disk_used == 0);
}

TEST_CASE("durable stripes come back with their notes, and are not taken for whole blobs") {
  const TemporaryDirectory directory;
  constexpr uint64_t kSize = 4 * kSmallChunk + 100;  // chunks 0, 2 and 4; 1 and 3
  constexpr uint32_t kCount = 5;
  constexpr Digest128 kRoot{1, 2};
  const auto stripe_of = [](uint64_t number, uint32_t index, uint32_t count) {
    CreateOptions options = durable_options(number);
    options.name = "striped";
    options.stripe = {index, count};
    options.note = "a note";
    return options;
  };
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    for (const uint32_t index : {0u, 1u}) {
      const CreateOptions options = stripe_of(10 + index, index, 2);
      REQUIRE(store->create(options));
      for (uint32_t i = index; i < kCount; i += 2) {
        REQUIRE(put(*store, options.id, i, i == 4 ? 100 : kSmallChunk));
      }
      REQUIRE(store->seal(options.id, kSize, kCount, kRoot));
    }
    REQUIRE(store->create(stripe_of(19, 7, 8)));  // has no chunk
    REQUIRE(store->seal({1, 19}, kSize, kCount, kRoot));
    CHECK(store->noted().size() == 3);
  }
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  CHECK(store->usage().blobs_lost == 0);
  CHECK(store->noted().size() == 3);
  CHECK(store->find("test", "striped") == BlobId{1, 10});
  for (const uint32_t index : {0u, 1u}) {
    const BlobStat stat = store->stat({1, 10 + index}).value();
    CHECK(stat.note == "a note");
    CHECK(stat.stripe.index == index);
    CHECK(stat.stripe.count == 2);
    CHECK(stat.size == kSize);
    CHECK(stat.root_digest == kRoot);
    CHECK(stat.chunk_count == 3 - index);
    for (uint32_t i = index; i < kCount; i += 2) {
      CHECK(reads_back(*store, stat.id, i, i == 4 ? 100 : kSmallChunk));
    }
  }
  CHECK(store->stat({1, 19}).value().chunk_count == 0);
  for (const uint64_t number : {10, 11, 19}) REQUIRE(store->remove({1, number}));
  CHECK(store->usage().disk_used == 0);
}

// So many rows that they are more than one batch.
TEST_CASE("a durable blob of many chunks comes back whole") {
  const TemporaryDirectory directory;
  constexpr uint32_t kCount = limits::kIndexBatchRows + 3;
  for (const uint32_t stripes : {1u, 2u}) {
    CAPTURE(stripes);
    CreateOptions options = durable_options(stripes);
    options.stripe = {stripes - 1, stripes};
    const uint32_t count = kCount * stripes;
    {
      const auto store = open_or_fail(with_disk(directory.path, 2 * kDisk));
      REQUIRE(store->create(options));
      for (uint32_t i = stripes - 1; i < count; i += stripes) {
        REQUIRE(put_small(*store, options.id, i));
      }
      REQUIRE(store->seal(options.id, uint64_t{count} * kSmallChunk, count,
                          stripes == 1 ? std::nullopt : std::optional(Digest128{1, 2})));
    }
    const auto store = open_or_fail(with_disk(directory.path, 2 * kDisk));
    CHECK(store->usage().blobs_lost == 0);
    const auto stat = store->stat(options.id);
    REQUIRE(stat);
    CHECK(stat->chunk_count == kCount);
    CHECK(store->locate(options.id, count - 1)->is_here());
    CHECK(store->locate(options.id, count)->presence == Presence::kEnd);
  }
}

TEST_CASE("a name that changed hands has its last owner after a restart") {
  const TemporaryDirectory directory;
  constexpr uint64_t kSize = 3 * kSmallChunk;
  CreateOptions second = durable_options(2);
  second.name = "blob-1";
  second.replace = true;
  CreateOptions third = blob_options(3);  // of the level `memory`
  third.name = "blob-4";
  third.replace = true;
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    write_blob(*store, durable_options(1), kSize);
    write_blob(*store, second, kSize);
    write_blob(*store, durable_options(4), kSize);
    write_blob(*store, third, kSize);
  }
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  CHECK(store->usage().blobs == 1);
  CHECK(store->find("test", "blob-1") == BlobId{1, 2});
  CHECK(whole(*store, {1, 2}, kSize));
}

TEST_CASE("a sealed blob answers the same seal again, before and after a restart, and no other") {
  const TemporaryDirectory directory;
  constexpr uint64_t kSize = 2 * kSmallChunk;
  Digest128 root;
  for (int start = 0; start < 2; ++start) {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    if (start == 0) {
      write_blob(*store, durable_options(1), kSize);
      root = store->stat({1, 1}).value().root_digest;
    }
    const auto again = store->seal({1, 1}, kSize, 2);
    REQUIRE(again);
    CHECK(again->root_digest == root);
    CHECK(code_of(store->seal({1, 1}, kSmallChunk, 1)) == ErrorCode::kAlreadyExists);
    CHECK(put(*store, {1, 1}, 1, kSmallChunk));
    const Bytes other = noise(kSmallChunk, 99);
    CHECK(code_of(store->put_chunk({1, 1}, raw_meta(1, other), other)) ==
          ErrorCode::kInvalidArgument);
    CHECK(code_of(store->create(durable_options(1))) == ErrorCode::kAlreadyExists);
    CHECK(whole(*store, {1, 1}, kSize));
  }
}

TEST_CASE("durable blobs need a disk that is kept, and room on it") {
  CHECK(message_has(open_or_fail(memory_only())->create(durable_options(1)), "durability"));
  const TemporaryDirectory directory;
  BlobStore::Options options = with_disk(directory.path, kDisk);
  options.keep = false;
  CHECK(message_has(open_or_fail(options)->create(durable_options(1)), "durability"));
  options.keep = true;
  const auto store = open_or_fail(options);
  const auto refused = store->create(durable_options(1, kDisk + 1));
  CHECK(code_of(refused) == ErrorCode::kResourceExhausted);
  CHECK(message_has(refused, "disk budget"));

  // What is promised to them is left alone by what memory pushes out, however it comes.
  constexpr uint64_t kPromised = kDisk - 4 * limits::kMiB;
  REQUIRE(store->create(durable_options(2, kPromised)));
  REQUIRE(store->create(relay_options(3)));
  for (uint32_t i = 0; i < 300; ++i) REQUIRE(put(*store, {1, 3}, i, kSmallChunk));
  constexpr uint64_t kOther = kMemory + 4 * limits::kMiB - kSmallChunk;
  write_blob(*store, blob_options(4, kOther), kOther);
  for (uint64_t at = 0; at < kPromised; at += kSmallChunk) {
    REQUIRE(put(*store, {1, 2}, static_cast<uint32_t>(at / kSmallChunk), kSmallChunk));
  }
  REQUIRE(store->seal({1, 2}, kPromised, kPromised / kSmallChunk));
  CHECK(whole(*store, {1, 4}, kOther));
  CHECK(whole(*store, {1, 2}, kPromised));
}

TEST_CASE("a store that is not kept starts empty whatever it finds, and leaves nothing") {
  const TemporaryDirectory directory;
  BlobStore::Options options = with_disk(directory.path, kDisk);
  write_blob(*open_or_fail(options), durable_options(1), kSmallChunk);
  for (const auto& entry : fs::directory_iterator(directory.path + "/bigcast/index")) {
    if (entry.path().filename().string().starts_with("MANIFEST")) damage(entry.path());
  }
  options.keep = false;
  CHECK(open_or_fail(options)->usage().blobs == 0);
  CHECK(fs::is_empty(directory.path));
}

TEST_CASE("blobs whose bytes are gone are lost, the rest is served, their space is free" *
          doctest::skip(kIsThreadSanitized)) {
  const TemporaryDirectory directory;
  const std::string first = directory.path + "/bigcast/extent-000001";
  const std::string second = directory.path + "/bigcast/extent-000002";
  const uint64_t disk = limits::kExtentSize + kDisk;
  const uint64_t size = limits::kExtentSize / 2;
  const auto fill = [&] {
    const auto store = open_or_fail(with_disk(directory.path, disk));
    for (uint64_t number = 1; number <= 3; ++number) {
      const CreateOptions options = durable_options(number, std::nullopt, 4 * limits::kMiB);
      if (number == 3) return write_blob(*store, options, kDisk / 2);
      write_blob(*store, options, size);
    }
  };
  fill();
  REQUIRE(fs::file_size(first) == limits::kExtentSize);
  SUBCASE("cut short") { fs::resize_file(first, limits::kExtentSize - 4096); }
  SUBCASE("cut to nothing") { fs::resize_file(first, 0); }
  SUBCASE("deleted") { fs::remove(first); }
  SUBCASE("another one deleted") { fs::remove(second); }
  const bool first_half = fs::exists(first) && fs::file_size(first) >= size;
  const bool second_half = fs::exists(first) && fs::file_size(first) >= 2 * size;
  const bool third = fs::exists(second);
  for (int start = 0; start < 2; ++start) {  // and it stays like that
    const auto store = open_or_fail(with_disk(directory.path, disk));
    CHECK(store->stat({1, 1}).has_value() == first_half);
    CHECK(store->stat({1, 2}).has_value() == second_half);
    CHECK(store->stat({1, 3}).has_value() == third);
    const uint64_t kept = first_half + second_half + third;
    CHECK(store->usage().blobs == kept);
    CHECK(store->usage().blobs_lost == (start == 0 ? 3 - kept : 0));
    Bytes buffer(4 * limits::kMiB);
    for (uint64_t number = 1; number <= 3; ++number) {
      if (!store->stat({1, number})) continue;
      for (uint32_t i = 0; i < (number == 3 ? kDisk / 2 : size) / buffer.size(); ++i) {
        REQUIRE(store->read_chunk({1, number}, i, buffer));
      }
    }
    CHECK(store->usage().disk_used == (first_half + second_half) * size + (third ? kDisk / 2 : 0));
  }
}

TEST_CASE("a damaged index is a typed error that names it, never other bytes") {
  const TemporaryDirectory directory;
  const fs::path index = directory.path + "/bigcast/index";
  constexpr uint64_t kSize = 10 * kSmallChunk;
  for (int start = 0; start < 3; ++start) {  // so that there are an SST and a log
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    for (uint64_t number = 1; number <= 20; ++number) {
      write_blob(*store, durable_options(100 * static_cast<uint64_t>(start) + number), kSize / 10);
    }
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(index)) {
    const std::string name = entry.path().filename().string();
    const bool is_data = name.starts_with("MANIFEST") || name == "CURRENT" ||
                         name.ends_with(".sst") || name.ends_with(".log");
    if (is_data && entry.file_size() > 0) files.push_back(entry.path());
  }
  REQUIRE(files.size() >= 4);
  const fs::path sound = directory.path + "/sound";
  fs::copy(index, sound);
  const auto restore = [&] {
    fs::remove_all(index);
    fs::copy(sound, index);
  };
  for (const fs::path& file : files) {
    CAPTURE(file.string());
    damage(file);
    const auto refused = BlobStore::open(with_disk(directory.path, kDisk));
    CHECK(code_of(refused) == ErrorCode::kCorrupt);
    CHECK(message_has(refused, directory.path + "/bigcast"));
    restore();
    fs::remove(file);
    CHECK(code_of(BlobStore::open(with_disk(directory.path, kDisk))) == ErrorCode::kCorrupt);
    restore();
  }
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  CHECK(store->usage().blobs == 60);
}

TEST_CASE("a changed byte of a durable blob is CORRUPT, unless memory has it, too") {
  const TemporaryDirectory directory;
  constexpr uint64_t kSize = 4 * kSmallChunk;
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    write_blob(*store, durable_options(1), kSize);
    flip(directory.path + "/bigcast/extent-000001", kSmallChunk + 17, 1);
    CHECK(whole(*store, {1, 1}, kSize));
  }
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  Bytes buffer(kSmallChunk);
  for (int again = 0; again < 2; ++again) {
    CHECK(code_of(store->read_chunk({1, 1}, 1, buffer)) == ErrorCode::kCorrupt);
    for (const uint32_t index : {0, 2, 3}) CHECK(reads_back(*store, {1, 1}, index, kSmallChunk));
  }
  CHECK(store->usage().chunks_quarantined == 1);
  CHECK(store->usage().checksum_failures == 1);
}

TEST_CASE("a smaller budget at the next start takes nothing new before there is room") {
  const TemporaryDirectory directory;
  write_blob(*open_or_fail(with_disk(directory.path, kDisk)), durable_options(1), kDisk / 2);
  const auto store = open_or_fail(with_disk(directory.path, kDisk / 4));
  CHECK(whole(*store, {1, 1}, kDisk / 2));
  CHECK(code_of(store->create(durable_options(2, 4096))) == ErrorCode::kResourceExhausted);
  write_blob(*store, blob_options(3), kSmallChunk);
  REQUIRE(store->remove({1, 1}));
  write_blob(*store, durable_options(4, kDisk / 4), kDisk / 4);
  CHECK(whole(*store, {1, 4}, kDisk / 4));
}

}  // namespace bigcast
