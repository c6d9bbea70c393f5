#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/blobstore/store_support.h"

namespace bigcast {

TEST_CASE("a store has so many chunks and no more, wherever they are") {
  const TemporaryDirectory directory;
  BlobStore::Options options = with_disk(directory.path, kDisk);
  options.chunks_max = 4;
  {
    const auto store = open_or_fail(options);
    write_blob(*store, durable_options(1), 3 * kSmallChunk);
    REQUIRE(store->create(blob_options(2)));
    REQUIRE(store->create(relay_options(3)));
    REQUIRE(put(*store, {1, 2}, 0, kSmallChunk));
    for (const uint64_t number : {2, 3}) {
      const auto refused = put(*store, {1, number}, 1, kSmallChunk);
      CHECK(code_of(refused) == ErrorCode::kResourceExhausted);
      CHECK(message_has(refused, "4 chunks"));
    }
    REQUIRE(put(*store, {1, 2}, 0, kSmallChunk));  // it is there already
    REQUIRE(store->remove({1, 2}));
    REQUIRE(put(*store, {1, 3}, 1, kSmallChunk));
    REQUIRE(store->drop_chunks({1, 3}));
    REQUIRE(put(*store, {1, 3}, 0, kSmallChunk));
  }
  const auto store = open_or_fail(options);
  REQUIRE(store->create(blob_options(2)));
  REQUIRE(put(*store, {1, 2}, 0, kSmallChunk));
  CHECK(code_of(put(*store, {1, 2}, 1, kSmallChunk)) == ErrorCode::kResourceExhausted);
}

TEST_CASE("options are checked by name") {
  CHECK(message_has(BlobStore::open(memory_only(1000)), "memory_budget"));
  BlobStore::Options options = memory_only();
  options.policy = "best";
  CHECK(message_has(BlobStore::open(options), "policy"));
  options = memory_only();
  options.clock = nullptr;
  CHECK(message_has(BlobStore::open(options), "clock"));
  CHECK(message_has(BlobStore::open(with_disk("/tmp", 0)), "disk_budget"));
}

TEST_CASE("blobs of every edge size are written, sealed, read and removed") {
  const auto store = open_or_fail(memory_only());
  uint64_t number = 0;
  for (const bool declared : {false, true}) {
    for (uint64_t size :
         {uint64_t{0}, uint64_t{1}, uint64_t{kSmallChunk} - 1, uint64_t{kSmallChunk},
          uint64_t{kSmallChunk} + 1, uint64_t{3} * kSmallChunk - 1, uint64_t{3} * kSmallChunk}) {
      CAPTURE(size);
      const auto options =
          blob_options(++number, declared ? std::optional(size) : std::optional<uint64_t>());
      write_blob(*store, options, size);
      const BlobStat stat = store->stat(options.id).value();
      CHECK(stat.sealed);
      CHECK(stat.size == size);
      CHECK(stat.stored_size == size);
      CHECK(stat.memory_bytes == store->usage().memory_used);
      CHECK(store->find("test", options.name).value() == options.id);
      const auto count = static_cast<uint32_t>((size + kSmallChunk - 1) / kSmallChunk);
      CHECK(stat.chunk_count == count);
      RootDigest root;
      for (uint32_t i = 0; i < count; ++i) {
        const size_t part = std::min<uint64_t>(kSmallChunk, size - uint64_t{i} * kSmallChunk);
        CHECK(reads_back(*store, options.id, i, part));
        root.add(digest_of(chunk_bytes(options.id, i, part)));
      }
      CHECK(stat.root_digest == root.finish());
      CHECK(store->locate(options.id, count).value().presence == Presence::kEnd);
      CHECK(store->seal(options.id, size, count));  // again: the same answer
      CHECK(code_of(store->seal(options.id, size + 1, count)) == ErrorCode::kAlreadyExists);
      CHECK(store->remove(options.id));
      CHECK(code_of(store->stat(options.id)) == ErrorCode::kNotFound);
      CHECK(code_of(store->find("test", options.name)) == ErrorCode::kNotFound);
      const StoreUsage usage = store->usage();
      CHECK(usage.memory_used == 0);
      CHECK(usage.reserved == 0);
      CHECK(usage.descriptors <= 1);  // kept for the next
      CHECK(usage.blobs == 0);
    }
  }
}

TEST_CASE("what is declared is checked without taking memory for it") {
  const auto store = open_or_fail(memory_only());
  const auto refused = [&](const CreateOptions& options, const char* name) {
    const auto result = store->create(options);
    CHECK(code_of(result) == ErrorCode::kInvalidArgument);
    CHECK(message_has(result, name));
  };
  refused(blob_options(1, uint64_t{1} << 60), "size");
  refused(blob_options(1, limits::kBlobSizeMax), "size");  // too many chunks of 64 KiB
  refused(blob_options(1, UINT64_MAX, limits::kChunkSizeDefault), "size");
  refused(blob_options(1, 1, kSmallChunk - 4096), "chunk_size");
  refused(blob_options(1, 1, limits::kChunkSizeMax + 4096), "chunk_size");
  refused(blob_options(1, 1, kSmallChunk + 1), "chunk_size");
  refused(blob_options(1, 1, limits::kChunkSizeMax), "memory budget");  // above half of it
  CreateOptions nameless = blob_options(1);
  nameless.name = "../x";
  refused(nameless, "name");
  nameless = blob_options(1);
  nameless.id = {};
  refused(nameless, "id");
  CHECK(store->usage().blobs == 0);

  const CreateOptions options = blob_options(1);
  REQUIRE(store->create(options));
  CHECK(code_of(store->reserve(options.id, uint64_t{1} << 60)) == ErrorCode::kInvalidArgument);
  const Bytes bytes = noise(100, 1);
  ChunkMeta meta = raw_meta(0, bytes);
  const auto put_code = [&](const ChunkMeta& lie) {
    return code_of(store->put_chunk(options.id, lie, bytes));
  };
  meta.index = limits::kChunksPerBlobMax;
  CHECK(put_code(meta) == ErrorCode::kInvalidArgument);
  meta.index = 0;
  meta.stored_size = meta.raw_size = 101;  // length is not what was declared
  CHECK(put_code(meta) == ErrorCode::kInvalidArgument);
  meta = raw_meta(0, bytes);
  meta.digest.lo ^= 1;
  CHECK(put_code(meta) == ErrorCode::kCorrupt);
  CHECK(code_of(store->seal(options.id, 100, 1)) == ErrorCode::kInvalidArgument);
  CHECK(code_of(store->seal(options.id, 100, 1u << 31)) == ErrorCode::kInvalidArgument);
  CHECK(store->usage().memory_used == 0);
}

TEST_CASE("sealing and putting check sizes and completeness") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions options = blob_options(1);
  REQUIRE(store->create(options));
  REQUIRE(put(*store, options.id, 0, kSmallChunk));
  REQUIRE(put(*store, options.id, 0, kSmallChunk));  // the same again
  const Bytes other = noise(kSmallChunk, 999);
  CHECK(code_of(store->put_chunk(options.id, raw_meta(0, other), other)) ==
        ErrorCode::kInvalidArgument);
  REQUIRE(put(*store, options.id, 2, 10));
  CHECK(message_has(store->seal(options.id, 2 * kSmallChunk + 10, 3), "missing"));
  REQUIRE(put(*store, options.id, 1, kSmallChunk - 1));  // short, in the middle
  CHECK(message_has(store->seal(options.id, 2 * kSmallChunk + 10, 3), "chunk 1"));
  CHECK(message_has(store->seal(options.id, kSmallChunk, 1), "beyond"));

