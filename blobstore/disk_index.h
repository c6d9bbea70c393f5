#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "blobstore/disk_rows.h"

namespace rocksdb {
class DB;
class Env;
class WriteBatch;
}  // namespace rocksdb

namespace bigcast {

// The disk tier's RocksDB database; the only file that sees a RocksDB status. It holds what
// survives a crash, durable blobs, and nothing else. Integers in keys are big-endian, so that a
// blob's chunks are neighbours; in values little-endian.
//   blob/<16-byte id>                 ->  BlobRow
//   chunk/<16-byte id><4-byte index>  ->  ChunkMeta, runs
//   format                            ->  kFormat
// A blob is there when its blob row is; chunk rows without one are rests of an unfinished commit.
// Thread-safe. Errors: CORRUPT when what is there is damaged, RESOURCE_EXHAUSTED when its files
// find no room, else IO. After a write that failed with IO all do until the database is opened
// again. One that found no room, of which all or nothing may be there, is followed by others: each
// opens the database again first, as a start does, until that works.
class DiskIndex {
 public:
  static constexpr uint32_t kFormat = 3;

  // Opens the database at `path`, or creates it. UNSUPPORTED if it has another format.
  static Result<std::unique_ptr<DiskIndex>> open(const std::string& path, rocksdb::Env* env);
  ~DiskIndex();
  DiskIndex(const DiskIndex&) = delete;
  DiskIndex& operator=(const DiskIndex&) = delete;

  // Chunk rows ahead of their blob's, of blobs with more than limits::kIndexBatchRows. Not synced.
  Result<void> add(BlobId id, std::span<const ChunkRow> chunks);
  // The blob with its last chunk rows in one batch: synced, and all that was added before.
  Result<void> commit(BlobId id, const BlobRow& row, std::span<const ChunkRow> chunks);
  // All rows of the blobs, in one synced batch.
  Result<void> erase(std::span<const BlobId> ids);

  // In order of id: a blob's row, if it has one, and its chunks' in order of index.
  using Visitor = std::function<void(BlobId, const BlobRow*, std::vector<ChunkRow>)>;
  Result<void> scan(const Visitor& visit) const;
  Result<bool> is_empty() const;
  // Checks all files of the database where they are. CORRUPT says which is damaged. Writes wait for
  // a part of it.
  Result<void> verify();

 private:
  DiskIndex(std::string path, rocksdb::Env* env, std::unique_ptr<rocksdb::DB> db);
  Result<void> write(rocksdb::WriteBatch& batch, bool sync);
  Result<void> reopen_if_full();
  Result<void> check_format() const;

  const std::string path_;
  rocksdb::Env* const env_;
  std::unique_ptr<rocksdb::DB> db_;    // null: it could not be opened again for want of room
  std::atomic<bool> is_full_ = false;  // a write found no room, and it was not opened again since
  // Shared by who writes and who reads tables; whoever reads the log or opens it again has it
  // alone.
  std::shared_mutex mutex_;
};

}  // namespace bigcast
