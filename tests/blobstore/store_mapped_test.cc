#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "store_support.h"
#include "tests/support/faulty_disk.h"

namespace bigcast {
namespace {

using Pin = std::shared_ptr<const Hold>;

CreateOptions mappable(CreateOptions options) {
  options.mappable = true;
  return options;
}

// A reader's mapping of a blob, without what a client does.
struct Mapped {
  explicit Mapped(const MappableFile& file)
      : fd(file.fd), size(file.size), bytes(mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0)) {}
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  ~Mapped() {
    munmap(bytes, size);
    close(fd);
  }
  bool shows(BlobId id) const {
    if (bytes == MAP_FAILED) return false;
    for (uint64_t offset = 0; offset < size; offset += kSmallChunk) {
      const size_t length = std::min<uint64_t>(kSmallChunk, size - offset);
      const Bytes expected = chunk_bytes(id, static_cast<uint32_t>(offset / kSmallChunk), length);
      if (std::memcmp(static_cast<const std::byte*>(bytes) + offset, expected.data(), length) != 0)
        return false;
    }
    return true;
  }
  const int fd;
  const uint64_t size;
  void* const bytes;
};

std::unique_ptr<Mapped> map_or_fail(BlobStore& store, BlobId id) {
  const auto file = store.map(id);
  if (!file) FAIL(file.error().to_string());
  return std::make_unique<Mapped>(*file);
}

Pin hold_or_fail(BlobStore& store, BlobId id) {
  auto pin = store.hold(id);
  if (!pin) FAIL(pin.error().to_string());
  return std::move(*pin);
}

void fill_relay(BlobStore& store, const CreateOptions& options, uint32_t first, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) REQUIRE(put(store, options.id, first + i, kSmallChunk));
}

constexpr uint64_t kMappedBlob = 8 * kSmallChunk - 100;

}  // namespace

TEST_CASE("a mapped blob is whole in one file, which nobody can write, lengthen or punch") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions options = mappable(blob_options(1, kMappedBlob));
  write_blob(*store, options, kMappedBlob);
  const Pin pin = hold_or_fail(*store, options.id);
  const auto mapped = map_or_fail(*store, options.id);
  CHECK(mapped->size == kMappedBlob);
  CHECK(mapped->shows(options.id));
  struct stat status {};
  REQUIRE(fstat(mapped->fd, &status) == 0);
  CHECK((status.st_mode & 0777) == 0400);
  // Not even its owner, who can open it for writing.
  const std::string path = "/proc/self/fd/" + std::to_string(mapped->fd);
  REQUIRE(fchmod(mapped->fd, 0600) == 0);
  const int writer = open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(writer >= 0);
  CHECK(pwrite(writer, "x", 1, 0) == -1);
  CHECK(ftruncate(writer, 1) == -1);
  CHECK(ftruncate(writer, 2 * limits::kMiB) == -1);
  CHECK(fallocate(writer, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == -1);
  CHECK(mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, writer, 0) == MAP_FAILED);
  close(writer);
  CHECK(reads_back(*store, options.id, 3, kSmallChunk));  // who copies goes on
  CHECK(store->view_chunk(options.id, 4));
  CHECK(store->usage().memory_mapped == whole_pages(kMappedBlob));
}

TEST_CASE("only sealed blobs that were written for it can be mapped, with raw chunks") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions plain = blob_options(1);
  write_blob(*store, plain, kMappedBlob);
  CHECK(code_of(store->hold(plain.id)) == ErrorCode::kNotMappable);
  const CreateOptions empty = mappable(blob_options(2));
  write_blob(*store, empty, 0);
  CHECK(code_of(store->hold(empty.id)) == ErrorCode::kNotMappable);
  const CreateOptions options = mappable(blob_options(3));
  REQUIRE(store->create(options));
  const Bytes zeros(kSmallChunk);
  Bytes stored(encode_bound(kSmallChunk));
  const ChunkMeta meta = encode_chunk(0, zeros, stored, Compression::kAuto);
  stored.resize(meta.stored_size);
  CHECK(code_of(store->put_chunk(options.id, meta, stored)) == ErrorCode::kInvalidArgument);
  REQUIRE(put(*store, options.id, 0, 100));  // small, and in a file all the same
  CHECK(code_of(store->hold(options.id)) == ErrorCode::kNotMappable);
  REQUIRE(store->seal(options.id, 100, 1));
  const Pin pin = hold_or_fail(*store, options.id);
  CHECK(map_or_fail(*store, options.id)->shows(options.id));
  CreateOptions stripe = mappable(blob_options(4));
  stripe.stripe = {0, 2};
  CHECK(code_of(store->create(stripe)) == ErrorCode::kInvalidArgument);
}