  const CreateOptions declared = blob_options(2, kSmallChunk + 10);
  REQUIRE(store->create(declared));
  CHECK(code_of(put(*store, declared.id, 0, 10)) == ErrorCode::kInvalidArgument);
  CHECK(code_of(put(*store, declared.id, 1, 11)) == ErrorCode::kInvalidArgument);
  CHECK(code_of(put(*store, declared.id, 2, 1)) == ErrorCode::kInvalidArgument);
  REQUIRE(put(*store, declared.id, 0, kSmallChunk));
  CHECK(code_of(store->seal(declared.id, kSmallChunk, 1)) == ErrorCode::kInvalidArgument);
  REQUIRE(put(*store, declared.id, 1, 10));
  REQUIRE(store->seal(declared.id, kSmallChunk + 10, 2));
  CHECK(code_of(put(*store, declared.id, 2, 1)) == ErrorCode::kInvalidArgument);
}

TEST_CASE("names: bound at create, taken over when sealed, listed in order") {
  const auto store = open_or_fail(memory_only());
  CreateOptions old = blob_options(1);
  REQUIRE(store->create(old));
  CHECK(code_of(store->create(old)) == ErrorCode::kAlreadyExists);
  CreateOptions next = blob_options(2);
  next.name = old.name;
  CHECK(code_of(store->create(next)) == ErrorCode::kAlreadyExists);
  next.replace = true;
  REQUIRE(store->create(next));
  REQUIRE(put(*store, next.id, 0, 5));
  CHECK(store->find("test", old.name).value() == old.id);
  REQUIRE(store->seal(next.id, 5, 1));
  CHECK(store->find("test", old.name).value() == next.id);
  CHECK(code_of(store->stat(old.id)) == ErrorCode::kNotFound);
  CHECK(reads_back(*store, next.id, 0, 5));

  // One that was to replace and is given up leaves the name alone.
  CreateOptions abandoned = blob_options(3);
  abandoned.name = old.name;
  abandoned.replace = true;
  REQUIRE(store->create(abandoned));
  REQUIRE(store->remove(abandoned.id));
  CHECK(store->find("test", old.name).value() == next.id);

  for (uint64_t number : {12, 11, 10}) REQUIRE(store->create(blob_options(number)));
  CreateOptions elsewhere = blob_options(20);
  elsewhere.name_space = "test2";
  REQUIRE(store->create(elsewhere));
  REQUIRE(store->create(relay_options(21)));
  const auto names = [&](const char* prefix, const char* after, size_t limit) {
    std::string result;
    for (const BlobStat& stat : store->list("test", prefix, after, limit)) {
      result += stat.name + " ";
    }
    return result;
  };
  CHECK(names("", "", 100) == "blob-1 blob-10 blob-11 blob-12 ");
  CHECK(names("blob-1", "blob-10", 1) == "blob-11 ");
  CHECK(names("blob-12", "blob-10", 100) == "blob-12 ");
  CHECK(names("", "blob-12", 100).empty());
  CHECK(names("x", "", 100).empty());
}

