#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/log.h"
#include "blobstore/store.h"

// What is damaged is found before somebody needs it, and mended from wherever the same bytes are.
// Chunks in memory are not looked at: whoever gets them verifies them, and they are read often.
namespace bigcast {

ScrubTurn Store::scrub(uint64_t bytes) {
  ScrubTurn turn;
  while (disk_ && (turn.bytes == 0 || turn.bytes < bytes)) {
    uint32_t index = 0;
    if (const BlobPtr blob = next_to_scrub(index)) {
      turn.bytes += scrub_chunk(blob, index);
      continue;
    }
    if (const auto verified = disk_->verify_index(); !verified) {
      log().error("disk tier: its index: {}", verified.error().message);
    }
    turn.bytes += limits::kExtentSize;  // as much trouble, so that an empty store has a pause, too
    const Lock lock(mutex_);
    ++counters_.scrub_cycles;
    turn.cycle_ended = true;
    break;
  }
  return turn;
}

// In the order in which blobs were created. Null: all were looked at, and the next call begins
// anew.
Store::BlobPtr Store::next_to_scrub(uint32_t& index) {
  const Lock lock(mutex_);
  while (true) {
    if (!scrub_left_.empty()) {
      index = scrub_left_.back();
      scrub_left_.pop_back();
      const auto it = by_serial_.find(scrub_serial_);
      if (it != by_serial_.end()) return it->second;
      scrub_left_.clear();
    }
    const auto next = by_serial_.upper_bound(scrub_serial_);
    if (next == by_serial_.end()) {
      scrub_serial_ = 0;
      return nullptr;
    }
    scrub_serial_ = next->first;
    for (const auto& [number, chunk] : next->second->chunks) {
      if (chunk.on_disk) scrub_left_.push_back(number);
    }
    std::sort(scrub_left_.begin(), scrub_left_.end(), std::greater<>());
  }
}

// Returns how many bytes that took.
uint64_t Store::scrub_chunk(const BlobPtr& blob, uint32_t index) {
  Lock lock(mutex_);
  const auto it = blob->chunks.find(index);
  if (it == blob->chunks.end() || !it->second.on_disk || it->second.doomed) return 0;
  Source source;
  source.meta = it->second.meta;
  source.version = it->second.version;
  source.runs = it->second.runs;
  source.damaged = it->second.damaged;
  lock.unlock();
  const auto digest = disk_->digest(source.runs, source.meta.stored_size);
  lock.lock();
  ++counters_.chunks_scrubbed;
  if (digest && *digest == source.meta.digest) {
    on_good_copy(blob, source);
  } else if (!source.damaged) {
    const Error differs{ErrorCode::kCorrupt, fmt::format("chunk {}: checksum differs", index)};
    on_bad_copy(lock, blob, source, digest ? differs : digest.error());
  }
  return source.meta.stored_size;
}

// The chunk's bytes on disk are not what they should be, or can't be read.
void Store::on_bad_copy(Lock& lock, const BlobPtr& blob, const Source& source, Error error) {
  StoredChunk* const found = unmoved(*blob, source);
  if (found == nullptr) return;
  StoredChunk& chunk = *found;
  if (!chunk.on_disk) return;  // its place was given to others
  if (!chunk.in_memory) {
    lock.unlock();
    static_cast<void>(read_failed(blob->options.id, source, std::move(error)));
    lock.lock();
    return;
  }
  if (chunk.busy) return;  // the next cycle finds it
  if (!chunk.only_in_memory) {
    if (error.code == ErrorCode::kCorrupt) ++counters_.checksum_failures;
    log().warn("damaged blob {}: on disk, {}; memory has it", blob->key, error.message);
  }
  if (!blob->is_durable()) return free_copy_of(lock, blob, chunk);
  unlist(chunk);
  chunk.busy = true;
  const Source memory = source_of(*blob, chunk);
  const auto rewritten = rewrite(lock, blob, chunk, copying(memory));
  if (rewritten) ++counters_.chunks_repaired;
  chunk.only_in_memory = !rewritten;
  if (chunk.doomed) return discard(lock, blob, chunk);
  settle(chunk);
}

// What could not be read, or not be written anew, is whole after all.
void Store::on_good_copy(const BlobPtr& blob, const Source& source) {
  StoredChunk* const chunk = unmoved(*blob, source);
  if (chunk == nullptr) return;
  if (source.damaged) {
    end_damage(*chunk);
    blob->is_damaged = false;
    log().info("blob {}: chunk {} is whole after all", blob->key, source.meta.index);
  }
  if (!std::exchange(chunk->only_in_memory, false) || chunk->busy) return;
  make_evictable(*chunk);
  changed_.notify_all();
}

// Requires: the caller moves the chunk. Its rows, if there are any, stay true.
Result<void> Store::rewrite(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                            const DiskTier::Source& source) {
  const DiskRuns runs = chunk.runs;
  const ChunkMeta meta = chunk.meta;
  begin_move();
  lock.unlock();
  auto written = disk_->rewrite(runs, meta.stored_size, source);
  if (written) {
    const auto digest = disk_->digest(runs, meta.stored_size);
    if (!digest) written = tl::unexpected<Error>(digest.error());
    if (digest && *digest != meta.digest) {
      written = fail(ErrorCode::kCorrupt, fmt::format("chunk {}: written anew, its checksum "
                                                      "differs",
                                                      meta.index));
    }
  }
  lock.lock();
  end_move(false);
  if (!written) {
    log().error("damaged blob {}: writing it anew: {}", blob->key, written.error().message);
  }
  return written;
}

// ---- Quarantine.

// The lock is not held while it logs, so that is the last step.
void Store::quarantine(Lock& lock, StoredChunk& chunk, const Error& why) {
  if (std::exchange(chunk.damaged, true)) return;  // another reader found it, too
  ++counters_.chunks_quarantined;
  damaged_.emplace(chunk.blob->options.id, chunk.meta.index);
  if (std::exchange(chunk.blob->is_damaged, true)) return;
  const bool names_it = why.code == ErrorCode::kCorrupt;
  const std::string which = names_it ? "" : fmt::format("chunk {}: ", chunk.meta.index);
  const std::string key = chunk.blob->key;
  lock.unlock();
  log().error("damaged blob {}: {}{}", key, which, why.message);
  lock.lock();
}

void Store::end_damage(StoredChunk& chunk) {
  if (!std::exchange(chunk.damaged, false)) return;
  damaged_.erase({chunk.blob->options.id, chunk.meta.index});
}

std::vector<DamagedChunk> Store::damaged_chunks(size_t limit, const DamagedChunk* after) const {
  std::vector<DamagedChunk> result;
  const Lock lock(mutex_);
  auto it =
      after == nullptr ? damaged_.begin() : damaged_.upper_bound({after->id, after->meta.index});
  for (; it != damaged_.end() && result.size() < limit; ++it) {
    result.push_back({it->first, blobs_.at(it->first)->chunks.at(it->second).meta});
  }
  return result;
}

// Requires: the chunk is damaged, and `stored` verified.
Result<void> Store::repair(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                           std::span<const std::byte> stored) {
  if (chunk.busy || chunk.doomed) return fail(ErrorCode::kUnavailable, "the chunk is being moved");
  if (blob->frozen && chunk.in_memory) {
    return fail(ErrorCode::kUnavailable, "a mapped blob's bytes can't be written anew");
  }
  unlist(chunk);
  chunk.busy = true;
  Result<void> repaired;
  if (chunk.on_disk) {
    repaired = rewrite(lock, blob, chunk, copying(stored));
  } else {
    chunk.in_memory = false;
    free_pages(lock, blob, chunk);
    repaired = make_room(lock, chunk);
    if (repaired) repaired = write_chunk(lock, blob, chunk, stored);
  }
  if (chunk.doomed) {
    discard(lock, blob, chunk);
    return fail(ErrorCode::kNotFound, "the blob was removed meanwhile");
  }
  if (repaired) {
    end_damage(chunk);
    blob->is_damaged = false;  // the next one is told again
    chunk.version = ++versions_;
    ++counters_.chunks_repaired;
  }
  settle(chunk);
  return repaired;
}

}  // namespace bigcast
