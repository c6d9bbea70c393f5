#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "base/pages.h"
#include "blobstore/block_map.h"
#include "blobstore/memfd.h"
#include "tests/blobstore/sim_disk.h"
#include "tests/blobstore/store_support.h"
#include "tests/support/faulty_disk.h"

namespace bigcast {
namespace {

// While `work` runs, writes beyond `bytes` of a file fail.
void with_file_size_limit(uint64_t bytes, const std::function<void()>& work) {
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  rlimit less = old;
  less.rlim_cur = bytes;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &less) == 0);
  work();
  REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
  std::signal(SIGXFSZ, handler);
}

}  // namespace

TEST_CASE("a blob of three times the memory budget is kept whole within it") {
  const TemporaryDirectory directory;
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    constexpr uint64_t kSize = 3 * kMemory - 1000;
    constexpr auto kCount = static_cast<uint32_t>((kSize + kSmallChunk - 1) / kSmallChunk);
    const CreateOptions options = blob_options(1, kSize);
    REQUIRE(store->create(options));
    const auto size_at = [&](uint32_t i) {
      return std::min<uint64_t>(kSmallChunk, kSize - uint64_t{i} * kSmallChunk);
    };
    int fd = -1;
    for (uint32_t i = 0; i < kCount; ++i) {
      REQUIRE(put(*store, options.id, i, size_at(i)));
      if (fd < 0) fd = store->memory_file(options.id).value().fd;
      const StoreUsage usage = store->usage();
      REQUIRE(usage.memory_used <= kMemory);
      REQUIRE(allocated_bytes(fd) == usage.memory_used);
    }
    REQUIRE(store->seal(options.id, kSize, kCount));
    for (uint32_t i = 0; i < kCount; ++i) CHECK(reads_back(*store, options.id, i, size_at(i)));
    const BlobStat stat = store->stat(options.id).value();
    CHECK(stat.memory_bytes + stat.disk_bytes == whole_pages(kSize));
    const StoreUsage usage = store->usage();
    CHECK(usage.chunks_demoted > 0);
    CHECK(usage.chunks_read_disk > 0);
    CHECK(usage.chunks_read_memory > 0);
    CHECK(usage.checksum_failures == 0);
    CHECK(usage.disk_used == stat.disk_bytes);
    CHECK(allocated_bytes(fd) <= kMemory);
    REQUIRE(store->remove(options.id));
    CHECK(store->usage().memory_used == 0);
    CHECK(store->usage().disk_used == 0);
    free_spare(*store);
    CHECK(allocated_bytes(fd) == 0);
    close(fd);
    CHECK_FALSE(std::filesystem::exists(directory.path + "/bigcast/extent-000001"));
  }
  CHECK(std::filesystem::is_empty(directory.path));
}

TEST_CASE("chunks of odd sizes read back from disk, aligned buffer or not") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  std::vector<size_t> sizes;
  std::mt19937_64 random(3);
  const CreateOptions relay = relay_options(1);
  REQUIRE(store->create(relay));
  for (uint32_t i = 0; i < 300; ++i) {
    sizes.push_back(1 + random() % kSmallChunk);
    REQUIRE(put(*store, relay.id, i, sizes.back()));
  }
  CHECK(store->usage().disk_used > 0);
  Bytes memory(kSmallChunk + 2 * 4096);
  const size_t aligned = 4096 - reinterpret_cast<uintptr_t>(memory.data()) % 4096;
  for (const size_t shift : {aligned, aligned + 1}) {
    const std::span<std::byte> buffer(memory.data() + shift, kSmallChunk);
    for (uint32_t i = 0; i < sizes.size(); ++i) {
      const auto meta = store->read_chunk(relay.id, i, buffer);
      REQUIRE(meta);
      const Bytes expected = chunk_bytes(relay.id, i, sizes[i]);
      CHECK(std::equal(expected.begin(), expected.end(), buffer.begin()));
    }
  }
}

TEST_CASE("what both tiers can't hold is refused at create or at a reservation step") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  const auto refused = store->create(blob_options(1, kMemory + kDisk + 1));
  CHECK(code_of(refused) == ErrorCode::kResourceExhausted);
  CHECK(message_has(refused, "disk budget"));
  REQUIRE(store->create(blob_options(1)));
  CHECK(store->reserve({1, 1}, kMemory + kDisk - kSmallChunk));
  CHECK(code_of(store->reserve({1, 1}, kMemory + kDisk)) == ErrorCode::kResourceExhausted);
}

