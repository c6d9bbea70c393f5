#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "blobstore/store.h"

// Homes are promised room: what they use and what they reserved never exceeds both budgets. What
// is left over is whole chunks' worth in neither tier, so with two tiers one chunk is kept free;
// then a put always finds a victim that fits on disk. Relays' chunks are never in the way: they
// are dropped.
namespace bigcast {

Result<void> Store::admit(uint64_t bytes, uint32_t chunk_size) const {
  if (bytes == 0) return {};
  const uint64_t disk_budget = disk_ ? disk_->budget() : 0;
  const uint32_t largest = home_chunk_sizes_.empty()
                               ? chunk_size
                               : std::max(chunk_size, home_chunk_sizes_.rbegin()->first);
  const uint64_t promised = homes_used_ + reserved_ + (disk_ ? largest : 0);
  const uint64_t capacity = memory_budget_ + disk_budget;
  if (promised <= capacity && bytes <= capacity - promised) return {};
  return fail(ErrorCode::kResourceExhausted,
              fmt::format("{} bytes do not fit: memory budget {} and disk budget {}, of which {} "
                          "are used or reserved",
                          bytes, memory_budget_, disk_budget, homes_used_ + reserved_));
}

Result<uint64_t> Store::charge(StoredBlob& blob, StoredChunk& chunk) {
  const uint64_t needed = whole_pages(chunk.meta.stored_size);
  // A declared size was reserved as raw bytes; a step, as the stored bytes that the writer
  // announced.
  const uint64_t covers =
      blob.options.size ? whole_pages(chunk.meta.raw_size) : whole_pages(chunk.meta.stored_size);
  const uint64_t drawn = std::min(blob.reserved_left, covers);
  if (needed > drawn) BIGCAST_TRY(admit(needed - drawn, blob.options.chunk_size));
  blob.reserved_left -= drawn;
  reserved_ -= drawn;
  chunk.charged = needed;
  homes_used_ += needed;
  return drawn;
}

void Store::cancel_reservation(StoredBlob& blob) {
  reserved_ -= blob.reserved_left;
  blob.reserved_left = 0;
}

void Store::end_move(bool settled) {
  --moving_;
  if (settled) ++settled_;
  changed_.notify_all();
}

// Returns with room in memory for the chunk, and the lock held since it was found.
Result<void> Store::make_room(Lock& lock, const StoredChunk& chunk) {
  const StoredBlob& blob = *chunk.blob;
  const bool small = rests_small(blob, chunk.meta);
  const uint64_t needed = whole_pages(chunk.meta.stored_size);
  while (!chunk.doomed) {
    const uint64_t spare = small ? 0 : spare_at(blob, chunk.meta.index);
    if (memory_used_ + spare_bytes_ - spare + needed <= memory_budget_) return {};
    if (give_up_spare(lock)) continue;
    if (chunk.unread) return fail(ErrorCode::kResourceExhausted, "no memory is free");
    const uint64_t before = settled_;
    BIGCAST_ASSIGN(const bool evicted, evict_one(lock));
    if (evicted || settled_ != before) continue;
    if (moving_ == 0) {
      return fail(
          ErrorCode::kResourceExhausted,
          fmt::format("memory budget: {} bytes are full and nothing can leave", memory_budget_));
    }
    changed_.wait(lock);
  }
  return fail(ErrorCode::kNotFound, "the blob was removed meanwhile");
}

// False if nothing can leave now; an error if that is a disk's fault.
Result<bool> Store::evict_one(Lock& lock) {
  if (const auto unread = unread_victims_->evict()) {
    drop(lock, *unread);
    return true;
  }
  const auto entry = victims_->evict();
  if (!entry) return false;
  auto& chunk = chunk_of(*entry);
  unlist(chunk);
  const BlobPtr blob = blobs_.at(chunk.blob->options.id);
  chunk.busy = true;
  const auto demoted = demote(lock, blob, chunk);
  if (demoted) return true;
  if (!blob->is_home() || chunk.doomed) {
    if (!chunk.doomed) ++counters_.chunks_dropped;
    discard(lock, blob, chunk);
    return true;
  }
  chunk.busy = false;
  make_evictable(chunk);
  changed_.notify_all();
  if (const auto relay = relay_victims_->evict()) {
    drop(lock, *relay);
    return true;
  }
  if (demoted.error().code == ErrorCode::kResourceExhausted) return false;
  return tl::unexpected<Error>(demoted.error());
}

// Drops a relay's chunk that a policy gave.
void Store::drop(Lock& lock, eviction::Policy::Entry entry) {
  auto& chunk = chunk_of(entry);
  unlist(chunk);
  chunk.busy = true;
  ++counters_.chunks_dropped;
  const BlobPtr blob = blobs_.at(chunk.blob->options.id);
  discard(lock, blob, chunk);
}

// Requires: the caller moves the chunk, and still does if this fails; else the chunk is settled,
// or gone if it was doomed meanwhile.
Result<void> Store::demote(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  if (!disk_) return fail(ErrorCode::kResourceExhausted, "there is no disk tier");
  begin_move();
  auto runs = write_to_disk(lock, blob, chunk);
  if (!runs) {
    end_move(false);
    return tl::unexpected<Error>(std::move(runs).error());
  }
  chunk.runs = std::move(*runs);
  chunk.disk_bytes = whole_pages(chunk.meta.stored_size);
  chunk.on_disk = true;
  chunk.in_memory = false;
  chunk.version = ++versions_;
  count(chunk);
  ++counters_.chunks_demoted;
  free_pages(lock, blob, chunk);
  if (chunk.doomed) {
    discard(lock, blob, chunk);
  } else {
    chunk.busy = false;
    make_evictable(chunk);
  }
  end_move(true);
  return {};
}

// Writes the bytes and, of a home, the row. A home's chunk pushes relays' off the disk.
Result<DiskRuns> Store::write_to_disk(Lock& lock, const BlobPtr& blob, const StoredChunk& chunk) {
  const Source source = source_of(*blob, chunk);
  const auto copy = [&source](uint64_t offset, std::span<std::byte> buffer) -> Result<void> {
    if (!source.small) return source.memory_file->read(source.offset + offset, buffer);
    const auto from = source.small->begin() + static_cast<ptrdiff_t>(offset);
    std::copy(from, from + static_cast<ptrdiff_t>(buffer.size()), buffer.begin());
    return {};
  };
  const bool home = blob->is_home();
  if (home) blob->has_rows = true;
  while (true) {
    lock.unlock();
    auto runs = disk_->write(source.meta.stored_size, copy);
    if (runs && home) {
      const auto indexed = disk_->index().put_chunk(blob->options.id, source.meta, *runs);
      if (!indexed) {
        disk_->release(*runs);
        runs = tl::unexpected<Error>(indexed.error());
      }
    }
    lock.lock();
    if (runs || !home || runs.error().code != ErrorCode::kResourceExhausted) return runs;
    const auto relay = disk_victims_->evict();
    if (!relay) return runs;
    drop(lock, *relay);
  }
}

void Store::make_evictable(StoredChunk& chunk) {
  const auto entry = entry_of(chunk);
  const bool home = chunk.blob->is_home();
  if (chunk.views > 0) return;
  if (!chunk.in_memory) {
    if (!home) disk_victims_->insert(entry, chunk.disk_bytes);
    return;
  }
  if (chunk.unread) {
    unread_victims_->insert(entry, chunk.pages);
    return;
  }
  if (!home) relay_victims_->insert(entry, chunk.pages);
  if (!home || disk_) victims_->insert(entry, chunk.pages);
}

void Store::unlist(StoredChunk& chunk) {
  const auto entry = entry_of(chunk);
  victims_->erase(entry);
  relay_victims_->erase(entry);
  disk_victims_->erase(entry);
  unread_victims_->erase(entry);
}

}  // namespace bigcast
