#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "blobstore/block_map.h"
#include "blobstore/disk.h"
#include "blobstore/disk_index.h"

namespace bigcast {

// A bounded set of aligned I/O buffers (limits::kDiskBuffers): part of a node's fixed reserve.
// Thread-safe; acquire waits for one.
class DiskBuffers {
 public:
  class Lent {
   public:
    Lent(DiskBuffers& owner, std::byte* data) : owner_(owner), data_(data) {}
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;
    ~Lent() { owner_.give_back(data_); }
    std::span<std::byte> bytes() const;

   private:
    DiskBuffers& owner_;
    std::byte* data_;
  };

  DiskBuffers() = default;
  DiskBuffers(const DiskBuffers&) = delete;
  DiskBuffers& operator=(const DiskBuffers&) = delete;
  ~DiskBuffers();
  Lent acquire();

 private:
  void give_back(std::byte* data);

  std::mutex mutex_;
  std::condition_variable returned_;
  uint32_t lent_ = 0;
  std::vector<std::byte*> idle_;
};

// Chunks in extent files below `<disk_path>/bigcast`, and the index beside them:
//   lock             held (flock) by the process that uses the directory
//   extent-000001 …  limits::kExtentSize each, the last one cut to the budget
//   index/           RocksDB, see disk_index.h
// A chunk takes whole blocks, in one run where there is one. Empty extents but one are deleted.
// Thread-safe: all I/O is outside its lock.
class DiskTier {
 public:
  // Copies `size` bytes at `offset` of the chunk into the buffer.
  using Source = std::function<Result<void>(uint64_t offset, std::span<std::byte> buffer)>;

  // `disk_path` is created if it is missing; what an earlier process left is deleted.
  static Result<std::unique_ptr<DiskTier>> open(const std::string& disk_path, uint64_t budget,
                                                std::unique_ptr<Disk> disk);
  DiskTier(const DiskTier&) = delete;
  DiskTier& operator=(const DiskTier&) = delete;
  ~DiskTier();  // deletes the files

  // Stores `size` bytes. RESOURCE_EXHAUSTED if the budget or the file system is full, IO.
  Result<DiskRuns> write(uint64_t size, const Source& source);
  // Fills `buffer` with the chunk's first bytes.size() bytes and may write up to the next whole
  // block where `capacity` (from buffer's start) allows it: then, if aligned, without a copy.
  Result<void> read(const DiskRuns& runs, std::span<std::byte> buffer, size_t capacity);
  // Frees the blocks. Who still reads them gets other bytes: readers verify.
  void release(const DiskRuns& runs);

  DiskIndex& index() { return *index_; }
  uint64_t budget() const { return uint64_t{budget_blocks_} * kBlock; }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kBlock = 4096;

  struct Extent {
    std::shared_ptr<DiskFile> file;
    BlockMap map;
  };

  DiskTier(std::string directory, uint64_t budget, std::unique_ptr<Disk> disk);
  std::string extent_path(uint32_t number) const;
  Result<DiskRuns> allocate(uint32_t count);
  bool take_runs(uint32_t count, uint32_t least, DiskRuns& runs);
  Result<void> add_extent();
  void delete_empty_extents();
  std::shared_ptr<DiskFile> file(uint32_t extent);

  const std::string directory_;
  const uint64_t budget_blocks_;
  const std::unique_ptr<Disk> disk_;
  int lock_fd_ = -1;
  std::unique_ptr<DiskIndex> index_;
  DiskBuffers buffers_;
  std::atomic<uint64_t> used_{0};  // bytes

  std::mutex mutex_;  // guards what follows
  std::map<uint32_t, Extent> extents_;
  uint64_t extent_blocks_ = 0;  // of all extents
  uint32_t cursor_extent_ = 0;  // where the last run ended: next fit
  uint32_t cursor_block_ = 0;
};

}  // namespace bigcast
