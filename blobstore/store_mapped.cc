#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "blobstore/store.h"

// Blobs that readers map. Until the first mapping a mappable blob is like any other. Then its
// memory file is frozen, all of it being there: a reader must not be able to change what others
// read, and whoever seals a file against writing can't punch it either. So from then on a chunk
// that leaves memory leaves its pages stuck in the file, still counted, until all have left and the
// file is closed; a chunk that comes back finds them. As long as somebody has the blob mapped
// (Held) none of its chunks leaves.
namespace bigcast {

Result<std::shared_ptr<const Hold>> Store::hold(BlobId id) {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  if (!blob->options.mappable || !blob->sealed || blob->sealed_size == 0) {
    return fail(ErrorCode::kNotMappable, blob->options.mappable
                                             ? "the blob is empty, or not sealed yet"
                                             : "the blob was not written to be mapped (mappable)");
  }
  if (!blob->held) BIGCAST_TRY(start_hold(blob));
  const auto held = blob->held;
  ++held->pins;
  return std::shared_ptr<const Hold>(held.get(), [this, held](const Hold*) { end_hold(*held); });
}

// What is held can't make way for homes' chunks: so it must fit beside what they are promised.
Result<void> Store::start_hold(const BlobPtr& blob) {
  const uint64_t bytes = whole_pages(blob->sealed_size);
  const uint64_t held_max = memory_budget_ / limits::kMappedShare;
  if (held_ + pinned_ + bytes > held_max) {
    return fail(ErrorCode::kNotMappable,
                fmt::format("{} bytes can't be mapped now: of the {} that may be, {} are", bytes,
                            held_max, held_ + pinned_));
  }
  const bool in_share = blob->is_home() && !blob->is_durable();
  if (!in_share) {
    if (const auto fits = check_budgets(bytes, blob->options.chunk_size, false); !fits) {
      return fail(ErrorCode::kNotMappable, "not now: " + fits.error().message);
    }
  }
  blob->held = std::make_shared<Held>();
  blob->held->blob = blob;
  held_ += blob->held->bytes = bytes;
  held_beyond_ += blob->held->beyond = in_share ? 0 : bytes;
  for (auto& [index, chunk] : blob->chunks) set_aside(chunk);
  return {};
}

void Store::end_hold(Held& held) {
  Lock lock(mutex_);
  if (--held.pins > 0) return;
  held_ -= held.bytes;
  held_beyond_ -= held.beyond;
  if (held.file) held_left_ -= held.bytes;
  if (const BlobPtr blob = std::exchange(held.blob, nullptr)) {
    blob->held.reset();
    for (auto& [index, chunk] : blob->chunks) {
      if (!chunk.busy) make_evictable(chunk);
    }
  }
  begin_move();
  end_move(true);  // there is something to evict for who waits for room
  if (held.file) close_file(lock, std::move(held.file), held.pages);
}

// The chunks of a held blob are being freed. What is mapped of them belongs to the holders now.
void Store::leave_to_holders(StoredBlob& blob) {
  const auto held = std::exchange(blob.held, nullptr);
  if (!held) return;
  held->blob.reset();
  if (!blob.frozen) return;  // nobody was given it yet
  for (auto& [index, chunk] : blob.chunks) {
    if (chunk.pages > 0) leave_frozen(blob, chunk);
  }
  held->file = std::exchange(blob.memory_file, nullptr);
  held->pages = std::exchange(blob.stuck, 0);
  blob.frozen = false;
  held->is_left = true;
  held_left_ += held->bytes;
  held_beyond_ += held->bytes - held->beyond;
  held->beyond = held->bytes;
}

Result<MappableFile> Store::map(BlobId id) {
  Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  BIGCAST_TRY(gather(lock, blob));
  if (!blob->frozen) {
    while (!blob->spare.empty()) punch_spare(*blob);  // another blob's bytes
    BIGCAST_TRY(blob->memory_file->freeze());
    blob->frozen = true;
  }
  BIGCAST_ASSIGN(const int fd, blob->memory_file->open_reader());
  return MappableFile{fd, blob->sealed_size};
}

// Returns with all of the blob in its memory file, and the lock held since that was seen.
Result<void> Store::gather(Lock& lock, const BlobPtr& blob) {
  uint32_t seen = 0;  // in a row, since the lock was last given up
  for (uint32_t index = 0; seen < blob->sealed_chunks; index = (index + 1) % blob->sealed_chunks) {
    const auto it = blob->chunks.find(index);
    const bool is_here = it != blob->chunks.end() && !it->second.doomed;
    if (!blob->held || !is_here) {
      return fail(ErrorCode::kNotFound, fmt::format("chunk {}: is not here", index));
    }
    StoredChunk& chunk = it->second;
    if (chunk.damaged) {
      return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: its copy here is damaged", index));
    }
    ++seen;
    if (!chunk.busy && chunk.in_memory) continue;
    seen = 0;
    if (chunk.busy) {
      changed_.wait(lock);
    } else {
      BIGCAST_TRY(bring_back(lock, blob, chunk));
    }
  }
  return {};
}

// Brings a chunk from disk to memory.
Result<void> Store::bring_back(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  unlist(chunk);
  chunk.busy = true;
  auto read = read_back(lock, blob, chunk);
  if (!read) free_pages(lock, blob, chunk);
  if (read && !blob->is_durable()) {
    blob->withhold(chunk);
    chunk.on_disk = false;
    chunk.disk_bytes = 0;
    count(chunk);
    release_withheld(lock, blob);
  }
  if (chunk.doomed) {
    const uint32_t index = chunk.meta.index;
    discard(lock, blob, chunk);
    return fail(ErrorCode::kNotFound, fmt::format("chunk {}: is not here any more", index));
  }
  settle(chunk);
  return read;
}

Result<void> Store::read_back(Lock& lock, const BlobPtr& blob, StoredChunk& chunk) {
  const Source source = source_of(*blob, chunk);
  std::vector<std::byte> bytes(blob->frozen ? 0 : source.meta.stored_size);
  if (!bytes.empty()) {
    lock.unlock();
    auto read = read_source(source, bytes);
    lock.lock();
    if (!read) {
      if (read.error().code == ErrorCode::kCorrupt) ++counters_.checksum_failures;
      if (!blob->is_home()) chunk.doomed = true;  // so that it is fetched again
      if (!chunk.doomed && is_damage(read.error().code)) quarantine(lock, chunk, read.error());
      return read;
    }
    count_bytes_read(source);
  }
  BIGCAST_TRY(make_room(lock, chunk));
  return write_chunk(lock, blob, chunk, bytes);
}

// ---- A frozen file's pages, which a chunk leaves and finds again.

void Store::put_back_frozen(StoredBlob& blob, StoredChunk& chunk) {
  chunk.pages = whole_pages(chunk.meta.stored_size);
  blob.stuck -= chunk.pages;
  ++blob.in_memory_file;
  chunk.in_memory = true;
  chunk.version = ++versions_;
  count(chunk);
}

void Store::leave_frozen(StoredBlob& blob, StoredChunk& chunk) {
  if (chunk.pages == 0) return;
  blob.stuck += std::exchange(chunk.pages, 0);
  --blob.in_memory_file;
}

void Store::close_frozen(Lock& lock, StoredBlob& blob) {
  if (!blob.frozen || blob.in_memory_file > 0) return;
  blob.frozen = false;
  close_file(lock, std::exchange(blob.memory_file, nullptr), std::exchange(blob.stuck, 0));
}

// Closing a frozen file gives back all of its pages, which takes its time.
void Store::close_file(Lock& lock, std::shared_ptr<Memfd> file, uint64_t pages) {
  begin_move();
  lock.unlock();
  file.reset();
  lock.lock();
  memory_used_ -= pages;
  --descriptors_;
  end_move(true);
}

}  // namespace bigcast