TEST_CASE(
    "a home of a stripe keeps, reserves and seals its share, and has no name but stripe 0's") {
  const auto store = open_or_fail(memory_only());
  constexpr uint64_t kSize = 4 * kSmallChunk + 100;  // chunks 0, 2 and 4; 1 and 3
  constexpr Digest128 kRoot{1, 2};
  for (const uint32_t stripe : {0u, 1u}) {
    CAPTURE(stripe);
    auto options = blob_options(10 + stripe, kSize);
    options.name = "striped";
    options.stripe = {stripe, 2};
    options.note = "a note";
    REQUIRE(store->create(options));
    const uint64_t share = stripe == 0 ? 2 * kSmallChunk + kPage : 2 * kSmallChunk;
    CHECK(store->usage().reserved == share);
    CHECK(message_has(put(*store, options.id, 1 - stripe, kSmallChunk), "stripe"));
    REQUIRE(put(*store, options.id, stripe, kSmallChunk));
    CHECK(message_has(store->seal(options.id, kSize, 5, kRoot), "is missing"));
    REQUIRE(put(*store, options.id, stripe + 2, kSmallChunk));
    if (stripe == 0) REQUIRE(put(*store, options.id, 4, 100));
    CHECK(message_has(store->seal(options.id, kSize, 5), "root digest"));
    const auto sealed = store->seal(options.id, kSize, 5, kRoot);
    REQUIRE(sealed);
    CHECK(sealed->root_digest == kRoot);
    CHECK(sealed->size == kSize);
    CHECK(sealed->chunk_count == 3 - stripe);
    CHECK(sealed->note == "a note");
    CHECK(store->locate(options.id, 5)->presence == Presence::kEnd);
    CHECK(message_has(store->seal(options.id, kSize, 5, Digest128{3, 4}), "root digest"));
    CHECK(store->usage().reserved == 0);
  }
  CHECK(*store->find("test", "striped") == blob_options(10).id);
  CHECK(store->list("test", "", "", 10).size() == 1);
  REQUIRE(store->remove(blob_options(11).id));
  CHECK(store->find("test", "striped"));
}

