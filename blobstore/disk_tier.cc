#include "blobstore/disk_tier.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <utility>

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

// 7 for "extent-000007", nothing for other names.
std::optional<uint32_t> extent_number(const std::string& name) {
  constexpr std::string_view kPrefix = "extent-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  uint32_t number = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number == 0) return std::nullopt;
  return number;
}

// Why the rows do not make up a whole blob; empty if they do.
std::string defect_of(const BlobRow& row, const std::vector<ChunkRow>& chunks) {
  const uint64_t count = row.stripe.chunks_of(row.chunk_count);
  if (chunks.size() != count) {
    return fmt::format("{} of its {} chunks have rows", chunks.size(), count);
  }
  constexpr const char* kMixedUp = "its rows are mixed up";
  if (chunks_in(row.size, row.chunk_size) != row.chunk_count) return kMixedUp;
  RootDigest root;
  uint32_t index = row.stripe.index;
  for (const ChunkRow& chunk : chunks) {
    const ChunkMeta& meta = chunk.meta;
    const uint64_t left = row.size - uint64_t{index} * row.chunk_size;
    if (meta.index != index || !check_meta(meta, row.chunk_size) ||
        meta.raw_size != std::min<uint64_t>(row.chunk_size, left)) {
      return kMixedUp;
    }
    root.add(meta.digest);
    index += row.stripe.count;
  }
  // A stripe's own digests don't make up that of the whole.
  if (row.stripe.count == 1 && !(root.finish() == row.root_digest)) return kMixedUp;
  return {};
}

