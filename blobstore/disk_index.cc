#include "blobstore/disk_index.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <mutex>
#include <string_view>
#include <variant>

#include "base/limits.h"

namespace bigcast {
namespace {

Result<void> to_result(const rocksdb::Status& status) {
  if (status.ok()) return {};
  std::string message = "disk index: " + status.ToString();
  std::replace(message.begin(), message.end(), '\n', ' ');
  return fail(ErrorCode::kIo, std::move(message));
}

template <typename Integer>
void append_big_endian(std::string& out, Integer value) {
  for (int shift = static_cast<int>(sizeof value) * 8 - 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
}

template <typename Integer>
void append_little_endian(std::string& out, Integer value) {
  for (size_t i = 0; i < sizeof value; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

void append_text(std::string& out, std::string_view text) {
  append_little_endian(out, static_cast<uint32_t>(text.size()));
  out += text;
}

void append_digest(std::string& out, const Digest128& digest) {
  append_little_endian(out, digest.hi);
  append_little_endian(out, digest.lo);
}

std::string key(std::string_view table, BlobId id) {
  std::string result(table);
  append_big_endian(result, id.hi);
  append_big_endian(result, id.lo);
  return result;
}

std::string chunk_key(BlobId id, uint32_t index) {
  std::string result = key("chunk/", id);
  append_big_endian(result, index);
  return result;
}

std::string chunk_value(const ChunkMeta& meta, const DiskRuns& runs) {
  std::string value;
  append_little_endian(value, meta.raw_size);
  append_little_endian(value, meta.stored_size);
  value.push_back(static_cast<char>(meta.codec));
  append_digest(value, meta.digest);
  append_little_endian(value, static_cast<uint32_t>(runs.size()));
  for (const DiskRun& run : runs) {
    append_little_endian(value, run.extent);
    append_little_endian(value, run.block);
    append_little_endian(value, run.count);
  }
  return value;
}

// Debian's RocksDB is not built with the thread sanitizer, which therefore does not see how writers
// that queue up let the first of them write the batches of all, and takes that for races. One call
// at a time leaves them nothing to hand over. In other builds RocksDB does the queueing.
[[nodiscard]] auto one_call_at_a_time() {
#ifdef __SANITIZE_THREAD__
  static std::mutex mutex;
  return std::unique_lock(mutex);
#else
  return std::monostate();
#endif
}

rocksdb::Options small_options() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.error_if_exists = true;
  options.compression = rocksdb::kNoCompression;
  options.write_buffer_size = limits::kIndexWriteBuffer;
  options.max_write_buffer_number = 2;
  options.arena_block_size = 64 * limits::kKiB;
  options.max_total_wal_size = 4 * limits::kIndexWriteBuffer;
  options.max_background_jobs = 1;
  options.max_open_files = limits::kIndexOpenFilesMax;
  options.keep_log_file_num = 1;
  options.info_log_level = rocksdb::ERROR_LEVEL;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(limits::kIndexBlockCache, 0);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace

DiskIndex::DiskIndex(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}
DiskIndex::~DiskIndex() = default;

Result<std::unique_ptr<DiskIndex>> DiskIndex::create(const std::string& path) {
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(small_options(), path, &raw);
  std::unique_ptr<rocksdb::DB> db(raw);
  BIGCAST_TRY(to_result(status));
  return std::unique_ptr<DiskIndex>(new DiskIndex(std::move(db)));
}

Result<void> DiskIndex::put_chunk(BlobId id, const ChunkMeta& meta, const DiskRuns& runs) {
  [[maybe_unused]] const auto turn = one_call_at_a_time();
  return to_result(db_->Put({}, chunk_key(id, meta.index), chunk_value(meta, runs)));
}

Result<void> DiskIndex::erase_chunk(BlobId id, uint32_t index) {
  [[maybe_unused]] const auto turn = one_call_at_a_time();
  return to_result(db_->Delete({}, chunk_key(id, index)));
}

Result<void> DiskIndex::put_blob(BlobId id, const BlobRow& row) {
  [[maybe_unused]] const auto turn = one_call_at_a_time();
  std::string value;
  append_text(value, row.name_space);
  append_text(value, row.name);
  append_little_endian(value, row.lease.hi);
  append_little_endian(value, row.lease.lo);
  append_little_endian(value, row.chunk_size);
  append_little_endian(value, row.size);
  append_little_endian(value, row.chunk_count);
  append_digest(value, row.root_digest);
  return to_result(db_->Put({}, key("blob/", id), value));
}

Result<void> DiskIndex::erase_blob(BlobId id, bool with_chunks) {
  [[maybe_unused]] const auto turn = one_call_at_a_time();
  rocksdb::WriteBatch batch;
  batch.Delete(key("blob/", id));
  if (with_chunks) {
    batch.DeleteRange(chunk_key(id, 0), chunk_key(id, limits::kChunksPerBlobMax));
  }
  return to_result(db_->Write({}, &batch));
}

}  // namespace bigcast