TEST_CASE("a reservation of all there is can be used to its last byte, in odd sizes") {
  // Fragmented on purpose: blobs of odd sizes come and go, then one takes all that is left.
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  std::mt19937_64 random(11);
  std::vector<uint64_t> alive;
  for (uint64_t number = 1; number <= 400; ++number) {
    const uint64_t size = 1 + random() % (3 * kSmallChunk);
    const CreateOptions options = blob_options(number, size);
    if (!store->create(options)) break;
    for (uint64_t at = 0; at < size; at += kSmallChunk) {
      REQUIRE(put(*store, options.id, static_cast<uint32_t>(at / kSmallChunk),
                  std::min<uint64_t>(kSmallChunk, size - at)));
    }
    alive.push_back(number);
  }
  REQUIRE(store->usage().disk_used > kDisk / 4);
  for (const uint64_t number : alive) {
    if (number % 2 == 0) REQUIRE(store->remove({1, number}));
  }
  const CreateOptions relay = relay_options(5000);  // must not be in the way
  REQUIRE(store->create(relay));
  for (uint32_t i = 0; i < 200; ++i) REQUIRE(put(*store, relay.id, i, kSmallChunk));

  const CreateOptions rest = blob_options(9000);
  REQUIRE(store->create(rest));
  uint64_t reserved = 0;
  while (store->reserve(rest.id, reserved + 4096)) reserved += 4096;
  REQUIRE(reserved > kMemory);
  const auto count = static_cast<uint32_t>((reserved + kSmallChunk - 1) / kSmallChunk);
  for (uint32_t i = 0; i < count; ++i) {
    const auto done = put(*store, rest.id, i,
                          std::min<uint64_t>(kSmallChunk, reserved - uint64_t{i} * kSmallChunk));
    if (!done) FAIL(done.error().to_string());
  }
  REQUIRE(store->seal(rest.id, reserved, count));
  for (uint32_t i = 0; i < count; ++i) {
    CHECK(reads_back(*store, rest.id, i,
                     std::min<uint64_t>(kSmallChunk, reserved - uint64_t{i} * kSmallChunk)));
  }
}

TEST_CASE("a full disk refuses homes, drops relays and keeps what was stored") {
  const TemporaryDirectory directory;
  Faults faults;
  const auto store =
      open_store(with_disk(directory.path, kDisk), std::make_unique<FaultyDisk>(faults)).value();
  const CreateOptions home = blob_options(1, kMemory + 10 * kSmallChunk);
  REQUIRE(store->create(home));
  for (uint32_t i = 0; i < kFit; ++i) REQUIRE(put(*store, home.id, i, kSmallChunk));
  const auto fails = [&](ErrorCode code) {
    const auto result = put(*store, home.id, kFit, kSmallChunk);
    CHECK(code_of(result) == code);
    CHECK(store->locate(home.id, kFit).value().presence == Presence::kAbsent);
    CHECK(store->usage().disk_used == 0);
    CHECK(store->usage().reserved == 10 * kSmallChunk);
    for (uint32_t i = 0; i < kFit; ++i) REQUIRE(reads_back(*store, home.id, i, kSmallChunk));
  };
  faults.create_full = true;
  fails(ErrorCode::kResourceExhausted);
  faults.create_full = false;
  faults.write_full = true;
  fails(ErrorCode::kResourceExhausted);
  faults.write_full = false;
  CHECK(put(*store, home.id, kFit, kSmallChunk));  // the disk works again
  CHECK(reads_back(*store, home.id, kFit, kSmallChunk));

  faults.read_io = true;
  const auto on_disk = [&](uint32_t i) {
    return store->locate(home.id, i).value().presence == Presence::kElsewhere;
  };
  uint32_t demoted = 0;
  while (!on_disk(demoted)) ++demoted;
  Bytes buffer(kSmallChunk);
  CHECK(code_of(store->read_chunk(home.id, demoted, buffer)) == ErrorCode::kIo);
  faults.read_io = false;
  CHECK(code_of(store->read_chunk(home.id, demoted, buffer)) == ErrorCode::kCorrupt);
  while (!store->scrub(1).cycle_ended) {  // which finds that it was no bad sector
  }
  CHECK(reads_back(*store, home.id, demoted, kSmallChunk));
}

