#include "eviction/s3fifo.h"

#include <algorithm>

namespace bigcast::eviction {
namespace {

constexpr uint8_t kPromotionHits = 2;  // of an entry in the small queue
constexpr uint8_t kHitsMax = 3;

}  // namespace

S3Fifo::S3Fifo(uint64_t capacity)
    : small_capacity_(capacity / 10),
      main_capacity_(capacity - small_capacity_),
      ghost_capacity_(capacity / 10 * 9 + capacity % 10 * 9 / 10) {}

Queue<S3Fifo::Node>& S3Fifo::queue_at(Place place) {
  return place == Place::kSmall ? small_ : place == Place::kMain ? main_ : ghosts_;
}

void S3Fifo::move(Slot slot, Place to) {
  queue_at(table_[slot].place).unlink(slot);
  table_[slot].place = to;
  table_[slot].hits = 0;
  queue_at(to).push(slot);
}

void S3Fifo::remove(Slot slot) {
  queue_at(table_[slot].place).unlink(slot);
  table_.remove(slot);
}

// A ghost is taken now: the evictions that make room may push it out.
void S3Fifo::expect(Entry entry, uint64_t size) {
  const Slot slot = table_.find(entry);
  if (slot == kNoSlot || table_[slot].place != Place::kGhost) return;
  remove(slot);
  returning_ = entry;
}

void S3Fifo::insert(Entry entry, uint64_t size) {
  expect(entry, size);
  const bool warming_up = !has_evicted_ && small_.total_size() >= small_capacity_;
  const bool to_main = returning_ == entry || warming_up;
  if (returning_ == entry) returning_.reset();
  const Slot slot = table_.add(entry, size);
  table_[slot].place = to_main ? Place::kMain : Place::kSmall;
  queue_at(table_[slot].place).push(slot);
}

void S3Fifo::hit(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot == kNoSlot || table_[slot].place == Place::kGhost) return;
  table_[slot].hits = std::min<uint8_t>(table_[slot].hits + 1, kHitsMax);
}

void S3Fifo::erase(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot != kNoSlot && table_[slot].place != Place::kGhost) remove(slot);
}

std::optional<Entry> S3Fifo::evict() {
  has_evicted_ = has_evicted_ || size() > 0;
  if (main_.total_size() <= main_capacity_) {
    if (const auto entry = evict_small()) return entry;
  }
  if (!main_.empty()) return evict_main();
  return evict_small();
}

// Nothing if all of it went to main.
std::optional<Entry> S3Fifo::evict_small() {
  while (!small_.empty()) {
    const Slot slot = small_.oldest();
    if (table_[slot].hits >= kPromotionHits) {
      move(slot, Place::kMain);
      continue;
    }
    const Entry entry = table_[slot].entry;
    move(slot, Place::kGhost);
    while (ghosts_.total_size() > ghost_capacity_) remove(ghosts_.oldest());
    return entry;
  }
  return std::nullopt;
}

Entry S3Fifo::evict_main() {
  while (table_[main_.oldest()].hits > 0) {
    const Slot slot = main_.oldest();
    table_[slot].hits--;
    main_.renew(slot);
  }
  const Entry entry = table_[main_.oldest()].entry;
  remove(main_.oldest());
  return entry;
}

}  // namespace bigcast::eviction
