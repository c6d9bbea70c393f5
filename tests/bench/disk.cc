#include "tests/bench/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "blobstore/disk.h"
#include "blobstore/disk_index.h"
#include "blobstore/disk_tier.h"
#include "blobstore/memfd.h"
#include "codec/codec.h"

namespace bigcast::bench {

namespace {

constexpr uint32_t kChunksPerBlob = 1000;
constexpr uint64_t kBlock = 4096;
constexpr uint64_t kChunk = limits::kChunkSizeDefault;

Result<void> write_blob_rows(DiskIndex& index, uint64_t number, uint64_t first, uint32_t count) {
  constexpr uint64_t kBlocksPerExtent = limits::kExtentSize / kBlock;
  std::vector<ChunkRow> chunks;
  RootDigest root;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t block = first + i;
    ChunkRow row;
    row.meta = {i, limits::kChunkSizeMin, kBlock, Codec::kLz4, {block, number}};
    row.runs = {{static_cast<uint32_t>(block / kBlocksPerExtent + 1),
                 static_cast<uint32_t>(block % kBlocksPerExtent), 1}};
    root.add(row.meta.digest);
    chunks.push_back(std::move(row));
  }
  BlobRow blob;
  blob.name_space = "bench";
  blob.name = "blob-" + std::to_string(number);
  blob.chunk_size = limits::kChunkSizeMin;
  blob.size = uint64_t{count} * limits::kChunkSizeMin;
  blob.chunk_count = count;
  blob.root_digest = root.finish();
  blob.sequence = number;
  return index.commit(BlobId::random(), blob, chunks);
}

struct FreeBytes {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};
using AlignedBytes = std::unique_ptr<std::byte, FreeBytes>;

AlignedBytes aligned_chunk() {
  return AlignedBytes(static_cast<std::byte*>(std::aligned_alloc(limits::kDiskAlignment, kChunk)));
}

using Move = std::function<Result<void>(uint64_t offset, std::span<std::byte> buffer)>;

// Runs `move` for each chunk from `first` to `end`, a thread for each of the buffers, and adds what
// that took.
Result<void> add_timed(uint64_t first, uint64_t end, const std::vector<AlignedBytes>& buffers,
                       const Move& move, DiskSpeed& speed) {
  std::atomic<uint64_t> next{first};
  std::vector<Result<void>> results(buffers.size());
  const auto work = [&](size_t thread) {
    const std::span<std::byte> buffer(buffers[thread].get(), kChunk);
    while (results[thread]) {
      const uint64_t offset = next.fetch_add(kChunk);
      if (offset >= end) return;
      results[thread] = move(offset, buffer);
    }
  };
  const std::clock_t cpu_before = std::clock();
  const auto started = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (size_t i = 1; i < buffers.size(); ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& other : others) other.join();
  speed.seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  speed.cpu_s += static_cast<double>(std::clock() - cpu_before) / CLOCKS_PER_SEC;
  for (Result<void>& result : results) BIGCAST_TRY(std::move(result));
  return {};
}

// Runs both moves for all chunks, in turn for a slice each: a disk may be twice as fast in one
// second as in the next. Each thread has a buffer of its own that begins as a copy of `content`.
Result<std::pair<DiskSpeed, DiskSpeed>> side_by_side(uint64_t size, uint32_t threads,
                                                     std::span<const std::byte> content,
                                                     const Move& one, const Move& other) {
  constexpr uint64_t kSlice = 32 * kChunk;
  std::vector<AlignedBytes> buffers;
  for (uint32_t i = 0; i < threads; ++i) {
    buffers.push_back(aligned_chunk());
    std::copy(content.begin(), content.end(), buffers.back().get());
  }
  std::pair<DiskSpeed, DiskSpeed> speeds;
  for (uint64_t first = 0; first < size; first += kSlice) {
    const uint64_t end = std::min(size, first + kSlice);
    const bool swapped = first / kSlice % 2 == 1;
    if (swapped) BIGCAST_TRY(add_timed(first, end, buffers, other, speeds.second));
    BIGCAST_TRY(add_timed(first, end, buffers, one, speeds.first));
    if (!swapped) BIGCAST_TRY(add_timed(first, end, buffers, other, speeds.second));
  }
  return speeds;
}

}  // namespace

