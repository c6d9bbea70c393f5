#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "blobstore/store.h"

namespace bigcast {

// What the blob's size, if known, says of the chunk. Nothing can overflow: an index is below 2^20
// and a chunk size at most 2^24.
Result<void> Store::check_chunk(const StoredBlob& blob, const ChunkMeta& meta) const {
  const uint32_t chunk_size = blob.options.chunk_size;
  BIGCAST_TRY(check_meta(meta, chunk_size));
  if (blob.options.mappable && meta.codec != Codec::kRaw) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk {}: is compressed, and the blob mappable", meta.index));
  }
  const Stripe& stripe = blob.options.stripe;
  if (!stripe.has(meta.index)) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("chunk {}: is not of stripe {} of {}",
                                                         meta.index, stripe.index, stripe.count));
  }
  const auto size = blob.known_size();
  if (!size) return {};
  const uint64_t offset = uint64_t{meta.index} * chunk_size;
  if (offset >= *size) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk {}: is beyond the blob's {} bytes", meta.index, *size));
  }
  const uint64_t expected = std::min<uint64_t>(chunk_size, *size - offset);
  if (meta.raw_size != expected) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("chunk {}: has {} raw bytes instead of {}",
                                                         meta.index, meta.raw_size, expected));
  }
  return {};
}

Result<void> Store::put_chunk(BlobId id, const ChunkMeta& meta, std::span<const std::byte> stored,
                              Put why) {
  if (stored.size() != meta.stored_size) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk {}: {} bytes were declared, {} came", meta.index,
                            meta.stored_size, stored.size()));
  }
  Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  BIGCAST_TRY(check_chunk(*blob, meta));
  lock.unlock();
  BIGCAST_TRY(verify_chunk(meta, stored));
  lock.lock();
  const auto there = blob->chunks.find(meta.index);
  if (there != blob->chunks.end() && there->second.damaged && there->second.meta == meta) {
    return repair(lock, blob, there->second, stored);
  }
  BIGCAST_ASSIGN(StoredChunk* const chunk, claim(lock, blob, meta));
  if (chunk == nullptr) return {};
  chunk->unread = why == Put::kAhead && !blob->is_home();
  auto filled = fill(lock, blob, *chunk, stored);
  if (filled && !chunk->doomed) {
    settle(*chunk);
    return {};
  }
  discard(lock, blob, *chunk);
  if (!filled) return filled;
  return fail(ErrorCode::kNotFound, "the blob was removed meanwhile");
}

// The caller becomes the mover of a new chunk; null if the same one is stored already.
Result<StoredChunk*> Store::claim(Lock& lock, const BlobPtr& blob, const ChunkMeta& meta) {
  while (true) {
    if (blob->removed) return fail(ErrorCode::kNotFound, "the blob was removed meanwhile");
    BIGCAST_TRY(check_chunk(*blob, meta));  // it may have been sealed
    if (chunks_ >= chunks_max_ && blob->find(meta.index) == nullptr) {
      return fail(ErrorCode::kResourceExhausted,
                  fmt::format("the node holds its limit of {} chunks", chunks_max_));
    }
    const auto [it, is_new] = blob->chunks.try_emplace(meta.index);
    StoredChunk& chunk = it->second;
    if (is_new) {
      ++chunks_;
      chunk.blob = blob.get();
      chunk.meta = meta;
      chunk.busy = true;
      return &chunk;
    }
    if (chunk.readable()) {
      if (chunk.meta == meta) return nullptr;
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("chunk {}: other bytes are stored for it", meta.index));
    }
    changed_.wait(lock);  // another put of it is under way, or it is being freed
  }
}

Result<void> Store::fill(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                         std::span<const std::byte> stored) {
  uint64_t drawn = 0;
  if (blob->is_home()) {
    BIGCAST_ASSIGN(drawn, charge(*blob, chunk));
  }
  if (!rests_small(*blob, chunk.meta)) adopt_parked(*blob);
  Result<void> result;
  if (blob->is_durable()) {
    result = fill_durable(lock, blob, chunk, stored);
  } else {
    result = make_room(lock, chunk);
    if (result) result = write_chunk(lock, blob, chunk, stored);
  }
  if (!result && !blob->removed && !blob->sealed) {
    add_reserved(*blob, static_cast<int64_t>(drawn));
  }
  return result;
}