TEST_CASE("what is mapped does not leave; what was leaves whole") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions options = mappable(relay_options(1));
  write_blob(*store, options, kMappedBlob);
  Pin pin = hold_or_fail(*store, options.id);
  Pin second = hold_or_fail(*store, options.id);
  auto mapped = map_or_fail(*store, options.id);
  const CreateOptions other = relay_options(2);
  REQUIRE(store->create(other));
  fill_relay(*store, other, 0, 2 * kFit);
  CHECK(store->stat(options.id)->chunk_count == 8);
  CHECK(mapped->shows(options.id));
  pin = {};
  fill_relay(*store, other, 2 * kFit, kFit);
  CHECK(store->stat(options.id)->chunk_count == 8);
  mapped = {};
  second = {};
  CHECK(store->usage().memory_mapped == 0);
  fill_relay(*store, other, 3 * kFit, kFit);
  CHECK(store->stat(options.id)->chunk_count == 0);
  CHECK(store->usage().memory_used <= kMemory);
  check_totals(*store, {options.id, other.id}, 5 * kFit);
}

TEST_CASE("a chunk that left a frozen file finds its pages again") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions options = mappable(relay_options(1));
  write_blob(*store, options, kMappedBlob);
  Pin pin = hold_or_fail(*store, options.id);
  map_or_fail(*store, options.id);
  pin = {};
  // Makes some of its chunks leave: the first of all to be evicted.
  const CreateOptions other = relay_options(2);
  REQUIRE(store->create(other));
  const uint64_t before = store->usage().memory_used;
  fill_relay(*store, other, 0, kFit - 8);
  CHECK(store->stat(options.id)->chunk_count == 8);
  REQUIRE(store->locate(options.id, 5));  // of late use: it stays when one more chunk needs room
  CHECK(before == 8 * kSmallChunk);
  // Nothing is freed before all have left; so the other's chunks are next.
  fill_relay(*store, other, kFit, 1);
  const uint32_t left = store->stat(options.id)->chunk_count;
  CHECK(left < 8);
  CHECK(store->usage().memory_used <= kMemory);
  for (uint32_t i = 0; i < 8; ++i) {
    REQUIRE(put(*store, options.id, i, i == 7 ? kSmallChunk - 100 : kSmallChunk));
  }
  pin = hold_or_fail(*store, options.id);
  CHECK(map_or_fail(*store, options.id)->shows(options.id));
  CHECK(store->usage().memory_used <= kMemory);
}

TEST_CASE("what can't be brought back to be mapped is damaged, or a relay's and fetched again") {
  for (const bool is_relay : {false, true}) {
    CAPTURE(is_relay);
    const TemporaryDirectory directory;
    Faults faults;
    const auto store =
        open_store(with_disk(directory.path, 4 * kMemory), std::make_unique<FaultyDisk>(faults))
            .value();
    const CreateOptions options = mappable(is_relay ? relay_options(1) : blob_options(1));
    write_blob(*store, options, kMappedBlob);
    write_blob(*store, blob_options(2), kMemory);
    REQUIRE(store->resident_chunks(options.id).empty());
    REQUIRE(store->remove({1, 2}));
    const Pin pin = hold_or_fail(*store, options.id);
    faults.read_io = true;
    CHECK(code_of(store->map(options.id)) == (is_relay ? ErrorCode::kNotFound : ErrorCode::kIo));
    faults.read_io = false;
    CHECK(store->usage().chunks_damaged == (is_relay ? 0 : 1));
    CHECK(store->stored_chunks(options.id).size() == (is_relay ? 7 : 8));
    CHECK(code_of(store->map(options.id)) ==
          (is_relay ? ErrorCode::kNotFound : ErrorCode::kCorrupt));
    REQUIRE(put(*store, options.id, 0, kSmallChunk));
    CHECK(store->usage().chunks_damaged == 0);
    CHECK(map_or_fail(*store, options.id)->shows(options.id));
  }
}

