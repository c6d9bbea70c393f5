#include "blobstore/disk_index.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <string_view>
#include <variant>

#include "base/limits.h"
#include "base/log.h"
#include "blobstore/disk.h"

namespace bigcast {
namespace {

// To RocksDB a quota that is used up is an error of the disk as any other: only its words tell.
bool is_full(const rocksdb::Status& status) {
  if (status.IsNoSpace()) return true;
  return status.IsIOError() && status.ToString().find(std::strerror(EDQUOT)) != std::string::npos;
}

Result<void> to_result(const rocksdb::Status& status) {
  if (status.ok()) return {};
  std::string message = "disk index: " + status.ToString();
  std::replace(message.begin(), message.end(), '\n', ' ');
  const ErrorCode code = status.IsCorruption() ? ErrorCode::kCorrupt
                         : is_full(status)     ? ErrorCode::kResourceExhausted
                                               : ErrorCode::kIo;
  return fail(code, std::move(message));
}

tl::unexpected<Error> file_error(const std::string& path, const std::error_code& error) {
  return fail(ErrorCode::kIo, "disk index: " + path + ": " + error.message());
}

constexpr std::string_view kBlobs = "blob/";
constexpr std::string_view kChunks = "chunk/";
constexpr std::string_view kFormatKey = "format";

std::string key(std::string_view table, BlobId id) {
  std::string result(table);
  append_big_endian(result, id.hi);
  append_big_endian(result, id.lo);
  return result;
}

std::string chunk_key(BlobId id, uint32_t index) {
  std::string result = key(kChunks, id);
  append_big_endian(result, index);
  return result;
}

BlobId id_in(RowReader& key) {
  BlobId id;
  id.hi = key.big_endian<uint64_t>();
  id.lo = key.big_endian<uint64_t>();
  return id;
}

// Walks over the rows of one table.
class Cursor {
 public:
  Cursor(rocksdb::DB& db, std::string_view table) : table_(table), end_(table) {
    end_.back() = static_cast<char>(end_.back() + 1);
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    options.readahead_size = limits::kIndexReadahead;
    bound_ = end_;
    options.iterate_upper_bound = &bound_;
    rows_.reset(db.NewIterator(options));
    rows_->Seek(rocksdb::Slice(table.data(), table.size()));
  }
  Cursor(const Cursor&) = delete;
  Cursor& operator=(const Cursor&) = delete;
  bool valid() const { return rows_->Valid(); }
  void next() { rows_->Next(); }
  RowReader key() const {
    RowReader reader(rows_->key().ToStringView());
    reader.take(table_.size());
    return reader;
  }
  std::string_view value() const { return rows_->value().ToStringView(); }
  Result<void> status() const { return to_result(rows_->status()); }

 private:
  std::string_view table_;
  std::string end_;
  rocksdb::Slice bound_;
  std::unique_ptr<rocksdb::Iterator> rows_;
};

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

// RocksDB by itself goes on in a thread of its own once there is room again, which can end the
// process by an assertion of its own (7.8) when it was the log that could not grow. DiskIndex
// closes the database and opens it again: then what the log has comes into new files, and a record
// that is not whole is the log's end, as after a crash.
class NoRecovery final : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* recover) override {
    *recover = false;
  }
};

// Those of a database in little memory; `env` null: the system's.
rocksdb::Options small_options(rocksdb::Env* env) {
  rocksdb::Options options;
  if (env != nullptr) options.env = env;
  // A record that is not whole is the end of the log, where a process was killed; anything else
  // that is wrong there is damage, and no reason to forget what comes after it.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = true;
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
  options.max_bgerror_resume_count = 0;
  options.listeners.push_back(std::make_shared<NoRecovery>());
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(limits::kIndexBlockCache, 0);
  table.cache_index_and_filter_blocks = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

}  // namespace

DiskIndex::DiskIndex(std::string path, rocksdb::Env* env, std::unique_ptr<rocksdb::DB> db)
    : path_(std::move(path)), env_(env), db_(std::move(db)) {}