// A blob's only chunk, if it is small, needs no file of its own.
bool Store::rests_small(const StoredBlob& blob, const ChunkMeta& meta) const {
  const auto size = blob.known_size();
  return !blob.options.mappable && meta.index == 0 &&
         meta.stored_size <= limits::kInlineBlobSizeMax &&
         (meta.raw_size < blob.options.chunk_size || (size && *size == meta.raw_size));
}

// `spare`: bytes of pages that are there already.
Result<void> Store::write_to_file(Memfd& file, uint64_t offset, std::span<const std::byte> stored,
                                  uint64_t spare) {
  const uint64_t needed = whole_pages(stored.size());
  if (spare < needed) {
    if (spare > 0) file.punch(offset, spare);  // what it held must not show behind the chunk
    return file.write(offset, stored);
  }
  if (spare > needed) file.punch(offset + needed, spare - needed);
  return file.overwrite(offset, stored);
}

// Requires: room for it. On failure the caller discards the chunk.
Result<void> Store::write_chunk(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                                std::span<const std::byte> stored) {
  if (blob->frozen) {
    put_back_frozen(*blob, chunk);
    return {};
  }
  const bool small = rests_small(*blob, chunk.meta);
  if (!small && !blob->memory_file) {
    while (descriptors_ >= descriptors_max_ && !parked_.empty()) free_parked(lock);
    if (descriptors_ >= descriptors_max_) {
      return fail(ErrorCode::kResourceExhausted,
                  fmt::format("memory files: {} are open, half of the process's open files limit",
                              descriptors_));
    }
    BIGCAST_ASSIGN(blob->memory_file, Memfd::create("bigcast-" + blob->options.id.to_string()));
    ++descriptors_;
    ++blob->generation;
  }
  const uint64_t spare = small ? 0 : take_spare(*blob, chunk.meta.index);
  chunk.pages = whole_pages(stored.size());
  memory_used_ += chunk.pages;
  if (!small) ++blob->in_memory_file;
  const auto file = blob->memory_file;
  begin_move();
  lock.unlock();
  Result<void> written;
  std::shared_ptr<const std::vector<std::byte>> copy;
  if (small) {
    auto bytes = std::make_shared<std::vector<std::byte>>(whole_words(stored.size()));
    std::copy(stored.begin(), stored.end(), bytes->begin());
    copy = std::move(bytes);
  } else {
    written =
        write_to_file(*file, uint64_t{chunk.meta.index} * blob->options.chunk_size, stored, spare);
  }
  lock.lock();
  chunk.small = std::move(copy);
  chunk.in_memory = written.has_value();
  chunk.version = ++versions_;
  count(chunk);
  end_move(true);
  return written;
}

void Store::discard(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  chunk.doomed = true;
  chunk.version = ++versions_;
  count(chunk);
  end_damage(chunk);
  begin_move();
  free_pages(lock, blob, chunk);
  add_used(*blob, -static_cast<int64_t>(chunk.charged));
  blob->withhold(chunk);
  blob->chunks.erase(chunk.meta.index);
  --chunks_;
  release_withheld(lock, blob);
  end_move(true);
}

void Store::free_pages(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  if (chunk.pages == 0) return;
  if (blob->frozen) {
    leave_frozen(*blob, chunk);
    count(chunk);
    close_frozen(lock, *blob);
    return;
  }
  if (!chunk.small) {
    const auto file = blob->memory_file;
    lock.unlock();
    file->punch(uint64_t{chunk.meta.index} * blob->options.chunk_size, chunk.pages);
    lock.lock();
    --blob->in_memory_file;
  }
  chunk.small.reset();
  memory_used_ -= chunk.pages;
  chunk.pages = 0;
  count(chunk);
  close_if_empty(*blob);
}

void Store::settle(StoredChunk& chunk) {
  chunk.busy = false;
  make_evictable(chunk);
  changed_.notify_all();
}

void Store::count(StoredChunk& chunk) {
  Footprint now;
  if (chunk.readable()) now = {1, chunk.meta.stored_size, chunk.pages, chunk.disk_bytes};
  Footprint& total = chunk.blob->total;
  total.chunks += now.chunks - chunk.counted.chunks;
  total.stored += now.stored - chunk.counted.stored;
  total.memory += now.memory - chunk.counted.memory;
  total.disk += now.disk - chunk.counted.disk;
  chunk.counted = now;
}

void Store::close_if_empty(StoredBlob& blob) {
  if (!blob.memory_file || blob.in_memory_file > 0 || !blob.spare.empty() || blob.frozen) return;
  blob.memory_file.reset();
  --descriptors_;
}

