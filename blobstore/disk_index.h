#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "codec/codec.h"

namespace rocksdb {
class DB;
}

namespace bigcast {

// Adjacent blocks of limits::kDiskAlignment bytes in one extent file.
struct DiskRun {
  uint32_t extent = 0;  // 1 is the file extent-000001
  uint32_t block = 0;
  uint32_t count = 0;
};
using DiskRuns = std::vector<DiskRun>;

// What a sealed home is, as a row.
struct BlobRow {
  std::string name_space;
  std::string name;
  LeaseId lease;
  uint32_t chunk_size = 0;
  uint64_t size = 0;
  uint32_t chunk_count = 0;
  Digest128 root_digest;
};

// The disk tier's RocksDB database; the only file that sees a RocksDB status. Integers in keys are
// big-endian, so that a blob's chunks are neighbours; in values little-endian.
//   chunk/<16-byte id><4-byte index>  ->  ChunkMeta, runs
//   blob/<16-byte id>                 ->  BlobRow
// Thread-safe. Errors: IO.
class DiskIndex {
 public:
  static Result<std::unique_ptr<DiskIndex>> create(const std::string& path);
  ~DiskIndex();
  DiskIndex(const DiskIndex&) = delete;
  DiskIndex& operator=(const DiskIndex&) = delete;

  Result<void> put_chunk(BlobId id, const ChunkMeta& meta, const DiskRuns& runs);
  Result<void> erase_chunk(BlobId id, uint32_t index);
  Result<void> put_blob(BlobId id, const BlobRow& row);
  // The blob's row and, where `with_chunks`, those of its chunks.
  Result<void> erase_blob(BlobId id, bool with_chunks);

 private:
  explicit DiskIndex(std::unique_ptr<rocksdb::DB> db);
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace bigcast
