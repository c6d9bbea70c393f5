#include "eviction/arc.h"

#include <algorithm>

namespace bigcast::eviction {

Queue<Arc::Node>& Arc::queue_at(Place place) {
  switch (place) {
    case Place::kRecent:
      return recent_;
    case Place::kFrequent:
      return frequent_;
    case Place::kRecentGhost:
      return recent_ghosts_;
    default:
      return frequent_ghosts_;
  }
}

void Arc::move(Slot slot, Place to) {
  queue_at(table_[slot].place).unlink(slot);
  table_[slot].place = to;
  queue_at(to).push(slot);
}

void Arc::remove(Slot slot) {
  queue_at(table_[slot].place).unlink(slot);
  table_.remove(slot);
}

// The first lines of the paper's cases II and III. A ghost is taken now: making room may push it
// out.
void Arc::expect(Entry entry, uint64_t size) {
  if (expected_ && expected_->entry == entry) return;
  expected_ = Expected{entry, std::nullopt};
  const Slot slot = table_.find(entry);
  if (slot == kNoSlot || !is_ghost(table_[slot].place)) return;
  expected_->ghost = table_[slot].place;
  adapt(table_[slot].place, size);
  remove(slot);
}

void Arc::adapt(Place ghost, uint64_t size) {
  const double recent = static_cast<double>(recent_ghosts_.total_size());
  const double frequent = static_cast<double>(frequent_ghosts_.total_size());
  const bool towards_recent = ghost == Place::kRecentGhost;
  const double ratio = towards_recent ? frequent / recent : recent / frequent;
  const double step = std::max(1.0, ratio) * static_cast<double>(size);
  recent_target_ = std::clamp(recent_target_ + (towards_recent ? step : -step), 0.0,
                              static_cast<double>(capacity_));
}

void Arc::insert(Entry entry, uint64_t size) {
  expect(entry, size);
  const Slot slot = table_.add(entry, size);
  table_[slot].place = expected_->ghost ? Place::kFrequent : Place::kRecent;
  queue_at(table_[slot].place).push(slot);
  expected_.reset();
  trim_ghosts();
}

// The paper keeps |T1| + |B1| <= c and everything within 2c.
void Arc::trim_ghosts() {
  while (!recent_ghosts_.empty() &&
         recent_.total_size() + recent_ghosts_.total_size() > capacity_) {
    remove(recent_ghosts_.oldest());
  }
  while (!frequent_ghosts_.empty() && recent_.total_size() + recent_ghosts_.total_size() +
                                              frequent_.total_size() +
                                              frequent_ghosts_.total_size() >
                                          2 * capacity_) {
    remove(frequent_ghosts_.oldest());
  }
}

void Arc::hit(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot != kNoSlot && !is_ghost(table_[slot].place)) move(slot, Place::kFrequent);
}

void Arc::erase(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot != kNoSlot && !is_ghost(table_[slot].place)) remove(slot);
}

// The paper's REPLACE, and the part of case IV where what was read once fills everything: then it
// leaves no ghost.
std::optional<Entry> Arc::evict() {
  if (size() == 0) return std::nullopt;
  const bool from_frequent_ghost = expected_ && expected_->ghost == Place::kFrequentGhost;
  const uint64_t recent = recent_.total_size();
  const bool above = static_cast<double>(recent) > recent_target_ ||
                     (from_frequent_ghost && recent == static_cast<uint64_t>(recent_target_));
  const bool evict_recent = !recent_.empty() && (frequent_.empty() || above);
  const Slot slot = evict_recent ? recent_.oldest() : frequent_.oldest();
  const Entry entry = table_[slot].entry;
  const bool is_new = !expected_ || !expected_->ghost;
  if (evict_recent && is_new && recent >= capacity_) {
    remove(slot);
  } else {
    move(slot, evict_recent ? Place::kRecentGhost : Place::kFrequentGhost);
  }
  return entry;
}

}  // namespace bigcast::eviction