TEST_CASE("a blob that is removed while it is mapped stays counted until it is returned") {
  for (const bool is_relay : {false, true}) {
    const auto store = open_or_fail(memory_only());
    const CreateOptions options = mappable(is_relay ? relay_options(1) : blob_options(1));
    write_blob(*store, options, kMappedBlob);
    Pin pin = hold_or_fail(*store, options.id);
    auto mapped = map_or_fail(*store, options.id);
    CHECK(!pin->is_left);
    CHECK(store->usage().memory_mapped_left == 0);
    if (is_relay) {
      REQUIRE(store->drop_chunks(options.id));
      CHECK(code_of(store->map(options.id)) == ErrorCode::kNotFound);
      REQUIRE(put(*store, options.id, 0, kSmallChunk));  // it comes again, into another file
      CHECK(store->usage().memory_used == 9 * kSmallChunk);
    }
    REQUIRE(store->remove(options.id));
    CHECK(mapped->shows(options.id));
    CHECK(store->usage().memory_used == 8 * kSmallChunk);
    CHECK(store->usage().memory_mapped == 8 * kSmallChunk);
    CHECK(store->usage().memory_mapped_left == 8 * kSmallChunk);
    CHECK(pin->is_left);
    // Nobody is promised what it takes.
    const CreateOptions next = blob_options(2, kMemory);
    CHECK(code_of(store->create(next)) == ErrorCode::kResourceExhausted);
    mapped = {};
    pin = {};
    free_spare(*store);
    CHECK(store->usage().memory_used == 0);
    CHECK(store->usage().memory_mapped == 0);
    CHECK(store->usage().memory_mapped_left == 0);
    CHECK(store->usage().descriptors == 0);
    CHECK(store->create(next));
  }
}

TEST_CASE("at most half of the memory is mapped") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions large = mappable(blob_options(1));
  write_blob(*store, large, kMemory / 2 + 1);
  CHECK(code_of(store->hold(large.id)) == ErrorCode::kNotMappable);
  REQUIRE(store->remove(large.id));
  const CreateOptions first = mappable(blob_options(2));
  const CreateOptions second = mappable(blob_options(3));
  write_blob(*store, first, kMemory / 2);
  write_blob(*store, second, kSmallChunk);
  Pin pin = hold_or_fail(*store, first.id);
  CHECK(code_of(store->hold(second.id)) == ErrorCode::kNotMappable);
  CHECK(store->hold(first.id));  // one more reader takes nothing
  pin = {};
  CHECK(store->hold(second.id));
}

TEST_CASE("a mapping brings back what is on disk, and what is freed there can be used again") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, 2 * kMemory));
  const CreateOptions options = mappable(blob_options(1));
  write_blob(*store, options, kMemory / 2);
  const CreateOptions other = blob_options(2);
  write_blob(*store, other, kMemory);
  CHECK(store->stat(options.id)->disk_bytes > 0);
  Pin pin = hold_or_fail(*store, options.id);
  auto mapped = map_or_fail(*store, options.id);
  CHECK(mapped->shows(options.id));
  CHECK(store->stat(options.id)->disk_bytes == 0);
  CHECK(store->usage().memory_used <= kMemory);
  CHECK(store->usage().disk_used == kMemory / 2);
  check_totals(*store, {options.id, other.id}, 2 * kFit);
  // The rest of both budgets, less the chunk that is kept free, is still to be had.
  const CreateOptions rest = blob_options(3);
  write_blob(*store, rest, 3 * kMemory - kMemory * 3 / 2 - kSmallChunk);
  CHECK(mapped->shows(options.id));
  mapped = {};
  pin = {};
  // Without a reader it goes to disk like any other.
  const CreateOptions relay = relay_options(4);
  REQUIRE(store->remove(other.id));
  REQUIRE(store->create(relay));
  fill_relay(*store, relay, 0, 2 * kFit);
  check_totals(*store, {options.id, rest.id, relay.id}, 4 * kFit);
  for (uint32_t i = 0; i < kFit / 2; ++i) {
    CHECK(reads_back(*store, options.id, i, kSmallChunk));
  }
  pin = hold_or_fail(*store, options.id);
  CHECK(map_or_fail(*store, options.id)->shows(options.id));
}

