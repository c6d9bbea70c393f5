#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "blobstore/store.h"

// Homes are promised room: what they use and what they reserved never exceeds both budgets. What
// is left over is whole chunks' worth in neither tier, so with two tiers one chunk is kept free;
// then a put always finds a victim that fits on disk. Relays' chunks are never in the way: they
// are dropped. Durable blobs are promised room on disk as well, which demotions leave alone; what
// the memory holds of them beside that is in nobody's way either.
namespace bigcast {

Result<void> Store::admit(uint64_t bytes, uint32_t chunk_size, bool durable) const {
  if (bytes == 0) return {};
  const uint64_t disk_budget = disk_ ? disk_->budget() : 0;
  // Nothing more goes to a disk that has failed, or that a start with a smaller budget found full.
  const uint64_t disk_limit = disk_ && disk_->is_read_only() ? homes_on_disk_ : disk_budget;
  const uint64_t disk_room = std::max(disk_limit, homes_on_disk_);
  const uint32_t largest = home_chunk_sizes_.empty()
                               ? chunk_size
                               : std::max(chunk_size, home_chunk_sizes_.rbegin()->first);
  const uint64_t promised = homes_used_ + reserved_ + (disk_ ? largest : 0);
  const uint64_t capacity = memory_budget_ + disk_room;
  const uint64_t on_disk = homes_on_disk_ + reserved_on_disk_;
  const bool fits = promised <= capacity && bytes <= capacity - promised;
  const bool fits_on_disk = on_disk <= disk_limit && bytes <= disk_limit - on_disk;
  if (fits && (fits_on_disk || !durable)) return {};
  if (fits) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("{} bytes do not fit on disk: disk budget {}, of which {} are used or "
                            "reserved",
                            bytes, disk_budget, on_disk));
  }
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
  if (needed > drawn) {
    BIGCAST_TRY(admit(needed - drawn, blob.options.chunk_size, blob.is_durable()));
  }
  blob.reserved_left -= drawn;
  reserved_ -= drawn;
  chunk.charged = needed;
  homes_used_ += needed;
  if (blob.is_durable()) {
    reserved_on_disk_ -= drawn;
    chunk.disk_charged = needed;
    homes_on_disk_ += needed;
  }
  return drawn;
}

void Store::cancel_reservation(StoredBlob& blob) {
  reserved_ -= blob.reserved_left;
  if (blob.is_durable()) reserved_on_disk_ -= blob.reserved_left;
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
  if (chunk.on_disk) {
    leave_memory(lock, blob, chunk);
    return true;
  }
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
  if (const auto other = relay_victims_->evict()) {
    drop(lock, *other);
    return true;
  }
  if (demoted.error().code == ErrorCode::kResourceExhausted) return false;
  return tl::unexpected<Error>(demoted.error());
}

// Drops a chunk that a policy gave: a relay's, or a home's from memory that is on disk, too.
void Store::drop(Lock& lock, eviction::Policy::Entry entry) {
  auto& chunk = chunk_of(entry);
  unlist(chunk);
  chunk.busy = true;
  const BlobPtr blob = blobs_.at(chunk.blob->options.id);
  if (blob->is_home()) return leave_memory(lock, blob, chunk);
  ++counters_.chunks_dropped;
  discard(lock, blob, chunk);
}

// Requires: the caller moves the chunk, which is on disk, too. Then it is settled, or gone if it
// was doomed meanwhile.
void Store::leave_memory(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  begin_move();
  chunk.in_memory = false;
  chunk.version = ++versions_;
  count(chunk);
  free_pages(lock, blob, chunk);
  if (chunk.doomed) {
    discard(lock, blob, chunk);
  } else {
    chunk.busy = false;
    make_evictable(chunk);
  }
  end_move(true);
}

// Requires: the caller moves the chunk, and still does if this fails; else as leave_memory.
Result<void> Store::demote(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  if (!disk_) return fail(ErrorCode::kResourceExhausted, "there is no disk tier");
  const uint64_t needed = whole_pages(chunk.meta.stored_size);
  if (blob->is_home()) {
    if (homes_on_disk_ + reserved_on_disk_ + needed > disk_->budget()) {
      return fail(ErrorCode::kResourceExhausted, "disk budget: the rest is durable blobs'");
    }
    homes_on_disk_ += chunk.disk_charged = needed;
  }
  const Source source = source_of(*blob, chunk);
  const auto copy = [&source](uint64_t offset, std::span<std::byte> buffer) -> Result<void> {
    if (!source.small) return source.memory_file->read(source.offset + offset, buffer);
    const auto from = source.small->begin() + static_cast<ptrdiff_t>(offset);
    std::copy(from, from + static_cast<ptrdiff_t>(buffer.size()), buffer.begin());
    return {};
  };
  auto written = write_to_disk(lock, blob, chunk, copy);
  if (!written) {
    homes_on_disk_ -= std::exchange(chunk.disk_charged, 0);
    return written;
  }
  ++counters_.chunks_demoted;
  leave_memory(lock, blob, chunk);
  return {};
}

// Gives the chunk a place on disk. A home's pushes relays' out of the way.
Result<void> Store::write_to_disk(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                                  const DiskTier::Source& copy) {
  begin_move();
  while (true) {
    lock.unlock();
    auto runs = disk_->write(chunk.meta.stored_size, copy);
    lock.lock();
    if (runs) {
      chunk.runs = std::move(*runs);
      chunk.disk_bytes = whole_pages(chunk.meta.stored_size);
      chunk.on_disk = true;
      chunk.version = ++versions_;
      count(chunk);
      end_move(true);
      return {};
    }
    const auto relay = blob->is_home() && runs.error().code == ErrorCode::kResourceExhausted
                           ? disk_victims_->evict()
                           : std::nullopt;
    if (!relay) {
      end_move(false);
      return tl::unexpected<Error>(std::move(runs).error());
    }
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
  if (!home || chunk.on_disk) relay_victims_->insert(entry, chunk.pages);
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
