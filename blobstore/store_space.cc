#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "blobstore/store.h"

// Homes are promised room: what they use and what they reserved never exceeds both budgets. What
// is left over is whole chunks' worth in neither tier, so with two tiers one chunk is kept free;
// then a put always finds a victim that fits on disk. Relays' chunks are never in the way: they
// are dropped. Durable blobs are promised room on disk as well, which demotions leave alone; what
// the memory holds of them beside that is in nobody's way either.
namespace bigcast {

Result<void> Store::admit(const StoredBlob& blob, uint64_t bytes) const {
  if (bytes == 0) return {};
  BIGCAST_TRY(check_quota(blob.share->usage, bytes));
  return check_budgets(bytes, blob.options.chunk_size, blob.is_durable());
}

Result<void> Store::check_budgets(uint64_t bytes, uint32_t chunk_size, bool durable) const {
  const uint64_t disk_budget = disk_ ? disk_->budget() : 0;
  // Nothing more goes to a disk that has failed, or that a start with a smaller budget found full.
  const uint64_t disk_limit = disk_ && disk_->is_read_only() ? homes_on_disk_ : disk_budget;
  const uint64_t disk_room = std::max(disk_limit, homes_on_disk_);
  const uint32_t largest = home_chunk_sizes_.empty()
                               ? chunk_size
                               : std::max(chunk_size, home_chunk_sizes_.rbegin()->first);
  const uint64_t promised = homes_used_ + reserved_ + held_beyond_ + (disk_ ? largest : 0);
  const uint64_t capacity = memory_budget_ + disk_room;
  const uint64_t on_disk = homes_on_disk_ - homes_copied_ + reserved_on_disk_;
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

Result<void> Store::check_quota(const NamespaceUsage& usage, uint64_t bytes) const {
  const uint64_t taken = usage.used + usage.reserved;
  if (usage.quota == 0 || (taken <= usage.quota && bytes <= usage.quota - taken)) return {};
  return fail(
      ErrorCode::kResourceExhausted,
      fmt::format("namespace '{}': {} bytes do not fit its quota of {}, of which {} are used "
                  "or reserved",
                  usage.name, bytes, usage.quota, taken));
}

void Store::add_used(StoredBlob& blob, int64_t bytes) {
  if (!blob.share) return;
  homes_used_ += static_cast<uint64_t>(bytes);
  blob.share->usage.used += static_cast<uint64_t>(bytes);
  drop_share_if_idle(*blob.share);
}

void Store::add_reserved(StoredBlob& blob, int64_t bytes) {
  if (!blob.share) return;
  blob.reserved_left += static_cast<uint64_t>(bytes);
  reserved_ += static_cast<uint64_t>(bytes);
  blob.share->usage.reserved += static_cast<uint64_t>(bytes);
  if (blob.is_durable()) reserved_on_disk_ += static_cast<uint64_t>(bytes);
}

void Store::apply_quota(NamespaceUsage& usage) const {
  const auto quota = quotas_.find(usage.name);
  usage.has_own_quota = quota != quotas_.end();
  usage.quota = usage.has_own_quota ? quota->second : default_quota_;
}

void Store::set_quotas(std::map<std::string, uint64_t, std::less<>> quotas,
                       uint64_t default_quota) {
  const Lock lock(mutex_);
  quotas_ = std::move(quotas);
  default_quota_ = default_quota;
  for (const auto& [name, share] : shares_) apply_quota(share->usage);
}

std::shared_ptr<NamespaceShare> Store::share_of(const std::string& name_space) {
  const auto found = shares_.find(name_space);
  if (found != shares_.end()) return found->second;
  auto share = std::make_shared<NamespaceShare>();
  share->usage.name = name_space;
  apply_quota(share->usage);
  return share;
}

void Store::leave_share(StoredBlob& blob) {
  --blob.share->blobs;
  drop_share_if_idle(*blob.share);
}

// Chunks that are still being moved leave it after their blob, and until then it must be found.
void Store::drop_share_if_idle(const NamespaceShare& share) {
  if (share.blobs > 0 || share.usage.used > 0) return;
  const auto found = shares_.find(share.usage.name);
  if (found != shares_.end() && found->second.get() == &share) shares_.erase(found);
}

Result<uint64_t> Store::charge(StoredBlob& blob, StoredChunk& chunk) {
  const uint64_t needed = whole_pages(chunk.meta.stored_size);
  // A declared size was reserved as raw bytes; a step, as the stored bytes that the writer
  // announced.
  const uint64_t covers =
      blob.options.size ? whole_pages(chunk.meta.raw_size) : whole_pages(chunk.meta.stored_size);
  const uint64_t drawn = std::min(blob.reserved_left, covers);
  if (needed > drawn) {
    BIGCAST_TRY(admit(blob, needed - drawn));
  }
  add_reserved(blob, -static_cast<int64_t>(drawn));
  chunk.charged = needed;
  add_used(blob, static_cast<int64_t>(needed));
  if (blob.is_durable()) {
    chunk.disk_charged = needed;
    homes_on_disk_ += needed;
  }
  return drawn;
}

void Store::cancel_reservation(StoredBlob& blob) {
  add_reserved(blob, -static_cast<int64_t>(blob.reserved_left));
}

void Store::end_move(bool settled) {
  --moving_;
  if (settled) ++settled_;
  changed_.notify_all();
}

bool Store::fits_in_memory(const StoredChunk& chunk) const {
  const StoredBlob& blob = *chunk.blob;
  const uint64_t needed = whole_pages(chunk.meta.stored_size);
  // Pages that its place has already.
  uint64_t there = rests_small(blob, chunk.meta) ? 0 : spare_at(blob, chunk.meta.index);
  if (blob.frozen) there = needed;
  return memory_used_ + spare_bytes_ - there + needed <= memory_budget_;
}

// ---- Ahead of need.

// Only what can go to disk leaves ahead of need, or is there already.
bool Store::is_above_mark() const {
  if (!disk_ || disk_->is_read_only()) return false;
  const uint64_t taken = std::max(disk_->used() - std::min(disk_->used(), copied_),
                                  homes_on_disk_ - homes_copied_ + reserved_on_disk_);
  if (taken + limits::kChunkSizeMax > disk_->budget()) return false;
  return memory_used_ > (making_room_ ? low_mark_ : high_mark_) ||
         memory_used_ + room_wanted_ > memory_budget_;
}

bool Store::wants_room_ahead() const {
  const Lock lock(mutex_);
  return is_above_mark();
}

bool Store::make_room_ahead() {
  Lock lock(mutex_);
  making_room_ = is_above_mark();
  for (uint32_t moved = 0; making_room_ && moved < limits::kDemotionsPerTurn; ++moved) {
    const auto evicted = evict_one(lock);
    making_room_ = evicted && *evicted && is_above_mark();
  }
  if (!making_room_) room_wanted_ = 0;
  return making_room_;
}

// ---- For a chunk that comes.

// Returns with room in memory for the chunk, and the lock held since it was found.
Result<void> Store::make_room(Lock& lock, const StoredChunk& chunk) {
  const uint64_t needed = whole_pages(chunk.meta.stored_size);
  victims_->expect(entry_of(chunk), needed);
  const bool is_ahead = chunk.unread && !chunk.blob->frozen;
  while (!chunk.doomed) {
    if (is_ahead && memory_used_ + needed > unread_max()) {
      return fail(ErrorCode::kResourceExhausted, "no memory is free");
    }
    if (fits_in_memory(chunk)) return {};
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

// Sets aside what is viewed or pinned: whatever ends that lists it again.
Store::Victim Store::next_victim(eviction::Policy& policy) {
  while (const auto entry = policy.evict()) {
    const BlobPtr& blob = by_serial_.at(eviction::blob_of(*entry));
    StoredChunk& chunk = blob->chunks.at(eviction::chunk_of(*entry));
    if (chunk.views == 0 && blob->pins == 0) {
      unlist(chunk);
      return {blob, &chunk};
    }
    set_aside(chunk);
  }
  return {};
}

// False if nothing can leave now; an error if that is a disk's fault.
Result<bool> Store::evict_one(Lock& lock) {
  const Victim victim = next_victim(*victims_);
  if (victim.chunk == nullptr) return false;
  const BlobPtr& blob = victim.blob;
  StoredChunk& chunk = *victim.chunk;
  if (chunk.unread) {  // not worth a write
    drop(lock, victim);
    return true;
  }
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
  settle(chunk);
  if (const Victim other = next_victim(*relay_victims_); other.chunk != nullptr) {
    drop(lock, other);
    return true;
  }
  if (demoted.error().code == ErrorCode::kResourceExhausted) return false;
  return tl::unexpected<Error>(demoted.error());
}

// Drops a chunk that a policy gave: a relay's, or a home's from memory that is on disk, too.
void Store::drop(Lock& lock, const Victim& victim) {
  victim.chunk->busy = true;
  if (victim.blob->is_home()) return leave_memory(lock, victim.blob, *victim.chunk);
  ++counters_.chunks_dropped;
  discard(lock, victim.blob, *victim.chunk);
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

DiskTier::Source Store::copying(std::span<const std::byte> stored) {
  return {[stored](uint64_t offset, std::span<std::byte> buffer) -> Result<void> {
    std::memcpy(buffer.data(), stored.data() + offset, buffer.size());
    return {};
  }};
}

DiskTier::Source Store::copying(const Source& source) {
  if (source.small) return copying(*source.small);
  const auto copy = [&source](uint64_t offset, std::span<std::byte> buffer) {
    return source.memory_file->read(source.offset + offset, buffer);
  };
  const auto memory_file = [&source] {
    return source.memory_file->descriptor_up_to(source.offset +
                                                whole_pages(source.meta.stored_size));
  };
  return {copy, memory_file, source.offset};
}

// Requires: the caller moves the chunk, and still does if this fails; else as leave_memory.
Result<void> Store::demote(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  if (!disk_) return fail(ErrorCode::kResourceExhausted, "there is no disk tier");
  const uint64_t needed = whole_pages(chunk.meta.stored_size);
  if (blob->is_home()) {
    while (homes_on_disk_ + reserved_on_disk_ + needed > disk_->budget()) {
      if (free_copy(lock)) continue;
      return fail(ErrorCode::kResourceExhausted, "disk budget: the rest is durable blobs'");
    }
    homes_on_disk_ += chunk.disk_charged = needed;
  }
  const Source source = source_of(*blob, chunk);
  auto written = write_to_disk(lock, blob, chunk, copying(source));
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
    const bool is_full = runs.error().code == ErrorCode::kResourceExhausted;
    if (is_full && free_copy(lock)) continue;
    const auto relay = blob->is_home() && is_full ? next_victim(*disk_victims_) : Victim();
    if (relay.chunk == nullptr) {
      end_move(false);
      return tl::unexpected<Error>(std::move(runs).error());
    }
    drop(lock, relay);
  }
}

void Store::make_evictable(StoredChunk& chunk) {
  const auto entry = entry_of(chunk);
  const bool home = chunk.blob->is_home();
  list_copy(chunk, chunk.in_memory && chunk.on_disk && !chunk.blob->is_durable());
  const bool stays = chunk.blob->pins > 0 || chunk.only_in_memory;
  const bool held = chunk.views > 0 || chunk.blob->held || (chunk.in_memory && stays);
  if (chunk.listed || held) return;
  chunk.listed = true;
  if (!chunk.in_memory) {
    if (!home) disk_victims_->insert(entry, chunk.disk_bytes);
    return;
  }
  if (!home || chunk.on_disk) relay_victims_->insert(entry, chunk.pages);
  if (!home || disk_) victims_->insert(entry, chunk.pages);
  if (!chunk.unread) return;
  for (eviction::Policy* policy : policies_) policy->mark_prefetched(entry);
}

void Store::unlist(StoredChunk& chunk) {
  set_aside(chunk);
  list_copy(chunk, false);
}

void Store::set_aside(StoredChunk& chunk) {
  if (!chunk.listed) return;
  chunk.listed = false;
  for (eviction::Policy* policy : policies_) policy->erase(entry_of(chunk));
}

void Store::list_copy(StoredChunk& chunk, bool is_copy) {
  if (chunk.is_copy == is_copy) return;
  chunk.is_copy = is_copy;
  if (is_copy) {
    copies_->insert(entry_of(chunk), chunk.disk_bytes);
    copied_ += chunk.disk_bytes;
    homes_copied_ += chunk.disk_charged;
  } else {
    copies_->erase(entry_of(chunk));
    copied_ -= chunk.disk_bytes;
    homes_copied_ -= chunk.disk_charged;
  }
}

// The chunk stays where it is in memory, with its readers and its place in the policies.
bool Store::free_copy(Lock& lock) {
  const auto entry = copies_->evict();
  if (!entry) return false;
  const BlobPtr blob = by_serial_.at(eviction::blob_of(*entry));
  free_copy_of(lock, blob, blob->chunks.at(eviction::chunk_of(*entry)));
  return true;
}

void Store::free_copy_of(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  list_copy(chunk, false);
  if (blob->is_home()) relay_victims_->erase(entry_of(chunk));  // it takes a write again
  blob->withhold(chunk);
  chunk.on_disk = false;
  chunk.disk_bytes = 0;
  count(chunk);
  begin_move();
  release_withheld(lock, blob);
  end_move(true);
}

// ---- What the policies are told of the readers.

void Store::count_read(StoredChunk& chunk, uint64_t stream) {
  chunk.unread = false;
  for (eviction::Policy* policy : policies_) {
    policy->hit(entry_of(chunk));
    if (stream != 0) policy->advance_stream(stream, chunk.meta.index);
  }
}

Result<uint64_t> Store::open_stream(BlobId id, ReadOrder order) {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  const uint64_t stream = ++streams_;
  for (eviction::Policy* policy : policies_) policy->open_stream(stream, blob->serial, order);
  return stream;
}

void Store::close_stream(uint64_t stream) {
  const Lock lock(mutex_);
  for (eviction::Policy* policy : policies_) policy->close_stream(stream);
}

void Store::release(BlobId id) {
  const Lock lock(mutex_);
  const auto blob = find_blob(id);
  if (!blob) return;
  for (eviction::Policy* policy : policies_) policy->release_blob((*blob)->serial);
}

// ---- Pins.

Result<void> Store::pin(BlobId id) {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  if (!blob->is_home()) {
    return fail(ErrorCode::kInvalidArgument,
                "pin: a relay's copy can't be pinned, only the home's");
  }
  if (!blob->sealed) return fail(ErrorCode::kInvalidArgument, "pin: the blob is not sealed yet");
  if (blob->pins == 0) {
    const uint64_t bytes = blob->total.stored + blob->total.chunks * kPage;
    const uint64_t limit = memory_budget_ / limits::kPinnedShare;
    const uint64_t taken = pinned_ + held_;  // together: the rest is for all others
    if (bytes > limit - std::min(limit, taken)) {
      return fail(
          ErrorCode::kResourceExhausted,
          fmt::format("pin: {} bytes do not fit: pins may hold {} of the memory budget, and "
                      "hold {}",
                      bytes, limit, taken));
    }
    pinned_ += blob->pinned_bytes = bytes;
  }
  ++blob->pins;
  return {};
}

void Store::unpin(BlobId id) {
  const Lock lock(mutex_);
  const auto found = find_blob(id);
  if (!found || (*found)->pins == 0 || --(*found)->pins > 0) return;
  StoredBlob& blob = **found;
  pinned_ -= std::exchange(blob.pinned_bytes, 0);
  for (auto& [index, chunk] : blob.chunks) {
    if (chunk.readable() && !chunk.busy) make_evictable(chunk);
  }
  changed_.notify_all();
}

}  // namespace bigcast