// What is synced below them is found again only if they are, too.
Result<void> make_directories(const std::string& directory) {
  std::vector<fs::path> made;
  std::error_code error;
  for (fs::path path = directory; !path.empty() && !fs::exists(path, error);
       path = path.parent_path()) {
    made.push_back(path);
  }
  fs::create_directories(directory, error);
  if (error) {
    return fail(ErrorCode::kIo, fmt::format("disk_path: {}: {}", directory, error.message()));
  }
  for (const fs::path& path : made) {
    const fs::path parent = path.parent_path();
    BIGCAST_TRY(sync_directory(parent.empty() ? "." : parent.string()));
  }
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

DiskTier::DiskTier(std::string directory, uint64_t budget, bool keep, std::unique_ptr<Disk> disk)
    : directory_(std::move(directory)),
      budget_blocks_(budget / kBlock),
      keep_(keep),
      disk_(std::move(disk)) {}

Result<std::unique_ptr<DiskTier>> DiskTier::open(const std::string& disk_path, uint64_t budget,
                                                 bool keep, std::unique_ptr<Disk> disk) {
  const std::string directory = disk_path + "/bigcast";
  BIGCAST_TRY(make_directories(directory));
  BIGCAST_ASSIGN(const int lock_fd, lock_directory(directory));
  std::unique_ptr<DiskTier> tier(new DiskTier(directory, budget, keep, std::move(disk)));
  tier->lock_fd_ = lock_fd;
  if (chmod(directory.c_str(), 0700) != 0) {
    return fail(ErrorCode::kIo, errno_message("disk_path: " + directory, errno));
  }
  if (!keep) BIGCAST_TRY(tier->wipe());
  auto index = DiskIndex::open(directory + "/index", tier->disk_->index_environment());
  if (!index) {
    Error why = std::move(index).error();
    why.message = fmt::format("disk_path: {}/index: {}", directory, why.message);
    if (why.code == ErrorCode::kCorrupt) {
      why.message += "; it is damaged: move " + directory + " away to start without its blobs";
    }
    return tl::unexpected<Error>(std::move(why));
  }
  tier->index_ = std::move(*index);
  return tier;
}

DiskTier::~DiskTier() {
  extents_.clear();
  if (index_) {
    const auto empty = index_->is_empty();
    const bool nothing_to_keep = !keep_ || (empty && *empty && !is_read_only());
    index_.reset();
    if (nothing_to_keep) {
      if (const auto wiped = wipe(); !wiped) {
        log().warn("disk tier: emptying it: {}", wiped.error().message);
      }
      unlink((directory_ + "/lock").c_str());
      rmdir(directory_.c_str());
    }
  }
  if (lock_fd_ >= 0) close(lock_fd_);
}

std::string DiskTier::extent_path(uint32_t number) const {
  return fmt::format("{}/extent-{:06}", directory_, number);
}

Result<void> DiskTier::wipe() {
  std::error_code error;
  for (const char* index : {"/index", "/index.new"}) {
    fs::remove_all(directory_ + index, error);
    if (error) return fail(ErrorCode::kIo, "disk_path: " + directory_ + ": " + error.message());
  }
  BIGCAST_ASSIGN(const auto names, disk_->list(directory_));
  for (const std::string& name : names) {
    if (extent_number(name)) BIGCAST_TRY(disk_->remove(directory_ + "/" + name));
  }
  return {};
}

// ---- What an earlier process left.

Result<void> DiskTier::open_extents() {
  BIGCAST_ASSIGN(const auto names, disk_->list(directory_));
  const std::lock_guard lock(mutex_);
  for (const std::string& name : names) {
    const auto number = extent_number(name);
    if (!number) continue;
    BIGCAST_ASSIGN(auto opened, disk_->open(directory_ + "/" + name));
    const auto blocks = static_cast<uint32_t>(std::min(opened.size, limits::kExtentSize) / kBlock);
    extents_.emplace(*number, Extent{std::move(opened.file), BlockMap(blocks)});
    extent_blocks_ += blocks;
  }
  return {};
}

// Takes the chunks' blocks; or says why they can't be theirs, and takes none.
std::string DiskTier::claim(const std::vector<ChunkRow>& chunks) {
  const std::lock_guard lock(mutex_);
  DiskRuns taken;
  std::string defect;
  for (const ChunkRow& chunk : chunks) {
    uint64_t blocks = 0;
    for (const DiskRun& run : chunk.runs) {
      const auto it = extents_.find(run.extent);
      if (it == extents_.end()) {
        defect = fmt::format("{} is gone", extent_path(run.extent));
      } else if (uint64_t{run.block} + run.count > it->second.map.blocks()) {
        defect = fmt::format("{} was cut short", extent_path(run.extent));
      } else if (run.count == 0 || !it->second.map.is_free({run.block, run.count})) {
        defect = fmt::format("{} holds another blob in its place", extent_path(run.extent));
      }
      if (!defect.empty()) break;
      it->second.map.take({run.block, run.count});
      taken.push_back(run);
      blocks += run.count;
    }
    if (defect.empty() && blocks != whole_blocks(chunk.meta.stored_size) / kBlock) {
      defect = "its rows are mixed up";
    }
    if (!defect.empty()) break;
  }
  for (const DiskRun& run : taken) {
    if (!defect.empty()) extents_.at(run.extent).map.give({run.block, run.count});
    if (defect.empty()) used_ += run.count * kBlock;
  }
  return defect;
}

Result<uint64_t> DiskTier::recover(const std::function<void(Found)>& found) {
  BIGCAST_TRY(open_extents());
  uint64_t lost = 0;
  std::vector<BlobId> forget;
  auto scanned = index_->scan([&](BlobId id, const BlobRow* row, std::vector<ChunkRow> chunks) {
    if (row == nullptr) {  // what a commit that did not end left
      forget.push_back(id);
      return;
    }
    std::string defect = defect_of(*row, chunks);
    if (defect.empty()) defect = claim(chunks);
    if (defect.empty()) {
      found({id, *row, std::move(chunks)});
      return;
    }
    log().error("lost blob {}/{} ({}): {}", row->name_space, row->name, id.to_string(), defect);
    forget.push_back(id);
    ++lost;
  });
  if (!scanned) {
    Error why = std::move(scanned).error();
    why.message = fmt::format("disk_path: {}: {}", directory_, why.message);
    if (why.code == ErrorCode::kCorrupt) {
      why.message += "; it is damaged: move " + directory_ + " away to start without its blobs";
    }
    return tl::unexpected<Error>(std::move(why));
  }
  if (!forget.empty()) BIGCAST_TRY(index_->erase(forget));
  const std::lock_guard lock(mutex_);
  delete_empty_extents();
  return lost;
}

// ---- Failures.

std::string DiskTier::failure() const {
  const std::lock_guard lock(failure_mutex_);
  return failure_;
}

Result<void> DiskTier::check_writable() const {
  if (!is_read_only_) return {};
  return fail(ErrorCode::kIo, "the disk tier is read-only since a failure: " + failure());
}

// Of a write or sync: one that failed makes the tier read-only, unless room for an extent or for
// the index was all it lacked.
Result<void> DiskTier::note_failure(Result<void> result) {
  if (result || result.error().code == ErrorCode::kResourceExhausted) return result;
  const std::lock_guard lock(failure_mutex_);
  if (failure_.empty()) {
    failure_ = result.error().message;
    log().error("the disk tier is read-only from now on: {}", failure_);
  }
  is_read_only_ = true;
  return result;
}

// ---- Blocks.

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
  // They may exceed a budget that was smaller at the next start.
  if (extent_blocks_ >= budget_blocks_) {
    return fail(ErrorCode::kResourceExhausted, "disk budget: it is full");
  }
  const uint64_t blocks = std::min(limits::kExtentSize / kBlock, budget_blocks_ - extent_blocks_);
  uint32_t number = 1;
  while (extents_.contains(number)) ++number;
  auto file = disk_->create(extent_path(number), blocks * kBlock);
  if (!file) return note_failure(tl::unexpected<Error>(std::move(file).error()));
  extents_.emplace(number, Extent{std::move(*file), BlockMap(static_cast<uint32_t>(blocks))});
  extent_blocks_ += blocks;
  return {};
}