Result<void> write_index_rows(const std::string& disk_path, uint64_t rows) {
  const std::string directory = disk_path + "/bigcast";
  std::filesystem::create_directories(directory);
  BIGCAST_ASSIGN(const auto index, DiskIndex::open(directory + "/index", nullptr));
  for (uint64_t first = 0; first < rows; first += kChunksPerBlob) {
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(kChunksPerBlob, rows - first));
    BIGCAST_TRY(write_blob_rows(*index, first / kChunksPerBlob + 1, first, count));
  }
  const uint64_t extents = rows * kBlock / limits::kExtentSize + 1;
  for (uint64_t number = 1; number <= extents; ++number) {
    const std::string path = fmt::format("{}/extent-{:06}", directory, number);
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const int resized = fd < 0 ? -1 : ftruncate(fd, static_cast<off_t>(limits::kExtentSize));
    const int error_number = errno;
    if (fd >= 0) close(fd);
    if (resized != 0) return fail(ErrorCode::kIo, errno_message(path, error_number));
  }
  return {};
}

Result<DiskSpeeds> measure_disk(const std::string& disk_path, uint64_t size, uint32_t threads) {
  const AlignedBytes memory = aligned_chunk();
  const std::span<std::byte> content(memory.get(), kChunk);
  for (size_t i = 0; i < kChunk; ++i) content[i] = static_cast<std::byte>(i * 31 >> 7);
  const ChunkMeta meta = encode_chunk(0, content, {}, Compression::kNever);
  BIGCAST_ASSIGN(const auto source, Memfd::create("bigcast-bench"));
  // Each chunk is demoted once, as in a node: nothing is made ready by the one before.
  for (uint64_t offset = 0; offset < size; offset += kChunk) {
    BIGCAST_TRY(source->write(offset, content));
  }
  BIGCAST_ASSIGN(const auto tier,
                 DiskTier::open(disk_path, size + limits::kExtentSize, false, make_disk()));
  const auto disk = make_disk();
  BIGCAST_ASSIGN(const auto raw, disk->create(disk_path + "/raw", size));
  std::vector<DiskRuns> places(size / kChunk);
  const Move raw_write = [&](uint64_t offset, std::span<std::byte> buffer) {
    return raw->write(offset, buffer);
  };
  const Move demote = [&](uint64_t offset, std::span<std::byte>) -> Result<void> {
    const auto copy = [&](uint64_t at, std::span<std::byte> buffer) {
      return source->read(offset + at, buffer);
    };
    const auto file = [&] { return source->descriptor_up_to(offset + kChunk); };
    BIGCAST_ASSIGN(places[offset / kChunk], tier->write(kChunk, {copy, file, offset}));
    return {};
  };
  const Move raw_read = [&](uint64_t offset, std::span<std::byte> buffer) {
    return raw->read(offset, buffer);
  };
  const Move promote = [&](uint64_t offset, std::span<std::byte> buffer) -> Result<void> {
    BIGCAST_TRY(tier->read(places[offset / kChunk], buffer, buffer.size()));
    return verify_chunk(meta, buffer);
  };
  DiskSpeeds speeds;
  BIGCAST_ASSIGN(std::tie(speeds.raw_write, speeds.demote),
                 side_by_side(size, threads, content, raw_write, demote));
  BIGCAST_ASSIGN(std::tie(speeds.raw_read, speeds.promote),
                 side_by_side(size, threads, content, raw_read, promote));
  BIGCAST_TRY(disk->remove(disk_path + "/raw"));
  return speeds;
}

}  // namespace bigcast::bench