TEST_CASE("a root digest that is not the chunks' is refused") {
  const auto store = open_or_fail(memory_only());
  REQUIRE(store->create(blob_options(1)));
  REQUIRE(put(*store, blob_options(1).id, 0, 100));
  CHECK(code_of(store->seal(blob_options(1).id, 100, 1, Digest128{1, 2})) == ErrorCode::kCorrupt);
  RootDigest root;
  root.add(raw_meta(0, chunk_bytes(blob_options(1).id, 0, 100)).digest);
  CHECK(store->seal(blob_options(1).id, 100, 1, root.finish()));
}

TEST_CASE("a lease takes its blobs with it") {
  const auto store = open_or_fail(memory_only());
  CreateOptions a = blob_options(1);
  CreateOptions b = blob_options(2);
  a.lease = b.lease = LeaseId{9, 9};
  for (const auto& options : {a, b, blob_options(3)}) write_blob(*store, options, 2 * kSmallChunk);
  auto gone = store->remove_lease(LeaseId{9, 9});
  std::sort(gone.begin(), gone.end());
  CHECK(gone == std::vector<BlobId>{a.id, b.id});
  CHECK(store->usage().blobs == 1);
  CHECK(store->remove_lease(LeaseId{}).empty());  // zero is no lease
  CHECK(store->usage().blobs == 1);
}

TEST_CASE("a known size is refused at create, an unknown one at a reservation step") {
  const auto store = open_or_fail(memory_only());
  const auto too_large = store->create(blob_options(1, kMemory + 1));
  CHECK(code_of(too_large) == ErrorCode::kResourceExhausted);
  CHECK(message_has(too_large, "memory budget"));
  CHECK(message_has(too_large, "disk budget"));
  REQUIRE(store->create(blob_options(1, kMemory / 2)));
  CHECK(store->usage().reserved == kMemory / 2);
  CHECK(code_of(store->create(blob_options(2, kMemory / 2 + 1))) == ErrorCode::kResourceExhausted);
  CHECK(code_of(store->find("test", "blob-2")) == ErrorCode::kNotFound);

  REQUIRE(store->create(blob_options(3)));
  REQUIRE(store->reserve({1, 3}, kMemory / 4));
  REQUIRE(store->reserve({1, 3}, kMemory / 2));
  CHECK(code_of(store->reserve({1, 3}, kMemory / 2 + 1)) == ErrorCode::kResourceExhausted);
  CHECK(store->usage().reserved == kMemory);
  // Not reserved and no room: refused. Reserved: fits to the last byte.
  REQUIRE(store->create(blob_options(4)));
  CHECK(code_of(put(*store, {1, 4}, 0, 1)) == ErrorCode::kResourceExhausted);
  for (uint64_t number : {1, 3}) {
    for (uint32_t i = 0; i < kMemory / 2 / kSmallChunk; ++i) {
      REQUIRE(put(*store, {1, number}, i, kSmallChunk));
    }
  }
  CHECK(store->usage().memory_used == kMemory);
  CHECK(store->usage().reserved == 0);
  CHECK(code_of(put(*store, {1, 3}, kMemory / 2 / kSmallChunk, 1)) ==
        ErrorCode::kResourceExhausted);
  REQUIRE(store->remove({1, 1}));
  CHECK(put(*store, {1, 4}, 0, 1));
}