TEST_CASE("a write that the system cuts short is no write") {
  const TemporaryDirectory directory;
  const auto disk = make_disk();
  auto file = disk->create(directory.path + "/extent-000001", limits::kMiB).value();
  struct alignas(limits::kDiskAlignment) Buffer {
    std::array<std::byte, limits::kMiB> bytes;
  };
  const auto buffer = std::make_unique<Buffer>();
  buffer->bytes.fill(std::byte{7});
  with_file_size_limit(limits::kMiB / 2,
                       [&] { CHECK(code_of(file->write(0, buffer->bytes)) == ErrorCode::kIo); });
  REQUIRE(file->write(0, buffer->bytes));
  buffer->bytes.fill(std::byte{0});
  REQUIRE(file->read(0, buffer->bytes));
  CHECK(buffer->bytes[limits::kMiB - 1] == std::byte{7});
}

TEST_CASE("pages of a memory file reach the disk where they are wanted, or none do") {
  const TemporaryDirectory directory;
  const auto disk = make_disk();
  const uint64_t size = 2 * limits::kMiB + 3 * kPage;
  const auto file = disk->create(directory.path + "/extent-000001", 2 * size).value();
  const auto memory = Memfd::create("test").value();
  const Bytes bytes = noise(size - 100, 1);
  REQUIRE(memory->write(kPage, bytes));
  const int fd = memory->descriptor_up_to(kPage + size).value();
  REQUIRE(file->write_from(size, fd, kPage, size).value());

  const auto read = [&](uint64_t offset) {
    std::unique_ptr<std::byte, decltype(&std::free)> buffer(
        static_cast<std::byte*>(std::aligned_alloc(limits::kDiskAlignment, size)), std::free);
    REQUIRE(file->read(offset, {buffer.get(), size}));
    return Bytes(buffer.get(), buffer.get() + size);
  };
  Bytes padded = bytes;
  padded.resize(size);
  CHECK(read(size) == padded);
  CHECK(read(0) == Bytes(size));

  const int directory_fd = open(directory.path.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK_FALSE(file->write_from(0, directory_fd, 0, size).value());
  close(directory_fd);
  CHECK_FALSE(file->write_from(0, fd, 2 * size, size).value());  // behind the memory file's end
  CHECK(read(0) == Bytes(size));
  with_file_size_limit(limits::kMiB, [&] {
    CHECK(code_of(file->write_from(0, fd, kPage, size)) == ErrorCode::kIo);
  });
  REQUIRE(file->write_from(0, fd, kPage, size).value());
  CHECK(read(0) == padded);
  REQUIRE(memory->freeze());
  CHECK(memory->descriptor_up_to(kPage + size).value() == fd);
  CHECK(code_of(memory->descriptor_up_to(kPage + size + 1)) == ErrorCode::kIo);
}

TEST_CASE("after a failed write the disk only gives what it has, and memory goes on") {
  const TemporaryDirectory directory;
  Faults faults;
  const auto store =
      open_store(with_disk(directory.path, kDisk), std::make_unique<FaultyDisk>(faults)).value();
  constexpr uint64_t kSize = 2 * kMemory;
  write_blob(*store, blob_options(1, kSize), kSize);
  const CreateOptions home = blob_options(2, 4 * kSmallChunk);
  const CreateOptions durable = durable_options(3, 4 * kSmallChunk);
  for (const CreateOptions& options : {home, durable}) REQUIRE(store->create(options));
  CHECK(store->disk_failure().empty());
  faults.write_io = true;
  for (const CreateOptions& options : {home, durable}) {
    CHECK(code_of(put(*store, options.id, 0, kSmallChunk)) == ErrorCode::kIo);
  }
  faults.write_io = false;  // what the system did with it is unknown all the same
  CHECK(store->usage().disk_read_only);
  CHECK(store->disk_failure() == "Input/output error");
  const auto refused = put(*store, home.id, 0, kSmallChunk);
  CHECK(code_of(refused) == ErrorCode::kIo);
  CHECK(message_has(refused, "read-only"));
  CHECK(message_has(refused, "Input/output error"));
  CHECK(code_of(store->create(durable_options(4))) == ErrorCode::kIo);
  CHECK(code_of(store->create(blob_options(5, kDisk))) == ErrorCode::kResourceExhausted);
  for (uint32_t i = 0; i < kSize / kSmallChunk; ++i) {
    REQUIRE(reads_back(*store, {1, 1}, i, kSmallChunk));
  }
  REQUIRE(store->remove({1, 1}));
  write_blob(*store, blob_options(6, kMemory / 2), kMemory / 2);
  CHECK(reads_back(*store, {1, 6}, 0, kSmallChunk));
}

TEST_CASE("removals that an index without room can't take down are bounded") {
  const TemporaryDirectory directory;
  SimMachine machine(1);
  const auto store = open_store(with_disk(directory.path, kDisk), machine.disk()).value();
  machine.set_index_full(true);
  uint64_t number = 1;
  for (; number <= limits::kUnerasedMax; ++number) {
    REQUIRE(store->create(durable_options(number)));
    REQUIRE(code_of(store->seal({1, number}, 0, 0)) == ErrorCode::kResourceExhausted);
    REQUIRE(code_of(store->remove({1, number})) == ErrorCode::kResourceExhausted);
  }
  CHECK(store->usage().removals_left == limits::kUnerasedMax);
  const auto refused = store->create(durable_options(number));
  CHECK(code_of(refused) == ErrorCode::kResourceExhausted);
  CHECK(message_has(refused, "removal"));
  REQUIRE(store->create(blob_options(number)));
  REQUIRE(store->remove({1, number}));
  machine.set_index_full(false);
  store->trim();
  CHECK(store->usage().removals_left == 0);
  write_blob(*store, durable_options(number), kSmallChunk);
}

TEST_CASE("an index without room refuses what needs it, and goes on once there is some") {
  const TemporaryDirectory directory;
  SimMachine machine(1);
  {
    const auto store = open_store(with_disk(directory.path, kDisk), machine.disk()).value();
    for (const uint64_t number : {1, 2}) {
      write_blob(*store, durable_options(number, kSmallChunk), kSmallChunk);
    }
    REQUIRE(store->create(durable_options(3)));
    REQUIRE(put(*store, {1, 3}, 0, kSmallChunk));
    machine.set_index_full(true);
    for (int again = 0; again < 3; ++again) {
      const auto refused = store->seal({1, 3}, kSmallChunk, 1);
      CHECK(code_of(refused) == ErrorCode::kResourceExhausted);
      CHECK(message_has(refused, "disk index"));
      CHECK((message_has(refused, "No space left on device") ||
             message_has(refused, std::strerror(EDQUOT))));
      store->scrub(kDisk);
      store->trim();
    }
    CHECK(code_of(store->remove({1, 2})) == ErrorCode::kResourceExhausted);
    CHECK(code_of(store->stat({1, 2})) == ErrorCode::kNotFound);
    CHECK(code_of(store->create(durable_options(2))) == ErrorCode::kResourceExhausted);
    CHECK(store->disk_failure().empty());
    CHECK(store->usage().disk_used == 3 * kSmallChunk);
    CHECK(store->usage().removals_left == 1);
    CHECK(reads_back(*store, {1, 1}, 0, kSmallChunk));
    machine.set_index_full(false);
    store->trim();
    CHECK(store->usage().removals_left == 0);
    CHECK(store->usage().disk_used == 2 * kSmallChunk);
    REQUIRE(store->seal({1, 3}, kSmallChunk, 1));
    write_blob(*store, durable_options(4, 2 * kSmallChunk), 2 * kSmallChunk);
    store->scrub(kDisk);
    CHECK(store->disk_failure().empty());
  }
  machine.crash();
  const auto store = open_store(with_disk(directory.path, kDisk), machine.disk()).value();
  CHECK(store->usage().blobs == 3);
  CHECK(store->usage().blobs_lost == 0);
  for (const uint64_t number : {1, 3, 4}) CHECK(reads_back(*store, {1, number}, 0, kSmallChunk));
}

TEST_CASE("of an index that is full at the end a start has what was acknowledged") {
  const TemporaryDirectory directory;
  SimMachine machine(1);
  {
    const auto store = open_store(with_disk(directory.path, kDisk), machine.disk()).value();
    for (const uint64_t number : {1, 2}) {
      write_blob(*store, durable_options(number, kSmallChunk), kSmallChunk);
    }
    machine.set_index_full(true);
    for (int again = 0; again < 2; ++again) {
      CHECK(code_of(store->remove({1, 2})) ==
            (again == 0 ? ErrorCode::kResourceExhausted : ErrorCode::kNotFound));
      store->trim();
    }
  }
  machine.set_index_full(false);
  const auto store = open_store(with_disk(directory.path, kDisk), machine.disk()).value();
  CHECK(store->usage().blobs == 2);  // the removal was not
  for (const uint64_t number : {1, 2}) CHECK(reads_back(*store, {1, number}, 0, kSmallChunk));
}

TEST_CASE("many who seal while the index has no room, and after, are each answered rightly") {
  const TemporaryDirectory directory;
  SimMachine machine(1);
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kEach = 20;
  std::set<uint64_t> sealed;
  {
    const auto store = open_store(with_disk(directory.path, kDisk), machine.disk()).value();
    std::mutex mutex;
    std::vector<std::thread> threads;
    for (uint64_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        for (uint64_t i = 0; i < kEach; ++i) {
          const BlobId id{1, thread * kEach + i + 1};
          machine.set_index_full(i % 4 == 3);
          const bool put_whole = store->create(durable_options(id.lo)).has_value() &&
                                 put(*store, id, 0, 1000).has_value();
          const auto done = store->seal(id, 1000, 1);
          const std::lock_guard lock(mutex);
          CHECK(put_whole);
          CHECK((done || done.error().code == ErrorCode::kResourceExhausted));
          if (done) sealed.insert(id.lo);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    machine.set_index_full(false);
    for (uint64_t number = 1; number <= kThreads * kEach; ++number) {
      if (sealed.contains(number) || number % 2 == 0)
        REQUIRE(store->seal({1, number}, 1000, 1));
      else
        REQUIRE(store->remove({1, number}));
    }
    CHECK(sealed.size() < kThreads * kEach);
  }
  machine.crash();
  const auto store = open_store(with_disk(directory.path, kDisk), machine.disk()).value();
  for (uint64_t number = 1; number <= kThreads * kEach; ++number) {
    const bool is_there = sealed.contains(number) || number % 2 == 0;
    CHECK(store->stat({1, number}).has_value() == is_there);
  }
}

// Also for want of room: what was given to the system before is lost then, too.
TEST_CASE("a blob whose sync failed is not sealed, nor is any after it") {
  for (const ErrorCode failure : {ErrorCode::kIo, ErrorCode::kResourceExhausted}) {
    CAPTURE(static_cast<int>(failure));
    const TemporaryDirectory directory;
    Faults faults;
    {
      const auto store =
          open_store(with_disk(directory.path, kDisk), std::make_unique<FaultyDisk>(faults))
              .value();
      write_blob(*store, durable_options(1, 3 * kSmallChunk), 3 * kSmallChunk);
      for (uint64_t number = 2; number <= 3; ++number) {
        REQUIRE(store->create(durable_options(number)));
        REQUIRE(put(*store, {1, number}, 0, kSmallChunk));
      }
      faults.sync = failure;
      CHECK(code_of(store->seal({1, 2}, kSmallChunk, 1)) == ErrorCode::kIo);
      faults.sync = ErrorCode::kOk;
      for (uint64_t number = 2; number <= 3; ++number) {
        CHECK(code_of(store->seal({1, number}, kSmallChunk, 1)) == ErrorCode::kIo);
        CHECK_FALSE(store->stat({1, number}).value().sealed);
        CHECK(reads_back(*store, {1, number}, 0, kSmallChunk));  // it was put, after all
      }
      CHECK(reads_back(*store, {1, 1}, 2, kSmallChunk));
      CHECK(code_of(store->remove({1, 1})) == ErrorCode::kIo);
      CHECK(code_of(store->stat({1, 1})) == ErrorCode::kNotFound);
    }
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    CHECK(store->usage().blobs == 1);  // the one whose removal could not be written
    CHECK(reads_back(*store, {1, 1}, 2, kSmallChunk));
    REQUIRE(store->remove({1, 1}));
  }
}

TEST_CASE("relays' chunks are dropped when the disk fails, and make way on disk for homes'") {
  const TemporaryDirectory directory;
  Faults faults;
  const auto store =
      open_store(with_disk(directory.path, kDisk), std::make_unique<FaultyDisk>(faults)).value();
  const CreateOptions relay = relay_options(1);
  REQUIRE(store->create(relay));
  faults.write_full = true;
  for (uint32_t i = 0; i < 2 * kMemory / kSmallChunk; ++i) {
    REQUIRE(put(*store, relay.id, i, kSmallChunk));
  }
  CHECK(store->usage().chunks_dropped == kMemory / kSmallChunk);
  CHECK(store->usage().disk_used == 0);
  faults.write_full = false;
  for (uint32_t i = 0; i < 2 * (kMemory + kDisk) / kSmallChunk; ++i) {
    REQUIRE(put(*store, relay.id, i, kSmallChunk));
  }
  CHECK(store->usage().disk_used == kDisk);
  constexpr uint64_t kSize = kMemory + kDisk - kSmallChunk;
  write_blob(*store, blob_options(2, kSize), kSize);
  for (uint32_t i = 0; i < kSize / kSmallChunk; ++i) {
    CHECK(reads_back(*store, {1, 2}, i, kSmallChunk));
  }
}

TEST_CASE("a changed byte on disk is CORRUPT and counted") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, kDisk));
  write_blob(*store, blob_options(1, 2 * kMemory), 2 * kMemory);
  const std::string extent = directory.path + "/bigcast/extent-000001";
  const int fd = ::open(extent.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  uint32_t damaged = 0;
  for (off_t at = 0; at < static_cast<off_t>(kMemory); at += kSmallChunk) {
    char byte = 0;
    REQUIRE(pread(fd, &byte, 1, at) == 1);
    byte = static_cast<char>(byte ^ 1);
    REQUIRE(pwrite(fd, &byte, 1, at) == 1);
  }
  REQUIRE(fsync(fd) == 0);
  close(fd);
  Bytes buffer(kSmallChunk);
  for (uint32_t i = 0; i < 2 * kMemory / kSmallChunk; ++i) {
    const auto result = store->read_chunk({1, 1}, i, buffer);
    if (!result) {
      CHECK(result.error().code == ErrorCode::kCorrupt);
      ++damaged;
    }
  }
  CHECK(damaged == kMemory / kSmallChunk);
  CHECK(store->usage().checksum_failures == damaged);
  CHECK(store->usage().chunks_quarantined == damaged);
  for (uint32_t i = 0; i < 2 * kMemory / kSmallChunk; ++i) {
    if (!store->read_chunk({1, 1}, i, buffer)) --damaged;
  }
  CHECK(damaged == 0);  // still damaged, and found out once
  CHECK(store->usage().checksum_failures == kMemory / kSmallChunk);
}

TEST_CASE("a start deletes what nothing refers to, but never what a living process has") {
  const TemporaryDirectory directory;
  const std::string own = directory.path + "/bigcast";
  std::filesystem::create_directories(own + "/index.new");
  std::ofstream(own + "/extent-000007") << "left";
  std::ofstream(own + "/index.new/CURRENT") << "unfinished";
  std::ofstream(directory.path + "/stranger") << "keep";
  {
    const auto store = open_or_fail(with_disk(directory.path, kDisk));
    CHECK_FALSE(std::filesystem::exists(own + "/extent-000007"));
    write_blob(*store, blob_options(1, 2 * kMemory), 2 * kMemory);
    const auto second = BlobStore::open(with_disk(directory.path, kDisk));
    CHECK(code_of(second) == ErrorCode::kAlreadyExists);
    CHECK(message_has(second, own + "/lock"));
    for (uint32_t i = 0; i < 2 * kMemory / kSmallChunk; ++i) {
      REQUIRE(reads_back(*store, {1, 1}, i, kSmallChunk));
    }
  }
  CHECK_FALSE(std::filesystem::exists(own));
  CHECK(std::filesystem::exists(directory.path + "/stranger"));
  open_or_fail(with_disk(directory.path, kDisk));
}

TEST_CASE("a disk path that can't be written is refused by name") {
  const TemporaryDirectory directory;
  std::ofstream(directory.path + "/file") << "x";
  for (const std::string& path : {directory.path + "/file", std::string("/proc/bigcast")}) {
    const auto result = BlobStore::open(with_disk(path, kDisk));
    CHECK(code_of(result) == ErrorCode::kIo);
    CHECK(message_has(result, "disk_path"));
    CHECK(message_has(result, path));
  }
}

TEST_CASE("a block map finds, takes and gives runs") {
  BlockMap map(130);
  CHECK(map.find(0, 130, 200).count == 130);
  map.take({10, 60});
  CHECK(map.free() == 70);
  CHECK(map.find(0, 11, 20).first == 70);
  CHECK(map.find(0, 10, 20).count == 10);
  CHECK(map.find(5, 1, 20).count == 5);
  CHECK(map.find(5, 6, 20).first == 70);
  CHECK(map.find(71, 60, 60).count == 0);
  CHECK(map.find(129, 1, 5).count == 1);
  map.give({10, 30});
  CHECK(map.find(0, 40, 40).first == 0);
  CHECK(map.find(0, 41, 60).first == 70);
}

}  // namespace bigcast
