#pragma once

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "blobstore/blob_store.h"
#include "blobstore/store.h"
#include "tests/support/flip.h"

namespace bigcast {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kMemory = 8 * limits::kMiB;  // the least a store takes
constexpr uint32_t kSmallChunk = limits::kChunkSizeMin;
constexpr uint32_t kFit = kMemory / kSmallChunk;  // so many are in memory at once
constexpr uint64_t kDisk = 4 * kMemory;

// What one thread does alone says nothing to the thread sanitizer, and takes minutes under it.
#ifdef __SANITIZE_THREAD__
constexpr bool kIsThreadSanitized = true;
#else
constexpr bool kIsThreadSanitized = false;
#endif

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "bigcast-store-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  std::string path;
};

// Pages or blocks that a file has.
inline uint64_t allocated_bytes(int fd) {
  struct stat status {};
  REQUIRE(fstat(fd, &status) == 0);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

// Incompressible, different for each (seed, index).
inline Bytes noise(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes((size + 7) / 8 * 8);
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(&bytes[i], &word, 8);
  }
  bytes.resize(size);
  return bytes;
}

inline ChunkMeta raw_meta(uint32_t index, const Bytes& bytes) {
  return encode_chunk(index, bytes, {}, Compression::kNever);
}

inline ManualClock& test_clock() {
  static ManualClock clock;
  return clock;
}

// What dead blobs left for the next ones goes back to the system.
inline void free_spare(BlobStore& store) {
  test_clock().advance(std::chrono::milliseconds(limits::kSpareKeepMs));
  store.trim();
}

inline BlobStore::Options memory_only(uint64_t memory = kMemory) {
  BlobStore::Options options;
  options.memory_budget = memory;
  options.clock = &test_clock();
  return options;
}

inline BlobStore::Options with_disk(const std::string& path, uint64_t disk,
                                    uint64_t memory = kMemory) {
  BlobStore::Options options = memory_only(memory);
  options.disk_path = path;
  options.disk_budget = disk;
  return options;
}

inline CreateOptions blob_options(uint64_t number, std::optional<uint64_t> size = std::nullopt,
                                  uint32_t chunk_size = kSmallChunk) {
  CreateOptions options;
  options.id = {1, number};
  options.name_space = "test";
  options.name = "blob-" + std::to_string(number);
  options.chunk_size = chunk_size;
  options.size = size;
  return options;
}

inline CreateOptions durable_options(uint64_t number, std::optional<uint64_t> size = std::nullopt,
                                     uint32_t chunk_size = kSmallChunk) {
  CreateOptions options = blob_options(number, size, chunk_size);
  options.durability = Durability::kDisk;
  return options;
}

inline CreateOptions relay_options(uint64_t number, uint32_t chunk_size = kSmallChunk) {
  CreateOptions options = blob_options(number, std::nullopt, chunk_size);
  options.role = BlobRole::kRelay;
  return options;
}

inline Bytes chunk_bytes(BlobId id, uint32_t index, size_t size) {
  return noise(size, id.lo * 1'000'003 + index);
}

inline Result<void> put(BlobStore& store, BlobId id, uint32_t index, size_t size) {
  const Bytes bytes = chunk_bytes(id, index, size);
  return store.put_chunk(id, raw_meta(index, bytes), bytes);
}

inline bool reads_back(BlobStore& store, BlobId id, uint32_t index, size_t size) {
  Bytes buffer(std::max<size_t>(size, kSmallChunk));
  const auto meta = store.read_chunk(id, index, buffer);
  if (!meta) {
    MESSAGE(meta.error().to_string());
    return false;
  }
  buffer.resize(meta->stored_size);
  return buffer == chunk_bytes(id, index, size);
}

// Counts again, chunk by chunk, what the stats of `blobs` (all that the store has) say. Requires:
// no other call is under way.
inline void check_totals(BlobStore& store, const std::vector<BlobId>& blobs, uint32_t chunks_max) {
  uint64_t memory = 0;
  uint64_t disk = 0;
  for (const BlobId id : blobs) {
    const auto stat = store.stat(id);
    if (!stat) continue;
    BlobStat counted;
    Bytes buffer(stat->chunk_size);
    for (uint32_t index = 0; index < chunks_max; ++index) {
      const uint64_t from_disk = store.usage().chunks_read_disk;
      const auto meta = store.read_chunk(id, index, buffer);
      if (!meta) continue;
      ++counted.chunk_count;
      counted.stored_size += meta->stored_size;
      const bool on_disk = store.usage().chunks_read_disk > from_disk;
      (on_disk ? counted.disk_bytes : counted.memory_bytes) += whole_pages(meta->stored_size);
    }
    CHECK(stat->chunk_count == counted.chunk_count);
    CHECK(stat->stored_size == counted.stored_size);
    CHECK(stat->memory_bytes == counted.memory_bytes);
    CHECK(stat->disk_bytes == counted.disk_bytes);
    memory += counted.memory_bytes;
    disk += counted.disk_bytes;
  }
  CHECK(store.usage().memory_used == memory);
  CHECK(store.usage().disk_used == disk);
}

template <typename T>
ErrorCode code_of(const Result<T>& result) {
  return result ? ErrorCode::kOk : result.error().code;
}

template <typename T>
bool message_has(const Result<T>& result, const std::string& part) {
  return !result && result.error().message.find(part) != std::string::npos;
}

inline std::unique_ptr<BlobStore> open_or_fail(const BlobStore::Options& options) {
  auto store = BlobStore::open(options);
  if (!store) FAIL(store.error().to_string());
  return std::move(*store);
}

// Creates, fills and seals a blob of `size` bytes.
inline void write_blob(BlobStore& store, const CreateOptions& options, uint64_t size) {
  REQUIRE(code_of(store.create(options)) == ErrorCode::kOk);
  uint32_t count = 0;
  for (uint64_t offset = 0; offset < size; offset += options.chunk_size, ++count) {
    const auto done =
        put(store, options.id, count, std::min<uint64_t>(options.chunk_size, size - offset));
    if (!done) FAIL(done.error().to_string());
  }
  const auto sealed = store.seal(options.id, size, count);
  if (!sealed) FAIL(sealed.error().to_string());
}

}  // namespace bigcast