Result<DiskRuns> DiskTier::allocate(uint32_t count) {
  const std::lock_guard lock(mutex_);
  DiskRuns runs;
  const bool within_budget = used() + uint64_t{count} * kBlock <= budget();
  bool taken = within_budget && take_runs(count, count, runs);
  if (within_budget && !taken) {
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
      log().warn("disk tier: removing an extent: {}", removed.error().message);
    }
    it = extents_.erase(it);
  }
}

std::shared_ptr<DiskFile> DiskTier::file(uint32_t extent) {
  const std::lock_guard lock(mutex_);
  const auto it = extents_.find(extent);
  return it == extents_.end() ? nullptr : it->second.file;
}

// ---- Bytes and rows.

Result<DiskRuns> DiskTier::write(uint64_t size, const Source& source) {
  BIGCAST_TRY(check_writable());
  BIGCAST_ASSIGN(DiskRuns runs, allocate(static_cast<uint32_t>(whole_blocks(size) / kBlock)));
  const auto written = write_runs(runs, size, source);
  if (!written) {
    release(runs);
    return tl::unexpected<Error>(written.error());
  }
  return runs;
}

Result<void> DiskTier::write_runs(const DiskRuns& runs, uint64_t size, const Source& source) {
  BIGCAST_ASSIGN(const bool written, write_from_memory(runs, source));
  if (written) return {};
  const auto lent = buffers_.acquire();
  uint64_t offset = 0;  // in the chunk
  for (const DiskRun& run : runs) {
    const auto extent = file(run.extent);
    const uint64_t run_size = run.count * kBlock;
    for (uint64_t at = 0; at < run_size;) {
      const auto piece = lent.bytes().first(std::min<uint64_t>(lent.bytes().size(), run_size - at));
      const auto filled = std::min<uint64_t>(piece.size(), size - offset);
      BIGCAST_TRY(source.copy(offset, piece.first(filled)));
      std::memset(piece.data() + filled, 0, piece.size() - filled);
      BIGCAST_TRY(note_failure(extent->write(run.block * kBlock + at, piece)));
      at += piece.size();
      offset += filled;
    }
  }
  return {};
}