TEST_CASE("compressed chunks of an unknown size use up only the stored bytes that they take") {
  const auto store = open_or_fail(memory_only());
  const Bytes zeroes(kSmallChunk);
  Bytes stored(encode_bound(kSmallChunk));
  const auto put_zeroes = [&](BlobId id) {
    const ChunkMeta meta = encode_chunk(0, zeroes, stored, Compression::kAuto);
    REQUIRE(meta.stored_size < 4096);
    REQUIRE(store->put_chunk(id, meta, std::span(stored).first(meta.stored_size)));
  };
  REQUIRE(store->create(blob_options(1)));
  REQUIRE(store->reserve({1, 1}, kMemory / 2));
  put_zeroes({1, 1});
  CHECK(store->usage().reserved == kMemory / 2 - 4096);
  // A declared size is in raw bytes, and so is what a chunk of it uses up.
  REQUIRE(store->create(blob_options(2, kMemory / 2)));
  put_zeroes({1, 2});
  CHECK(store->usage().reserved == kMemory - 4096 - kSmallChunk);
}

TEST_CASE("sealing gives back what was reserved and not used") {
  const auto store = open_or_fail(memory_only());
  REQUIRE(store->create(blob_options(1)));
  REQUIRE(store->reserve({1, 1}, kMemory));
  REQUIRE(put(*store, {1, 1}, 0, 100));
  REQUIRE(store->seal({1, 1}, 100, 1));
  CHECK(store->usage().reserved == 0);
  CHECK(store->create(blob_options(2, kMemory - 4096)));
  CHECK(code_of(store->create(blob_options(3, 1))) == ErrorCode::kResourceExhausted);
}

TEST_CASE("relays' chunks make way, the least recently used first; homes' never do") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions relay = relay_options(1);
  REQUIRE(store->create(relay));
  for (uint32_t i = 0; i < kFit; ++i) REQUIRE(put(*store, relay.id, i, kSmallChunk));
  CHECK(store->usage().memory_used == kMemory);
  CHECK(store->locate(relay.id, 0).value().presence == Presence::kMemfd);  // a hit
  REQUIRE(put(*store, relay.id, kFit, kSmallChunk));
  CHECK(store->locate(relay.id, 0).value().presence == Presence::kMemfd);
  CHECK(store->locate(relay.id, 1).value().presence == Presence::kAbsent);
  Bytes buffer(kSmallChunk);
  CHECK(code_of(store->read_chunk(relay.id, 1, buffer)) == ErrorCode::kNotFound);

  write_blob(*store, blob_options(2, kMemory), kMemory);
  CHECK(store->usage().memory_used == kMemory);
  CHECK(store->stat(relay.id).value().chunk_count == 0);
  CHECK(code_of(put(*store, relay.id, 0, kSmallChunk)) == ErrorCode::kResourceExhausted);
  for (uint32_t i = 0; i < kFit; ++i) CHECK(reads_back(*store, {1, 2}, i, kSmallChunk));
  CHECK(store->usage().chunks_dropped == kFit + 1);
}

