#include <sys/stat.h>
#include <unistd.h>

#include "tests/blobstore/store_support.h"

namespace bigcast {
namespace {

constexpr uint32_t kSpareChunks = 32;
constexpr uint64_t kSpareBlob = uint64_t{kSpareChunks} * kSmallChunk;
constexpr auto kKeep = std::chrono::milliseconds(limits::kSpareKeepMs);

struct File {
  explicit File(const Result<MemoryFile>& file) : fd(file ? file->fd : -1) {
    REQUIRE(file);
    struct stat status {};
    REQUIRE(fstat(fd, &status) == 0);
    inode = status.st_ino;
    allocated = allocated_bytes(fd);
  }
  ~File() { close(fd); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd;
  ino_t inode;
  uint64_t allocated;
};

CreateOptions in_namespace(CreateOptions options, const char* name_space) {
  options.name_space = name_space;
  return options;
}

void check_within_budget(const BlobStore& store) {
  const StoreUsage usage = store.usage();
  CHECK(usage.memory_used + usage.memory_spare <= usage.memory_budget);
}

}  // namespace

TEST_CASE("the next blob of a namespace gets the pages of a dead one, and none of its bytes") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions first = blob_options(1);
  write_blob(*store, first, kSpareBlob);
  const File old(store->memory_file(first.id));
  REQUIRE(store->remove(first.id));
  CHECK(store->usage().memory_used == 0);
  CHECK(store->usage().memory_spare == kSpareBlob);
  CHECK(store->usage().descriptors == 1);

  const CreateOptions second = blob_options(2);
  const uint64_t shorter = kSpareBlob - kSmallChunk + 13;
  write_blob(*store, second, shorter);
  const File now(store->memory_file(second.id));
  CHECK(now.inode == old.inode);
  CHECK(now.allocated == kSpareBlob - kSmallChunk + kPage);
  CHECK(store->usage().memory_used == now.allocated);
  CHECK(store->usage().memory_spare == 0);
  CHECK(store->usage().descriptors == 1);
  for (uint32_t i = 0; i < kSpareChunks; ++i) {
    CHECK(reads_back(*store, second.id, i, i + 1 < kSpareChunks ? kSmallChunk : 13));
  }
  const auto last = store->view_chunk(second.id, kSpareChunks - 1);
  REQUIRE(last);
  CHECK(std::all_of(last->bytes.data() + 13, last->bytes.data() + kPage,
                    [](std::byte b) { return b == std::byte{0}; }));

