#include <utility>

#include "blobstore/store.h"

// Fresh pages are most of what a chunk costs. So a dead blob's memory file stays, with its pages,
// for the next blob of its namespace: there each chunk's place has pages already. Whoever has a
// descriptor of the file sees both blobs' bytes, hence never across namespaces, and a digest tells
// them apart. Spare pages are part of the memory budget and the first to leave.
namespace bigcast {

// Requires: nobody moves or views a chunk of the blob, now or later, as it was removed or all of
// its chunks are being dropped. False: the caller frees the pages.
bool Store::park(StoredBlob& blob) {
  const CreateOptions& options = blob.options;
  if (!blob.memory_file || blob.frozen || options.name_space.empty() || blob.open_views > 0) {
    return false;
  }
  for (const auto& [index, chunk] : blob.chunks) {
    if (chunk.busy) return false;
  }
  uint64_t gained = 0;
  for (auto& [index, chunk] : blob.chunks) {
    if (chunk.pages == 0 || chunk.small) continue;
    blob.spare[index] = chunk.pages;
    gained += std::exchange(chunk.pages, 0);
  }
  memory_used_ -= gained;
  spare_bytes_ += gained;
  blob.in_memory_file = 0;
  adopters_.erase(&blob);
  parked_.push_back({options.name_space, options.chunk_size,
                     std::exchange(blob.memory_file, nullptr), std::exchange(blob.spare, {}),
                     clock_.now()});
  return true;
}

// The last one parked is the likeliest to be mapped and in the processor's cache.
void Store::adopt_parked(StoredBlob& blob) {
  if (blob.memory_file) return;
  for (auto file = parked_.rbegin(); file != parked_.rend(); ++file) {
    if (file->name_space != blob.options.name_space) continue;
    if (file->chunk_size != blob.options.chunk_size) continue;
    blob.memory_file = std::move(file->file);
    blob.spare = std::move(file->pages);
    blob.spare_since = clock_.now();
    ++blob.generation;
    adopters_.insert(&blob);
    parked_.erase(std::next(file).base());
    return;
  }
}

uint64_t Store::spare_at(const StoredBlob& blob, uint32_t index) {
  const auto found = blob.spare.find(index);
  return found == blob.spare.end() ? 0 : found->second;
}

// The pages at a chunk's place are the chunk's from now on; returns how many bytes.
uint64_t Store::take_spare(StoredBlob& blob, uint32_t index) {
  const uint64_t pages = spare_at(blob, index);
  if (pages == 0) return 0;
  blob.spare.erase(index);
  if (blob.spare.empty()) adopters_.erase(&blob);
  spare_bytes_ -= pages;
  return pages;
}

// With the lock held: a put into the same place must not come in between.
void Store::punch_spare(StoredBlob& blob) {
  const uint32_t index = blob.spare.rbegin()->first;  // the last to be wanted
  const uint64_t pages = take_spare(blob, index);
  blob.memory_file->punch(uint64_t{index} * blob.options.chunk_size, pages);
  close_if_empty(blob);
}

void Store::free_parked(Lock& lock) {
  ParkedFile oldest = std::move(parked_.front());
  parked_.pop_front();
  uint64_t pages = 0;
  for (const auto& [index, bytes] : oldest.pages) pages += bytes;
  begin_move();
  lock.unlock();
  // Closing it is not enough: a reader may still have a descriptor.
  oldest.file->punch(0, (uint64_t{oldest.pages.rbegin()->first} + 1) * oldest.chunk_size);
  oldest.file.reset();
  lock.lock();
  spare_bytes_ -= pages;
  --descriptors_;
  end_move(true);
}

// False if there are no spare pages.
bool Store::give_up_spare(Lock& lock) {
  if (spare_bytes_ == 0) return false;
  if (!parked_.empty()) {
    free_parked(lock);
  } else if (!adopters_.empty()) {
    punch_spare(**adopters_.begin());
  } else {
    changed_.wait(lock);  // somebody is freeing them
  }
  return true;
}

void Store::trim() {
  Lock lock(mutex_);
  const TimePoint too_old = clock_.now() - std::chrono::milliseconds(limits::kSpareKeepMs);
  while (!parked_.empty() && parked_.front().since <= too_old) free_parked(lock);
  const auto next = [&]() -> StoredBlob* {
    for (StoredBlob* blob : adopters_) {
      if (blob->spare_since <= too_old) return blob;
    }
    return nullptr;
  };
  while (StoredBlob* const blob = next()) {
    punch_spare(*blob);
    lock.unlock();  // others have a turn: there may be many
    lock.lock();
  }
  if (!erasing_) erase_left(lock);
}

}  // namespace bigcast
