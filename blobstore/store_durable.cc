#include <algorithm>
#include <utility>

#include "base/log.h"
#include "blobstore/store.h"

// Durable blobs. A chunk is written to disk when it is put and keeps its place there; the seal
// syncs the extents and writes the rows. Rows are the only thing that a start looks at, so a blob
// is visible after a crash exactly when its rows are, and what they name must not change until they
// are gone.
namespace bigcast {

Result<void> Store::fill_durable(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                                 std::span<const std::byte> stored) {
  BIGCAST_TRY(write_to_disk(lock, blob, chunk, copying(stored)));
  // The copy in memory is for speed: without room for it the chunk is read from disk.
  if (!chunk.doomed && make_room(lock, chunk) && !write_chunk(lock, blob, chunk, stored)) {
    free_pages(lock, blob, chunk);
  }
  return {};
}

Result<void> Store::make_durable(Lock& lock, const BlobPtr& blob) {
  blob->writing_rows = true;
  blob->has_rows = true;
  blob->sequence = ++sequences_;
  auto written = write_rows(lock, blob);
  blob->writing_rows = false;
  changed_.notify_all();
  return written;
}

Result<void> Store::write_rows(Lock& lock, const BlobPtr& blob) {
  const CreateOptions& options = blob->options;
  const BlobRow row{options.name_space, options.name,        options.lease,     options.chunk_size,
                    blob->sealed_size,  blob->sealed_chunks, blob->root_digest, blob->sequence,
                    options.ttl,        options.stripe,      options.note};
  std::set<uint32_t> extents;
  const uint64_t step = uint64_t{limits::kIndexBatchRows} * options.stripe.count;
  for (uint64_t first = options.stripe.index;; first += step) {
    const auto rows = rows_of(*blob, first, extents);
    const bool is_last = first + step >= blob->sealed_chunks;
    lock.unlock();
    auto written =
        is_last ? disk_->commit(options.id, row, rows, extents) : disk_->add_rows(options.id, rows);
    lock.lock();
    if (is_last || !written) return written;
  }
}

// A batch of them, from the chunk `first` on.
std::vector<ChunkRow> Store::rows_of(const StoredBlob& blob, uint64_t first,
                                     std::set<uint32_t>& extents) const {
  std::vector<ChunkRow> rows;
  for (uint64_t index = first; index < blob.sealed_chunks && rows.size() < limits::kIndexBatchRows;
       index += blob.options.stripe.count) {
    const StoredChunk& chunk = blob.chunks.at(static_cast<uint32_t>(index));
    rows.push_back({chunk.meta, chunk.runs});
    for (const DiskRun& run : chunk.runs) extents.insert(run.extent);
  }
  return rows;
}

// Of blobs that were removed while the disk had no room for that. One thread at a time: an id whose
// rows are gone may be another blob's a moment later.
void Store::erase_left(Lock& lock) {
  erasing_ = true;
  while (!unerased_.empty()) {
    const auto [id, blob] = *unerased_.begin();
    lock.unlock();
    const auto erased = disk_->erase(id);
    lock.lock();
    if (!erased) break;
    unerased_.erase(id);
    blob->has_rows = false;
    begin_move();
    release_withheld(lock, blob);
    end_move(true);
  }
  erasing_ = false;
}

void Store::release_withheld(Lock& lock, const BlobPtr& blob) {
  if (blob->has_rows) return;
  const DiskRuns runs = std::exchange(blob->withheld, {});
  const uint64_t bytes = std::exchange(blob->withheld_bytes, 0);
  if (!runs.empty()) {
    lock.unlock();
    disk_->release(runs);
    lock.lock();
  }
  homes_on_disk_ -= bytes;
}

// ---- The start.

Result<void> Store::recover() {
  if (!disk_) return {};
  Lock lock(mutex_);
  std::vector<BlobPtr> superseded;
  BIGCAST_ASSIGN(counters_.blobs_lost, disk_->recover([&](DiskTier::Found found) {
    adopt(std::move(found), superseded);
  }));
  for (const BlobPtr& blob : superseded) BIGCAST_TRY(remove_blob(lock, blob));
  counters_.blobs_recovered = blobs_.size();
  if (counters_.blobs_recovered + counters_.blobs_lost > 0) {
    log().info("disk tier: {} blobs found, {} lost", counters_.blobs_recovered,
               counters_.blobs_lost);
  }
  return {};
}

// Of two blobs with one name the later has replaced the other, whose rows a crash kept.
void Store::adopt(DiskTier::Found found, std::vector<BlobPtr>& superseded) {
  auto blob = std::make_shared<StoredBlob>();
  CreateOptions& options = blob->options;
  options.id = found.id;
  options.name_space = std::move(found.row.name_space);
  options.name = std::move(found.row.name);
  options.chunk_size = found.row.chunk_size;
  options.lease = found.row.lease;
  options.durability = Durability::kDisk;
  options.ttl = found.row.ttl;
  options.stripe = found.row.stripe;
  options.note = std::move(found.row.note);
  blob->key = options.name_space + "/" + options.name;
  blob->sealed = blob->has_rows = true;
  blob->sealed_size = found.row.size;
  blob->sealed_chunks = found.row.chunk_count;
  blob->root_digest = found.row.root_digest;
  blob->sequence = found.row.sequence;
  blob->created_at = clock_.now();
  blob->share = share_of(options.name_space);
  shares_.try_emplace(options.name_space, blob->share);
  ++blob->share->blobs;
  blob->chunks.reserve(found.chunks.size());
  for (ChunkRow& row : found.chunks) {
    StoredChunk& chunk = blob->chunks[row.meta.index];
    chunk.blob = blob.get();
    chunk.meta = row.meta;
    chunk.runs = std::move(row.runs);
    chunk.on_disk = true;
    chunk.disk_bytes = chunk.charged = chunk.disk_charged = whole_pages(row.meta.stored_size);
    chunk.version = ++versions_;
    add_used(*blob, static_cast<int64_t>(chunk.charged));
    homes_on_disk_ += chunk.disk_charged;
    count(chunk);
    ++chunks_;
  }
  ++home_chunk_sizes_[options.chunk_size];
  sequences_ = std::max(sequences_, blob->sequence);
  add_blob(blob);
  if (!blob->has_name()) return;
  start_ttl(*blob);
  const auto [name, is_free] = names_.try_emplace(blob->key, options.id);
  if (is_free) return;
  const BlobPtr other = blobs_.at(name->second);
  superseded.push_back(other->sequence < blob->sequence ? other : blob);
  if (superseded.back() == other) name->second = options.id;
}

std::vector<BlobStat> Store::noted() const {
  std::vector<BlobStat> result;
  const Lock lock(mutex_);
  for (const auto& [id, blob] : blobs_) {
    if (blob->is_home() && blob->sealed && !blob->options.note.empty()) {
      result.push_back(stat_of(*blob));
    }
  }
  return result;
}

std::vector<LeaseId> Store::leases() const {
  std::set<LeaseId> leases;
  const Lock lock(mutex_);
  for (const auto& [id, blob] : blobs_) {
    if (!blob->options.lease.is_zero()) leases.insert(blob->options.lease);
  }
  return {leases.begin(), leases.end()};
}

}  // namespace bigcast