TEST_CASE("a relay forgets its chunks and remembers the blob") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions relay = relay_options(1);
  REQUIRE(store->create(relay));
  REQUIRE(put(*store, relay.id, 5, kSmallChunk));
  const Digest128 root{7, 8};
  REQUIRE(store->seal(relay.id, 10 * kSmallChunk, 10, root));
  CHECK(store->stat(relay.id).value().root_digest == root);
  CHECK(store->locate(relay.id, 5).value().presence == Presence::kMemfd);
  CHECK(store->locate(relay.id, 4).value().presence == Presence::kAbsent);
  CHECK(store->locate(relay.id, 10).value().presence == Presence::kEnd);
  REQUIRE(store->drop_chunks(relay.id));
  CHECK(store->locate(relay.id, 5).value().presence == Presence::kAbsent);
  CHECK(store->usage().memory_used == 0);
  free_spare(*store);
  CHECK(store->usage().descriptors == 0);
  REQUIRE(put(*store, relay.id, 5, kSmallChunk));
  CHECK(reads_back(*store, relay.id, 5, kSmallChunk));
  REQUIRE(store->create(blob_options(2)));
  CHECK(code_of(store->drop_chunks({1, 2})) == ErrorCode::kInvalidArgument);
}

TEST_CASE("a memory file's descriptor reads, never writes, and shows punched chunks as zeros") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions relay = relay_options(1);
  REQUIRE(store->create(relay));
  CHECK(code_of(store->memory_file(relay.id)) == ErrorCode::kNotFound);
  REQUIRE(put(*store, relay.id, 1, kSmallChunk));
  const MemoryFile file = store->memory_file(relay.id).value();
  const Location location = store->locate(relay.id, 1).value();
  CHECK(location.generation == file.generation);
  Bytes buffer(kSmallChunk);
  REQUIRE(pread(file.fd, buffer.data(), buffer.size(), kSmallChunk) == kSmallChunk);
  CHECK(verify_chunk(location.meta, buffer));
  CHECK(pwrite(file.fd, "x", 1, 0) < 0);
  struct stat status {};
  REQUIRE(fstat(file.fd, &status) == 0);
  CHECK((status.st_mode & 0777) == 0400);
  CHECK(allocated_bytes(file.fd) == store->usage().memory_used);

  REQUIRE(store->drop_chunks(relay.id));
  free_spare(*store);
  CHECK(allocated_bytes(file.fd) == 0);  // freed although this descriptor is open
  REQUIRE(pread(file.fd, buffer.data(), buffer.size(), kSmallChunk) == kSmallChunk);
  CHECK(code_of(verify_chunk(location.meta, buffer)) == ErrorCode::kCorrupt);
  REQUIRE(put(*store, relay.id, 1, kSmallChunk));
  CHECK(store->locate(relay.id, 1).value().generation > file.generation);
  close(file.fd);
}

TEST_CASE("a small blob has no memory file") {
  const auto store = open_or_fail(memory_only());
  write_blob(*store, blob_options(1, 1000), 1000);
  CHECK(store->usage().descriptors == 0);
  CHECK(store->usage().memory_used == 4096);
  CHECK(store->locate({1, 1}, 0).value().presence == Presence::kElsewhere);
  CHECK(code_of(store->memory_file({1, 1})) == ErrorCode::kNotFound);
  Bytes small(999);
  CHECK(code_of(store->read_chunk({1, 1}, 0, small)) == ErrorCode::kInvalidArgument);
}

TEST_CASE("memory files take at most half of the open files limit") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit low = before;
  low.rlim_cur = 64;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  const auto store = open_or_fail(memory_only());
  for (uint64_t number = 1; number <= 33; ++number) {
    REQUIRE(store->create(relay_options(number)));
    const auto result = put(*store, {1, number}, 0, kSmallChunk);
    if (number <= 32) {
      CHECK(result);
    } else {
      CHECK(code_of(result) == ErrorCode::kResourceExhausted);
      CHECK(message_has(result, "open files"));
    }
  }
  CHECK(store->usage().descriptors == 32);
  REQUIRE(store->remove({1, 1}));
  CHECK(put(*store, {1, 33}, 0, kSmallChunk));
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
}

}  // namespace bigcast
