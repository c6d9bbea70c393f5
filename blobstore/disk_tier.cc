#include "blobstore/disk_tier.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>

#include "base/limits.h"
#include "base/log.h"

namespace bigcast {
namespace {

namespace fs = std::filesystem;

constexpr size_t kAlignment = limits::kDiskAlignment;

// Chunks in many pieces make long rows and many small reads: the last resort only.
constexpr uint32_t kFewRuns = 16;

// Takes the lock that keeps a second process out of `directory`.
Result<int> lock_directory(const std::string& directory) {
  const std::string path = directory + "/lock";
  while (true) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return fail(ErrorCode::kIo, errno_message("disk_path: " + path, errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int error_number = errno;
      close(fd);
      if (error_number == EWOULDBLOCK) {
        return fail(ErrorCode::kAlreadyExists,
                    fmt::format("disk_path: another process holds {}", path));
      }
      return fail(ErrorCode::kIo, errno_message("disk_path: lock " + path, error_number));
    }
    // A process that ends deletes its lock file: what was locked must still be what is there.
    struct stat ours {};
    struct stat there {};
    if (fstat(fd, &ours) == 0 && stat(path.c_str(), &there) == 0 && ours.st_ino == there.st_ino &&
        ours.st_dev == there.st_dev) {
      return fd;
    }
    close(fd);
  }
}

Result<void> wipe(const std::string& directory) {
  std::error_code error;
  fs::remove_all(directory + "/index", error);
  if (error) return fail(ErrorCode::kIo, "disk_path: " + directory + ": " + error.message());
  for (auto it = fs::directory_iterator(directory, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (it->path().filename().string().starts_with("extent-")) fs::remove(it->path(), error);
    if (error) break;
  }
  if (error) return fail(ErrorCode::kIo, "disk_path: " + directory + ": " + error.message());
  return {};
}

bool is_aligned(const std::byte* data) {
  return reinterpret_cast<uintptr_t>(data) % kAlignment == 0;
}

size_t whole_blocks(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

std::span<std::byte> DiskBuffers::Lent::bytes() const { return {data_, limits::kDiskBufferSize}; }

DiskBuffers::~DiskBuffers() {
  for (std::byte* data : idle_) std::free(data);
}

DiskBuffers::Lent DiskBuffers::acquire() {
  std::unique_lock lock(mutex_);
  returned_.wait(lock, [&] { return lent_ < limits::kDiskBuffers; });
  ++lent_;
  if (!idle_.empty()) {
    std::byte* data = idle_.back();
    idle_.pop_back();
    return {*this, data};
  }
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, limits::kDiskBufferSize));
  if (data == nullptr) {
    --lent_;
    throw std::bad_alloc();
  }
  return {*this, data};
}

void DiskBuffers::give_back(std::byte* data) {
  {
    const std::lock_guard lock(mutex_);
    idle_.push_back(data);
    --lent_;
  }
  returned_.notify_one();
}

DiskTier::DiskTier(std::string directory, uint64_t budget, std::unique_ptr<Disk> disk)
    : directory_(std::move(directory)), budget_blocks_(budget / kBlock), disk_(std::move(disk)) {}

Result<std::unique_ptr<DiskTier>> DiskTier::open(const std::string& disk_path, uint64_t budget,
                                                 std::unique_ptr<Disk> disk) {
  const std::string directory = disk_path + "/bigcast";
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) {
    return fail(ErrorCode::kIo, fmt::format("disk_path: {}: {}", directory, error.message()));
  }
  BIGCAST_ASSIGN(const int lock_fd, lock_directory(directory));
  std::unique_ptr<DiskTier> tier(new DiskTier(directory, budget, std::move(disk)));
  tier->lock_fd_ = lock_fd;
  if (chmod(directory.c_str(), 0700) != 0) {
    return fail(ErrorCode::kIo, errno_message("disk_path: " + directory, errno));
  }
  BIGCAST_TRY(wipe(directory));
  BIGCAST_ASSIGN(tier->index_, DiskIndex::create(directory + "/index"));
  return tier;
}

DiskTier::~DiskTier() {
  index_.reset();
  extents_.clear();
  if (const auto result = wipe(directory_); !result) log().warn("{}", result.error().message);
  unlink((directory_ + "/lock").c_str());
  rmdir(directory_.c_str());
  close(lock_fd_);
}

std::string DiskTier::extent_path(uint32_t number) const {
  return fmt::format("{}/extent-{:06}", directory_, number);
}

// Requires: mutex_ held. Takes `count` blocks in runs of at least `least`, or nothing.
bool DiskTier::take_runs(uint32_t count, uint32_t least, DiskRuns& runs) {
  uint32_t missing = count;
  const auto search = [&](uint32_t number, Extent& extent, uint32_t from) {
    while (missing > 0 && extent.map.free() > 0) {
      const auto run = extent.map.find(from, std::min(least, missing), missing);
      if (run.count == 0) return;
      extent.map.take(run);
      runs.push_back({number, run.first, run.count});
      missing -= run.count;
      from = run.first + run.count;
      cursor_extent_ = number;
      cursor_block_ = from;
    }
  };
  // From the cursor to the end, then all from the start.
  const uint32_t start_block = cursor_block_;
  for (auto it = extents_.lower_bound(cursor_extent_); it != extents_.end() && missing > 0; ++it) {
    search(it->first, it->second,
           it->first == cursor_extent_ && missing == count ? start_block : 0);
  }
  for (auto it = extents_.begin(); it != extents_.end() && missing > 0; ++it) {
    search(it->first, it->second, 0);
  }
  if (missing == 0) return true;
  for (const DiskRun& run : runs) extents_.at(run.extent).map.give({run.block, run.count});
  runs.clear();
  return false;
}

Result<void> DiskTier::add_extent() {
  const uint64_t blocks = std::min(limits::kExtentSize / kBlock, budget_blocks_ - extent_blocks_);
  if (blocks == 0) return fail(ErrorCode::kResourceExhausted, "disk budget: it is full");
  uint32_t number = 1;
  while (extents_.contains(number)) ++number;
  BIGCAST_ASSIGN(auto file, disk_->create(extent_path(number), blocks * kBlock));
  extents_.emplace(number, Extent{std::move(file), BlockMap(static_cast<uint32_t>(blocks))});
  extent_blocks_ += blocks;
  return {};
}

Result<DiskRuns> DiskTier::allocate(uint32_t count) {
  const std::lock_guard lock(mutex_);
  DiskRuns runs;
  bool taken = take_runs(count, count, runs);
  if (!taken) {
    const auto added = add_extent();
    // The last extent may be smaller than the chunk: it fills in pieces.
    taken = (added && take_runs(count, count, runs)) ||
            take_runs(count, (count + kFewRuns - 1) / kFewRuns, runs) || take_runs(count, 1, runs);
    if (!taken && !added) return tl::unexpected<Error>(added.error());
  }
  if (!taken) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("disk budget: {} bytes are full", budget()));
  }
  used_ += uint64_t{count} * kBlock;
  return runs;
}