  // Whoever still reads the first blob by its descriptor can tell.
  Bytes stale(kSmallChunk);
  REQUIRE(pread(old.fd, stale.data(), stale.size(), 0) == static_cast<ssize_t>(stale.size()));
  CHECK(code_of(verify_chunk(raw_meta(0, chunk_bytes(first.id, 0, kSmallChunk)), stale)) ==
        ErrorCode::kCorrupt);
}

TEST_CASE("pages are not passed on to another namespace, nor to chunks of another size") {
  const auto store = open_or_fail(memory_only());
  write_blob(*store, blob_options(1), kSpareBlob);
  const File old(store->memory_file({1, 1}));
  REQUIRE(store->remove({1, 1}));
  const CreateOptions foreign = in_namespace(blob_options(2), "other");
  write_blob(*store, foreign, kSpareBlob);
  CHECK(File(store->memory_file(foreign.id)).inode != old.inode);
  const CreateOptions coarse = blob_options(3, std::nullopt, 2 * kSmallChunk);
  REQUIRE(store->create(coarse));
  REQUIRE(put(*store, coarse.id, 0, 2 * kSmallChunk));
  CHECK(File(store->memory_file(coarse.id)).inode != old.inode);
  CHECK(store->usage().memory_spare == kSpareBlob);
}

TEST_CASE("a relay's dropped copies leave their pages as well") {
  const auto store = open_or_fail(memory_only());
  const CreateOptions relay = relay_options(1);
  REQUIRE(store->create(relay));
  for (uint32_t i = 0; i < kSpareChunks; ++i) REQUIRE(put(*store, relay.id, i, kSmallChunk));
  REQUIRE(store->drop_chunks(relay.id));
  CHECK(store->usage().memory_spare == kSpareBlob);
  CHECK(store->stat(relay.id)->memory_bytes == 0);
  REQUIRE(put(*store, relay.id, 3, kSmallChunk));
  CHECK(store->usage().memory_spare == kSpareBlob - kSmallChunk);
  CHECK(reads_back(*store, relay.id, 3, kSmallChunk));
}

TEST_CASE("spare pages are the first to leave when room is needed") {
  const auto store = open_or_fail(memory_only());
  write_blob(*store, blob_options(1), kSpareBlob);
  write_blob(*store, blob_options(2), kSpareBlob);
  REQUIRE(store->remove({1, 1}));
  REQUIRE(store->remove({1, 2}));
  // One file is adopted, and one chunk of it used; one stays parked.
  const CreateOptions adopter = blob_options(3);
  REQUIRE(store->create(adopter));
  REQUIRE(put(*store, adopter.id, 0, kSmallChunk));
  CHECK(store->usage().memory_spare == 2 * kSpareBlob - kSmallChunk);
  const CreateOptions big = in_namespace(blob_options(4), "other");
  REQUIRE(store->create(big));
  for (uint32_t i = 0; i < kFit - 1; ++i) {
    REQUIRE(put(*store, big.id, i, kSmallChunk));
    check_within_budget(*store);
  }
  CHECK(store->usage().memory_spare == 0);
  CHECK(File(store->memory_file(adopter.id)).allocated == kSmallChunk);
  CHECK(reads_back(*store, adopter.id, 0, kSmallChunk));
  CHECK(store->usage().descriptors == 2);
  // A home is promised all of the memory, whatever is kept.
  REQUIRE(store->remove(adopter.id));
  REQUIRE(store->remove(big.id));
  CHECK(store->create(blob_options(5, kMemory)));
}

TEST_CASE("spare pages go back to the system after a while") {
  ManualClock& clock = test_clock();
  const auto store = open_or_fail(memory_only());
  write_blob(*store, blob_options(1), kSpareBlob);
  REQUIRE(store->remove({1, 1}));
  clock.advance(kKeep - Duration(1));
  store->trim();
  CHECK(store->usage().memory_spare == kSpareBlob);

  const CreateOptions adopter = blob_options(2);
  REQUIRE(store->create(adopter));
  REQUIRE(put(*store, adopter.id, 0, kSmallChunk));
  clock.advance(Duration(1));
  store->trim();  // the adopter's wait anew
  CHECK(store->usage().memory_spare == kSpareBlob - kSmallChunk);
  clock.advance(kKeep);
  store->trim();
  CHECK(store->usage().memory_spare == 0);
  CHECK(File(store->memory_file(adopter.id)).allocated == kSmallChunk);
  REQUIRE(put(*store, adopter.id, 1, kSmallChunk));
  CHECK(reads_back(*store, adopter.id, 0, kSmallChunk));
  CHECK(reads_back(*store, adopter.id, 1, kSmallChunk));

  REQUIRE(store->remove(adopter.id));
  clock.advance(kKeep);
  store->trim();
  CHECK(store->usage().memory_spare == 0);
  CHECK(store->usage().descriptors == 0);
}

TEST_CASE("what is being sent is not passed on") {
  const auto store = open_or_fail(memory_only());
  write_blob(*store, blob_options(1), kSpareBlob);
  auto view = store->view_chunk({1, 1}, 0);
  REQUIRE(view);
  REQUIRE(store->remove({1, 1}));
  CHECK(store->usage().memory_spare == 0);
  write_blob(*store, blob_options(2), kSpareBlob);
  view = {};
  for (uint32_t i = 0; i < kSpareChunks; ++i) CHECK(reads_back(*store, {1, 2}, i, kSmallChunk));
}

TEST_CASE("files are kept up to a number") {
  const auto store = open_or_fail(memory_only());
  const auto files = static_cast<uint32_t>(limits::kSpareFilesMax) + 2;
  for (uint32_t i = 1; i <= files; ++i) write_blob(*store, blob_options(i), 2 * kSmallChunk);
  for (uint32_t i = 1; i <= files; ++i) REQUIRE(store->remove({1, i}));
  CHECK(store->usage().descriptors == limits::kSpareFilesMax);
  CHECK(store->usage().memory_spare == limits::kSpareFilesMax * 2 * kSmallChunk);
}

}  // namespace bigcast