TEST_CASE("a durable blob is mapped beside its place on disk") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kMemory));
  const CreateOptions options = mappable(durable_options(1));
  write_blob(*store, options, kMemory / 2);
  const CreateOptions relay = relay_options(2);
  REQUIRE(store->create(relay));
  fill_relay(*store, relay, 0, 2 * kFit);
  Pin pin = hold_or_fail(*store, options.id);
  CHECK(map_or_fail(*store, options.id)->shows(options.id));
  CHECK(store->stat(options.id)->disk_bytes == kMemory / 2);
  CHECK(store->stat(options.id)->memory_bytes == kMemory / 2);
  REQUIRE(store->remove(options.id));
  CHECK(store->usage().memory_mapped == kMemory / 2);
  pin = {};
  CHECK(store->usage().memory_mapped == 0);
}

TEST_CASE("a frozen file shows nothing of the blob whose pages it took over") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions before = blob_options(1);
  write_blob(*store, before, kMemory / 4);
  REQUIRE(store->remove(before.id));
  const CreateOptions options = mappable(blob_options(2));
  write_blob(*store, options, kSmallChunk + 5);
  const Pin pin = hold_or_fail(*store, options.id);
  const auto file = store->map(options.id);
  REQUIRE(file);
  CHECK(allocated_bytes(file->fd) == kSmallChunk + 4096);
  Bytes page(4096);
  REQUIRE(pread(file->fd, page.data(), page.size(), kSmallChunk) == 4096);
  const Bytes last = chunk_bytes(options.id, 1, 5);
  for (size_t i = 0; i < page.size(); ++i) CHECK(page[i] == (i < 5 ? last[i] : std::byte{0}));
  close(file->fd);
}

TEST_CASE("mappings, puts, drops and removals from many threads") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, 2 * kMemory));
  std::vector<CreateOptions> homes;
  for (uint32_t i = 0; i < 3; ++i) {
    homes.push_back(mappable(blob_options(1 + i)));
    write_blob(*store, homes.back(), kMemory / 8);
  }
  const CreateOptions relay = mappable(relay_options(9));
  REQUIRE(store->create(relay));
  std::atomic<int> wrong{0};
  std::atomic<int> seen{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < 60; ++round) {
        if (t == 0) {  // pushes the others out, and lets copies go
          for (uint32_t i = 0; i < kFit / 2; ++i) {
            put(*store, relay.id, random() % (2 * kFit), kSmallChunk);
          }
          if (round % 8 == 7 && !store->drop_chunks(relay.id)) ++wrong;
          continue;
        }
        const CreateOptions& options = homes[random() % homes.size()];
        const auto pin = store->hold(options.id);
        if (!pin) {
          if (pin.error().code != ErrorCode::kNotMappable) ++wrong;
          continue;
        }
        const auto file = store->map(options.id);
        if (!file) {
          if (file.error().code != ErrorCode::kResourceExhausted) ++wrong;
          continue;
        }
        ++seen;
        if (!Mapped(*file).shows(options.id)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(seen > 0);
  CHECK(store->usage().memory_mapped == 0);
  CHECK(store->usage().memory_used <= kMemory);
  for (const CreateOptions& options : homes) REQUIRE(store->remove(options.id));
  REQUIRE(store->remove(relay.id));
  free_spare(*store);
  CHECK(store->usage().memory_used == 0);
  CHECK(store->usage().disk_used == 0);
  CHECK(store->usage().descriptors == 0);
}

}  // namespace bigcast
