#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
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
//
// What survives a crash is what was committed: the extents are synced first, then the rows, so rows
// never name bytes that are not there. Blocks that no row names are free at the next start, and
// blocks that a row names may be released only after `erase` has succeeded.
//
// After a write or sync that failed (but for want of room for an extent or for the index) the tier
// is read-only until it is opened again: what the system still writes of what it was given is
// unknown. Writes then fail with IO.
//
// Thread-safe: all I/O is outside its locks, but for syncs, of which there is one at a time.
class DiskTier {
 public:
  // Where a chunk's bytes come from.
  struct Source {
    // Copies those at `offset` of the chunk into the buffer.
    std::function<Result<void>(uint64_t offset, std::span<std::byte> buffer)> copy;
    // If it is there, and answers: the descriptor of a memory file that has all of them from
    // `memory_offset` on, up to the end of the last block. They are written from where they are,
    // if the file system can.
    std::function<Result<int>()> memory_file = {};
    uint64_t memory_offset = 0;  // a multiple of the page size
  };

  struct Found {
    BlobId id;
    BlobRow row;
    std::vector<ChunkRow> chunks;  // all of them, in order
  };

  // `disk_path` is created if it is missing. Not `keep`: what an earlier process left is deleted,
  // and so is all at the end. CORRUPT or UNSUPPORTED, naming the directory, if its index can't be
  // read.
  static Result<std::unique_ptr<DiskTier>> open(const std::string& disk_path, uint64_t budget,
                                                bool keep, std::unique_ptr<Disk> disk);
  DiskTier(const DiskTier&) = delete;
  DiskTier& operator=(const DiskTier&) = delete;
  ~DiskTier();  // deletes the files, unless there are blobs to keep

  // Before anything else: takes the blocks that rows name and calls `found` for each blob that is
  // whole. Blobs that are not are logged by name and forgotten. Returns how many those were.
  Result<uint64_t> recover(const std::function<void(Found)>& found);

  // Stores `size` bytes. RESOURCE_EXHAUSTED if the budget or the file system is full, IO.
  Result<DiskRuns> write(uint64_t size, const Source& source);
  // Fills `buffer` with the chunk's first bytes.size() bytes and may write up to the next whole
  // block where `capacity` (from buffer's start) allows it: then, if aligned, without a copy.
  Result<void> read(const DiskRuns& runs, std::span<std::byte> buffer, size_t capacity);
  // The digest of the chunk's `size` bytes as they are on disk now. IO, CORRUPT.
  Result<Digest128> digest(const DiskRuns& runs, uint64_t size);
  // Writes the chunk once more where it is, and syncs.
  Result<void> rewrite(const DiskRuns& runs, uint64_t size, const Source& source);
  // Checks the index's files; one that is damaged makes the tier read-only.
  Result<void> verify_index();
  // Frees the blocks. Who still reads them gets other bytes: readers verify.
  void release(const DiskRuns& runs);

  // Rows of chunks ahead of their blob's commit, see DiskIndex::add.
  Result<void> add_rows(BlobId id, std::span<const ChunkRow> chunks);
  // Makes the blob survive a crash: syncs `extents`, where its chunks are, then writes its rows.
  // When it fails some of the rows may be there nevertheless. RESOURCE_EXHAUSTED: the index has no
  // room; it may be done again.
  Result<void> commit(BlobId id, const BlobRow& row, std::span<const ChunkRow> chunks,
                      const std::set<uint32_t>& extents);
  Result<void> erase(BlobId id);

  uint64_t budget() const { return uint64_t{budget_blocks_} * kBlock; }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  bool is_read_only() const { return is_read_only_; }
  std::string failure() const;  // why it is read-only; empty: it is not

 private:
  static constexpr uint64_t kBlock = 4096;

  struct Extent {
    std::shared_ptr<DiskFile> file;
    BlockMap map;
  };

  DiskTier(std::string directory, uint64_t budget, bool keep, std::unique_ptr<Disk> disk);
  std::string extent_path(uint32_t number) const;
  Result<void> open_extents();
  std::string claim(const std::vector<ChunkRow>& chunks);
  Result<void> wipe();
  Result<DiskRuns> allocate(uint32_t count);
  bool take_runs(uint32_t count, uint32_t least, DiskRuns& runs);
  Result<void> add_extent();
  void delete_empty_extents();
  std::shared_ptr<DiskFile> file(uint32_t extent);
  Result<void> write_runs(const DiskRuns& runs, uint64_t size, const Source& source);
  Result<bool> write_from_memory(const DiskRuns& runs, const Source& source);
  Result<void> read_pieces(const DiskRuns& runs, uint64_t size,
                           const std::function<void(std::span<const std::byte>)>& visit);
  Result<void> sync(const std::set<uint32_t>& extents);
  Result<void> check_writable() const;
  Result<void> note_failure(Result<void> result);

  const std::string directory_;
  const uint64_t budget_blocks_;
  const bool keep_;
  const std::unique_ptr<Disk> disk_;
  int lock_fd_ = -1;
  std::unique_ptr<DiskIndex> index_;
  DiskBuffers buffers_;
  std::atomic<uint64_t> used_{0};  // bytes
  std::mutex sync_mutex_;          // held while extents are synced
  std::atomic<bool> is_read_only_{false};
  mutable std::mutex failure_mutex_;
  std::string failure_;

  std::mutex mutex_;  // guards what follows
  std::map<uint32_t, Extent> extents_;
  uint64_t extent_blocks_ = 0;  // of all extents
  uint32_t cursor_extent_ = 0;  // where the last run ended: next fit
  uint32_t cursor_block_ = 0;
};

}  // namespace bigcast