// `chunk`: that of the index, if there is one.
Location Store::location_of(const StoredBlob& blob, uint32_t index, const StoredChunk* chunk) {
  Location location;
  if (blob.sealed && index >= blob.sealed_chunks) {
    location.presence = Presence::kEnd;
    return location;
  }
  if (chunk == nullptr || !chunk->readable()) return location;
  location.meta = chunk->meta;
  location.presence = Presence::kElsewhere;
  if (chunk->in_memory && !chunk->small && !chunk->damaged) {
    location.presence = Presence::kMemfd;
    location.generation = blob.generation;
  }
  return location;
}

Result<Location> Store::locate(BlobId id, uint32_t index, uint64_t stream) {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  StoredChunk* const chunk = blob->find(index);
  const Location location = location_of(*blob, index, chunk);
  if (location.is_here()) count_read(*chunk, stream);
  return location;
}

Result<Location> Store::peek(BlobId id, uint32_t index) const {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  return location_of(*blob, index, blob->find(index));
}

Result<MemoryFile> Store::memory_file(BlobId id) {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  if (!blob->memory_file) {
    return fail(ErrorCode::kNotFound, "nothing of the blob is in a memory file");
  }
  BIGCAST_ASSIGN(const int fd, blob->memory_file->open_reader());
  return MemoryFile{fd, blob->generation};
}

Store::Source Store::source_of(const StoredBlob& blob, const StoredChunk& chunk) const {
  Source source;
  source.meta = chunk.meta;
  source.version = chunk.version;
  source.in_memory = chunk.in_memory;
  source.damaged = chunk.damaged;
  if (!chunk.in_memory) {
    source.runs = chunk.runs;
  } else if (chunk.small) {
    source.small = chunk.small;
  } else {
    source.memory_file = blob.memory_file;
    source.offset = uint64_t{chunk.meta.index} * blob.options.chunk_size;
  }
  return source;
}

Result<void> Store::read_source(const Source& source, std::span<std::byte> buffer) {
  const auto stored = buffer.first(source.meta.stored_size);
  if (source.small) {
    std::memcpy(stored.data(), source.small->data(), stored.size());
  } else if (source.in_memory) {
    BIGCAST_TRY(source.memory_file->read(source.offset, stored));
  } else {
    BIGCAST_TRY(disk_->read(source.runs, stored, buffer.size()));
  }
  return verify_chunk(source.meta, stored);
}

StoredChunk* Store::unmoved(StoredBlob& blob, const Source& source) {
  StoredChunk* chunk = blob.find(source.meta.index);
  return chunk != nullptr && chunk->version == source.version ? chunk : nullptr;
}

// The error, unless the chunk has moved meanwhile and is to be read again.
Result<void> Store::read_failed(BlobId id, const Source& source, Error error) {
  Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  StoredChunk* const found = unmoved(*blob, source);
  if (found == nullptr) return {};
  if (error.code == ErrorCode::kCorrupt) ++counters_.checksum_failures;
  StoredChunk& chunk = *found;
  if (!blob->is_home() && !chunk.busy) {  // so that it is fetched again
    unlist(chunk);
    chunk.busy = true;
    discard(lock, blob, chunk);
  } else if (is_damage(error.code) && !chunk.busy && chunk.views == 0) {
    if (source.in_memory && chunk.on_disk) {  // there is another copy
      unlist(chunk);
      chunk.busy = true;
      leave_memory(lock, blob, chunk);
      return {};
    }
    quarantine(lock, chunk, error);
  }
  return tl::unexpected<Error>(std::move(error));
}

// Tries until the chunk stays where it is for as long as it takes to read it; says where that was.
Result<Store::Source> Store::read_somewhere(BlobId id, uint32_t index,
                                            std::span<std::byte> buffer) {
  for (uint32_t attempt = 0; attempt < limits::kReadAttemptsMax; ++attempt) {
    Lock lock(mutex_);
    BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
    const auto it = blob->chunks.find(index);
    if (it == blob->chunks.end() || !it->second.readable()) {
      return fail(ErrorCode::kNotFound, fmt::format("chunk {}: is not here", index));
    }
    Source source = source_of(*blob, it->second);
    lock.unlock();
    if (source.damaged) {
      return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: its copy here is damaged", index));
    }
    if (buffer.size() < source.meta.stored_size) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("chunk {}: the buffer has {} bytes, {} are needed", index,
                              buffer.size(), source.meta.stored_size));
    }
    auto read = read_source(source, buffer);
    if (read) {
      lock.lock();
      count_bytes_read(source);
      return source;
    }
    BIGCAST_TRY(read_failed(id, source, std::move(read).error()));
  }
  return fail(ErrorCode::kUnavailable, fmt::format("chunk {}: keeps moving", index));
}