DiskIndex::~DiskIndex() = default;

namespace {

Result<void> opened(const rocksdb::Status& status) {
  auto result = to_result(status);
  // That a file is not there, or is not what the others say, is damage too.
  if (!result && (status.IsInvalidArgument() || status.IsNotFound() || status.IsPathNotFound())) {
    result.error().code = ErrorCode::kCorrupt;
  }
  return result;
}

Result<std::unique_ptr<rocksdb::DB>> open_database(const std::string& path, rocksdb::Env* env,
                                                   bool create) {
  rocksdb::Options options = small_options(env);
  options.create_if_missing = create;
  options.error_if_exists = create;
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path, &raw);
  std::unique_ptr<rocksdb::DB> db(raw);
  BIGCAST_TRY(opened(status));
  return db;
}

// Makes an empty database beside `path`, then moves it there: what is at `path` is always whole, so
// that a file missing from it is damage and never the rest of an unfinished start.
Result<void> create_database(const std::string& path, rocksdb::Env* env) {
  namespace fs = std::filesystem;
  const std::string unfinished = path + ".new";
  std::error_code error;
  fs::remove_all(unfinished, error);
  {
    BIGCAST_ASSIGN(const auto db, open_database(unfinished, env, true));
    std::string format;
    append_little_endian(format, DiskIndex::kFormat);
    rocksdb::WriteOptions synced;
    synced.sync = true;
    BIGCAST_TRY(
        to_result(db->Put(synced, rocksdb::Slice(kFormatKey.data(), kFormatKey.size()), format)));
  }
  fs::rename(unfinished, path, error);
  if (error) return file_error(path, error);
  return sync_directory(fs::path(path).parent_path());
}

// RocksDB takes a log that is gone for an empty one. It has one at all times.
Result<void> check_log(const std::string& path) {
  std::error_code error;
  std::filesystem::directory_iterator file(path, error);
  for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
    if (file->path().extension() == ".log") return {};
  }
  if (error) return file_error(path, error);
  return fail(ErrorCode::kCorrupt, "disk index: its log is gone");
}

}  // namespace

Result<std::unique_ptr<DiskIndex>> DiskIndex::open(const std::string& path, rocksdb::Env* env) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    if (error) return file_error(path, error);
    BIGCAST_TRY(create_database(path, env));
  }
  BIGCAST_TRY(check_log(path));
  BIGCAST_ASSIGN(auto db, open_database(path, env, false));
  std::unique_ptr<DiskIndex> index(new DiskIndex(path, env, std::move(db)));
  BIGCAST_TRY(index->check_format());
  return index;
}

Result<void> DiskIndex::check_format() const {
  std::string value;
  const auto status = db_->Get({}, rocksdb::Slice(kFormatKey.data(), kFormatKey.size()), &value);
  if (status.IsNotFound()) return fail(ErrorCode::kCorrupt, "disk index: its format row is gone");
  BIGCAST_TRY(to_result(status));
  RowReader reader{value};
  const auto format = reader.little_endian<uint32_t>();
  if (reader.is_whole() && format == kFormat) return {};
  return fail(ErrorCode::kUnsupported, "disk index: its format is " + std::to_string(format) +
                                           ", this bigcastd reads " + std::to_string(kFormat));
}

// A second, read-only view begins as a start does: with the manifest and the log. Meanwhile nothing
// may change them; the tables, which may be large, are read after that and never change.
Result<void> DiskIndex::verify() {
  {
    const std::unique_lock lock(mutex_);
    if (is_full_) return {};  // it is read when it is opened again
    BIGCAST_TRY(check_log(path_));
    BIGCAST_TRY(to_result(db_->PauseBackgroundWork()));
    rocksdb::DB* raw = nullptr;
    const auto status = rocksdb::DB::OpenForReadOnly(small_options(env_), path_, &raw);
    delete raw;
    BIGCAST_TRY(to_result(db_->ContinueBackgroundWork()));
    BIGCAST_TRY(opened(status));
  }
  const std::shared_lock lock(mutex_);
  if (is_full_) return {};
  rocksdb::ReadOptions options;
  options.readahead_size = limits::kIndexReadahead;
  return to_result(db_->VerifyChecksum(options));
}

