#include <atomic>
#include <thread>

#include "tests/blobstore/store_support.h"

namespace bigcast {
namespace {

constexpr int kThreads = 4;
constexpr int kSteps = 600;
constexpr uint64_t kBlobs = 8;
constexpr uint32_t kChunks = 40;

// A shared budget under four threads that put, read, locate, seal, drop and remove the same few
// blobs. Bytes are a function of (blob, chunk): whatever is read must equal them.
class Stress {
 public:
  explicit Stress(BlobStore& store) : store_(store) {}

  void run() {
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([this, t] {
        std::mt19937_64 random(static_cast<uint64_t>(t) + 1);
        for (int step = 0; step < kSteps; ++step) one_step(random);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::atomic<int> wrong{0};
  std::atomic<int> over_budget{0};
  std::atomic<int> reads{0};
  std::atomic<int> puts{0};
  std::string first_wrong;

 private:
  static bool is_relay(uint64_t number) { return number % 2 == 0; }

  void expect(const Result<void>& result, std::initializer_list<ErrorCode> allowed) {
    const ErrorCode code = code_of(result);
    if (code == ErrorCode::kOk || std::find(allowed.begin(), allowed.end(), code) != allowed.end())
      return;
    if (wrong.fetch_add(1) == 0) first_wrong = result.error().to_string();
  }

  void one_step(std::mt19937_64& random) {
    const uint64_t number = 1 + random() % kBlobs;
    const BlobId id{1, number};
    const auto index = static_cast<uint32_t>(random() % kChunks);
    const uint64_t choice = random() % 100;
    if (choice < 50) {
      put_one(id, index);
    } else if (choice < 92) {
      read_one(id, index);
    } else if (choice < 94) {
      expect(is_relay(number) ? store_.drop_chunks(id) : Result<void>(), {ErrorCode::kNotFound});
    } else if (choice < 96) {
      const auto sealed = store_.seal(id, uint64_t{kChunks} * kSmallChunk, kChunks);
      if (!sealed) {
        expect(fail(sealed.error().code, sealed.error().message),
               {ErrorCode::kNotFound, ErrorCode::kInvalidArgument});
      }
    } else if (choice < 97) {
      test_clock().advance(std::chrono::milliseconds(limits::kSpareKeepMs / 4));
      store_.trim();
    } else if (choice < 98) {
      expect(store_.remove(id), {ErrorCode::kNotFound});
    } else {
      expect(store_.create(is_relay(number) ? relay_options(number) : blob_options(number)),
             {ErrorCode::kAlreadyExists});
    }
    const StoreUsage usage = store_.usage();
    if (usage.memory_used + usage.memory_spare > kMemory) ++over_budget;
  }

  void put_one(BlobId id, uint32_t index) {
    const Bytes bytes = chunk_bytes(id, index, kSmallChunk);
    const auto result = store_.put_chunk(id, raw_meta(index, bytes), bytes);
    if (result) ++puts;
    expect(result, {ErrorCode::kNotFound, ErrorCode::kResourceExhausted});
  }

  void read_one(BlobId id, uint32_t index) {
    Bytes buffer(kSmallChunk);
    (void)store_.locate(id, index);
    const auto meta = store_.read_chunk(id, index, buffer);
    if (!meta) {
      expect(fail(meta.error().code, meta.error().message), {ErrorCode::kNotFound});
      return;
    }
    ++reads;
    if (buffer != chunk_bytes(id, index, kSmallChunk) && wrong.fetch_add(1) == 0) {
      first_wrong = "other bytes";
    }
  }

  BlobStore& store_;
};

void stress(const BlobStore::Options& options) {
  const auto store = open_or_fail(options);
  for (uint64_t number = 1; number <= kBlobs; ++number) {
    REQUIRE(store->create(number % 2 == 0 ? relay_options(number) : blob_options(number)));
  }
  Stress test(*store);
  test.run();
  CAPTURE(test.first_wrong);
  CHECK(test.wrong == 0);
  CHECK(test.over_budget == 0);
  CHECK(test.reads > 0);
  CHECK(test.puts > 0);
  CHECK(store->usage().checksum_failures == 0);
  std::vector<BlobId> blobs;
  for (uint64_t number = 1; number <= kBlobs; ++number) blobs.push_back({1, number});
  check_totals(*store, blobs, kChunks);
  for (uint64_t number = 1; number <= kBlobs; ++number) (void)store->remove({1, number});
  free_spare(*store);
  const StoreUsage usage = store->usage();
  CHECK(usage.blobs == 0);
  CHECK(usage.memory_used == 0);
  CHECK(usage.memory_spare == 0);
  CHECK(usage.disk_used == 0);
  CHECK(usage.reserved == 0);
  CHECK(usage.descriptors == 0);
  // Nothing of the accounts leaked: all of the memory can be promised again.
  CHECK(store->create(blob_options(100, kMemory)));
}

}  // namespace

TEST_CASE("threads that put, read, drop and remove never see wrong bytes: memory only") {
  stress(memory_only());
}

TEST_CASE("threads that put, read, drop and remove never see wrong bytes: with a disk") {
  const TemporaryDirectory directory;
  stress(with_disk(directory.path, 6 * limits::kMiB));
}

TEST_CASE("a blob's totals are what its chunks add up to, whatever happened to them") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, 6 * limits::kMiB));
  std::mt19937_64 random(7);
  std::vector<BlobId> blobs;
  for (uint64_t number = 1; number <= kBlobs; ++number) {
    blobs.push_back({1, number});
    REQUIRE(store->create(number % 2 == 0 ? relay_options(number) : blob_options(number)));
  }
  for (int step = 0; step < 1500; ++step) {
    const BlobId id = blobs[random() % blobs.size()];
    const bool is_relay = id.lo % 2 == 0;
    const uint64_t choice = random() % 1000;
    if (choice < 990) {  // short ones, too: a blob's only chunk rests outside of its memory file
      const size_t size = random() % 4 == 0 ? 1 + random() % kSmallChunk : kSmallChunk;
      (void)put(*store, id, static_cast<uint32_t>(random() % kChunks), size);
    } else if (choice < 996) {
      if (is_relay) REQUIRE(store->drop_chunks(id));
    } else {
      REQUIRE(store->remove(id));
      REQUIRE(store->create(is_relay ? relay_options(id.lo) : blob_options(id.lo)));
    }
    if (step % 100 == 0) check_totals(*store, blobs, kChunks);
  }
  check_totals(*store, blobs, kChunks);
  const StoreUsage usage = store->usage();
  CHECK(usage.chunks_demoted > 0);
  CHECK(usage.chunks_dropped > 0);
}

TEST_CASE("writers with reservations never fail, whatever relays do beside them") {
  const TemporaryDirectory directory;
  const auto store = open_or_fail(with_disk(directory.path, 8 * limits::kMiB));
  std::atomic<bool> stop{false};
  std::atomic<int> failed{0};
  REQUIRE(store->create(relay_options(1000)));
  std::thread relay([&] {
    for (uint32_t i = 0; !stop; i = (i + 1) % 200) (void)put(*store, {1, 1000}, i, kSmallChunk);
  });
  std::vector<std::thread> writers;
  for (uint64_t t = 0; t < 3; ++t) {
    writers.emplace_back([&, t] {
      for (uint64_t round = 0; round < 6; ++round) {
        const CreateOptions options = blob_options(1 + t * 100 + round, 70 * kSmallChunk);
        if (!store->create(options)) {
          ++failed;
          continue;
        }
        for (uint32_t i = 0; i < 70; ++i) {
          if (!put(*store, options.id, i, kSmallChunk)) ++failed;
        }
        if (!store->seal(options.id, 70 * kSmallChunk, 70)) ++failed;
        if (!store->remove(options.id)) ++failed;
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  stop = true;
  relay.join();
  CHECK(failed == 0);
}

}  // namespace bigcast