void DiskTier::release(const DiskRuns& runs) {
  const std::lock_guard lock(mutex_);
  for (const DiskRun& run : runs) {
    extents_.at(run.extent).map.give({run.block, run.count});
    used_ -= uint64_t{run.count} * kBlock;
  }
  delete_empty_extents();
}

// One empty extent stays while others are in use, lest a full one comes and goes with each chunk.
void DiskTier::delete_empty_extents() {
  bool may_stay = used() > 0;
  for (auto it = extents_.begin(); it != extents_.end();) {
    const BlockMap& map = it->second.map;
    if (map.free() < map.blocks() || std::exchange(may_stay, false)) {
      ++it;
      continue;
    }
    extent_blocks_ -= map.blocks();
    if (const auto removed = disk_->remove(extent_path(it->first)); !removed) {
      log().warn("{}", removed.error().message);
    }
    it = extents_.erase(it);
  }
}

std::shared_ptr<DiskFile> DiskTier::file(uint32_t extent) {
  const std::lock_guard lock(mutex_);
  const auto it = extents_.find(extent);
  return it == extents_.end() ? nullptr : it->second.file;
}

Result<DiskRuns> DiskTier::write(uint64_t size, const Source& source) {
  BIGCAST_ASSIGN(DiskRuns runs, allocate(static_cast<uint32_t>(whole_blocks(size) / kBlock)));
  const auto write_all = [&]() -> Result<void> {
    const auto lent = buffers_.acquire();
    uint64_t offset = 0;  // in the chunk
    for (const DiskRun& run : runs) {
      const auto extent = file(run.extent);
      const uint64_t run_size = run.count * kBlock;
      for (uint64_t at = 0; at < run_size;) {
        const auto piece =
            lent.bytes().first(std::min<uint64_t>(lent.bytes().size(), run_size - at));
        const auto filled = std::min<uint64_t>(piece.size(), size - offset);
        BIGCAST_TRY(source(offset, piece.first(filled)));
        std::memset(piece.data() + filled, 0, piece.size() - filled);
        BIGCAST_TRY(extent->write(run.block * kBlock + at, piece));
        at += piece.size();
        offset += filled;
      }
    }
    return {};
  };
  const auto written = write_all();
  if (!written) {
    release(runs);
    return tl::unexpected<Error>(written.error());
  }
  return runs;
}

Result<void> DiskTier::read(const DiskRuns& runs, std::span<std::byte> buffer, size_t capacity) {
  const bool straight = is_aligned(buffer.data()) && capacity >= whole_blocks(buffer.size());
  size_t offset = 0;
  for (const DiskRun& run : runs) {
    const auto extent = file(run.extent);
    if (!extent) return fail(ErrorCode::kIo, extent_path(run.extent) + ": is gone");
    const uint64_t run_size = run.count * kBlock;
    if (straight) {
      BIGCAST_TRY(extent->read(run.block * kBlock, {buffer.data() + offset, run_size}));
      offset += run_size;
      continue;
    }
    const auto lent = buffers_.acquire();
    for (uint64_t at = 0; at < run_size;) {
      const auto piece = lent.bytes().first(std::min<uint64_t>(lent.bytes().size(), run_size - at));
      BIGCAST_TRY(extent->read(run.block * kBlock + at, piece));
      const size_t wanted = std::min(piece.size(), buffer.size() - offset);
      std::memcpy(buffer.data() + offset, piece.data(), wanted);
      at += piece.size();
      offset += wanted;
    }
  }
  return {};
}

}  // namespace bigcast