Result<void> DiskIndex::reopen_if_full() {
  if (!is_full_) return {};
  const std::unique_lock lock(mutex_);
  if (!is_full_) return {};
  db_.reset();
  BIGCAST_ASSIGN(db_, open_database(path_, env_, false));
  is_full_ = false;
  log().info("disk index: there is room again");
  return {};
}

Result<void> DiskIndex::write(rocksdb::WriteBatch& batch, bool sync) {
  [[maybe_unused]] const auto turn = one_call_at_a_time();
  BIGCAST_TRY(reopen_if_full());
  const std::shared_lock lock(mutex_);
  if (is_full_)
    return fail(ErrorCode::kResourceExhausted, "disk index: no room since a moment ago");
  rocksdb::WriteOptions options;
  options.sync = sync;
  auto written = to_result(db_->Write(options, &batch));
  if (written || written.error().code != ErrorCode::kResourceExhausted) return written;
  if (!is_full_.exchange(true))
    log().warn("the disk tier has no room: {}", written.error().message);
  return written;
}

Result<void> DiskIndex::add(BlobId id, std::span<const ChunkRow> chunks) {
  rocksdb::WriteBatch batch;
  for (const ChunkRow& chunk : chunks) {
    batch.Put(chunk_key(id, chunk.meta.index), to_bytes(chunk));
  }
  return write(batch, false);
}

Result<void> DiskIndex::commit(BlobId id, const BlobRow& row, std::span<const ChunkRow> chunks) {
  rocksdb::WriteBatch batch;
  for (const ChunkRow& chunk : chunks) {
    batch.Put(chunk_key(id, chunk.meta.index), to_bytes(chunk));
  }
  batch.Put(key(kBlobs, id), to_bytes(row));
  return write(batch, true);
}

Result<void> DiskIndex::erase(std::span<const BlobId> ids) {
  rocksdb::WriteBatch batch;
  for (const BlobId id : ids) {
    batch.Delete(key(kBlobs, id));
    batch.DeleteRange(chunk_key(id, 0), chunk_key(id, limits::kChunksPerBlobMax));
  }
  return write(batch, true);
}

Result<void> DiskIndex::scan(const Visitor& visit) const {
  Cursor blobs(*db_, kBlobs);
  Cursor chunks(*db_, kChunks);
  const auto id_at = [](const Cursor& cursor) {
    RowReader key = cursor.key();
    return id_in(key);
  };
  while (blobs.valid() || chunks.valid()) {
    const bool has_row = blobs.valid() && (!chunks.valid() || !(id_at(chunks) < id_at(blobs)));
    const BlobId id = id_at(has_row ? blobs : chunks);
    BlobRow row;
    if (has_row) {
      BIGCAST_ASSIGN(row, blob_row(blobs.value()));
      blobs.next();
    }
    std::vector<ChunkRow> rows;
    for (; chunks.valid(); chunks.next()) {
      RowReader key = chunks.key();
      if (!(id_in(key) == id)) break;
      const auto index = key.big_endian<uint32_t>();
      if (!key.is_whole()) return malformed_row(kChunks);
      BIGCAST_ASSIGN(auto chunk, chunk_row(index, chunks.value()));
      rows.push_back(std::move(chunk));
    }
    visit(id, has_row ? &row : nullptr, std::move(rows));
  }
  BIGCAST_TRY(blobs.status());
  return chunks.status();
}

Result<bool> DiskIndex::is_empty() const {
  if (!db_) return fail(ErrorCode::kResourceExhausted, "disk index: there was no room to open it");
  const Cursor blobs(*db_, kBlobs);
  BIGCAST_TRY(blobs.status());
  return !blobs.valid();
}

}  // namespace bigcast