// Requires: the lock is held.
void Store::count_bytes_read(const Source& source) {
  (source.in_memory ? counters_.chunks_read_memory : counters_.chunks_read_disk)++;
  (source.in_memory ? counters_.bytes_read_memory : counters_.bytes_read_disk) +=
      source.meta.stored_size;
}

Result<ChunkMeta> Store::read_chunk(BlobId id, uint32_t index, std::span<std::byte> buffer) {
  BIGCAST_ASSIGN(const Source source, read_somewhere(id, index, buffer));
  return source.meta;
}

Result<ChunkMeta> Store::load_chunk(BlobId id, uint32_t index, std::span<std::byte> buffer) {
  BIGCAST_ASSIGN(const Source source, read_somewhere(id, index, buffer));
  if (!source.in_memory) promote(id, source, buffer.first(source.meta.stored_size));
  return source.meta;
}

// Takes a chunk that was read from disk into memory. Its place on disk stays its own until somebody
// needs that, so that it can leave again without a write.
void Store::promote(BlobId id, const Source& source, std::span<const std::byte> stored) {
  Lock lock(mutex_);
  const auto found = find_blob(id);
  if (!found) return;
  const BlobPtr& blob = *found;
  StoredChunk* const still = unmoved(*blob, source);
  if (still == nullptr || still->busy) return;
  StoredChunk& chunk = *still;
  const uint64_t needed = whole_pages(source.meta.stored_size);
  if (memory_used_ + needed > low_mark_ && !victims_->is_worth_a_place(entry_of(chunk))) return;
  unlist(chunk);
  chunk.busy = true;
  while (!chunk.doomed && !fits_in_memory(chunk) && give_up_spare(lock)) {
  }
  if (!chunk.doomed && fits_in_memory(chunk)) {
    victims_->expect(entry_of(chunk), needed);
    if (write_chunk(lock, blob, chunk, stored)) {
      ++counters_.chunks_promoted;
    } else {
      free_pages(lock, blob, chunk);
    }
  } else {
    room_wanted_ = std::max(room_wanted_, needed);
  }
  if (chunk.doomed) return discard(lock, blob, chunk);
  settle(chunk);
}

Result<ChunkView> Store::view_chunk(BlobId id, uint32_t index) {
  Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  const auto it = blob->chunks.find(index);
  const bool here = it != blob->chunks.end() && it->second.readable() && it->second.in_memory &&
                    !it->second.busy && !it->second.damaged;
  const uint64_t viewed_max = std::min<uint64_t>(limits::kServeReserve, memory_budget_ / 4);
  if (!here || viewed_ + it->second.meta.stored_size > viewed_max) {
    return fail(ErrorCode::kNotFound, fmt::format("chunk {}: can't be viewed now", index));
  }
  StoredChunk& chunk = it->second;
  chunk.views++;
  blob->open_views++;
  const Source source = source_of(*blob, chunk);
  viewed_ += source.meta.stored_size;
  count_bytes_read(source);
  lock.unlock();
  ChunkView view;
  view.meta = source.meta;
  const auto end = [this, blob, source](const void*) { end_view(blob, source); };
  view.pin = std::shared_ptr<const void>(&chunk, end);
  if (source.small) {
    view.bytes = std::span(*source.small).first(source.meta.stored_size);
  } else {
    BIGCAST_ASSIGN(view.bytes, source.memory_file->view(source.offset, source.meta.stored_size));
  }
  return view;
}

void Store::end_view(const BlobPtr& blob, const Source& source) {
  const Lock lock(mutex_);
  viewed_ -= source.meta.stored_size;
  blob->open_views--;
  const auto it = blob->chunks.find(source.meta.index);
  if (it == blob->chunks.end() || it->second.doomed) {
    // It was left to us; or whoever looked at it after it was punched gave it pages again.
    if (source.memory_file) {
      source.memory_file->punch(source.offset, whole_pages(source.meta.stored_size));
    }
    return;
  }
  StoredChunk& chunk = it->second;
  if (chunk.version != source.version || --chunk.views > 0 || chunk.busy) return;
  make_evictable(chunk);
  changed_.notify_all();
}

}  // namespace bigcast