// False: it has to be copied. Needs none of the buffers, but a pipe and its two descriptors, as
// often as writes are under way: a job of the process's thread pool (UV_THREADPOOL_SIZE; bigcastd
// takes two threads a processor, at least 8) does one at a time, and what puts chunks has half of
// them (NodeCore::put_on_pool).
Result<bool> DiskTier::write_from_memory(const DiskRuns& runs, const Source& source) {
  if (!source.memory_file || runs.size() != 1) return false;
  const auto fd = source.memory_file();
  if (!fd) return false;
  const DiskRun& run = runs.front();
  auto written =
      file(run.extent)
          ->write_from(run.block * kBlock, *fd, source.memory_offset, run.count * kBlock);
  if (written) return written;
  (void)note_failure(tl::unexpected<Error>(written.error()));
  return written;
}

// One at a time: the system reports a failure to write back once, to one caller, and whoever syncs
// the same file afterwards must know of it.
Result<void> DiskTier::sync(const std::set<uint32_t>& extents) {
  const std::lock_guard lock(sync_mutex_);
  BIGCAST_TRY(check_writable());
  for (const uint32_t number : extents) {
    auto synced = file(number)->sync();
    if (!synced) {
      synced.error().code = ErrorCode::kIo;  // also when the file system is full
      return note_failure(std::move(synced));
    }
  }
  return {};
}

Result<void> DiskTier::add_rows(BlobId id, std::span<const ChunkRow> chunks) {
  BIGCAST_TRY(check_writable());
  return note_failure(index_->add(id, chunks));
}

Result<void> DiskTier::commit(BlobId id, const BlobRow& row, std::span<const ChunkRow> chunks,
                              const std::set<uint32_t>& extents) {
  BIGCAST_TRY(sync(extents));
  return note_failure(index_->commit(id, row, chunks));
}

Result<void> DiskTier::erase(BlobId id) {
  BIGCAST_TRY(check_writable());
  return note_failure(index_->erase({&id, 1}));
}

Result<void> DiskTier::rewrite(const DiskRuns& runs, uint64_t size, const Source& source) {
  BIGCAST_TRY(check_writable());
  BIGCAST_TRY(write_runs(runs, size, source));
  std::set<uint32_t> extents;
  for (const DiskRun& run : runs) extents.insert(run.extent);
  return sync(extents);
}

Result<void> DiskTier::verify_index() { return note_failure(index_->verify()); }

Result<void> DiskTier::read(const DiskRuns& runs, std::span<std::byte> buffer, size_t capacity) {
  size_t offset = 0;
  if (!is_aligned(buffer.data()) || capacity < whole_blocks(buffer.size())) {
    return read_pieces(runs, buffer.size(), [&](std::span<const std::byte> piece) {
      std::memcpy(buffer.data() + offset, piece.data(), piece.size());
      offset += piece.size();
    });
  }
  for (const DiskRun& run : runs) {
    const auto extent = file(run.extent);
    if (!extent) return fail(ErrorCode::kIo, extent_path(run.extent) + ": is gone");
    const uint64_t run_size = run.count * kBlock;
    BIGCAST_TRY(extent->read(run.block * kBlock, {buffer.data() + offset, run_size}));
    offset += run_size;
  }
  return {};
}

// The chunk's first `size` bytes, through a lent buffer.
Result<void> DiskTier::read_pieces(const DiskRuns& runs, uint64_t size,
                                   const std::function<void(std::span<const std::byte>)>& visit) {
  const auto lent = buffers_.acquire();
  for (const DiskRun& run : runs) {
    const auto extent = file(run.extent);
    if (!extent) return fail(ErrorCode::kIo, extent_path(run.extent) + ": is gone");
    const uint64_t run_size = run.count * kBlock;
    for (uint64_t at = 0; at < run_size;) {
      const auto piece = lent.bytes().first(std::min<uint64_t>(lent.bytes().size(), run_size - at));
      BIGCAST_TRY(extent->read(run.block * kBlock + at, piece));
      const auto wanted = std::min<uint64_t>(piece.size(), size);
      visit(piece.first(wanted));
      size -= wanted;
      at += piece.size();
    }
  }
  return {};
}

Result<Digest128> DiskTier::digest(const DiskRuns& runs, uint64_t size) {
  PieceDigest digest;
  BIGCAST_TRY(
      read_pieces(runs, size, [&](std::span<const std::byte> piece) { digest.add(piece); }));
  return digest.finish();
}

}  // namespace bigcast
