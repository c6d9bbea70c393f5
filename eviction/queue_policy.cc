#include "eviction/queue_policy.h"

namespace bigcast::eviction {

void QueuePolicy::insert(Entry entry, uint64_t size) { queue_.push(table_.add(entry, size)); }

void QueuePolicy::erase(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot != kNoSlot) remove(slot);
}

std::optional<Entry> QueuePolicy::evict() {
  if (queue_.empty()) return std::nullopt;
  const Slot slot = victim();
  const Entry entry = table_[slot].entry;
  remove(slot);
  return entry;
}

void QueuePolicy::remove(Slot slot) {
  before_removal(slot);
  const Slot next = table_[slot].newer;
  queue_.unlink(slot);
  table_.remove(slot);
  if (next == kNoSlot) return;
  // Most likely it leaves next, and its neighbour after that.
  table_.prefetch(table_[next].entry);
  table_.prefetch_node(table_[next].newer);
}

}  // namespace bigcast::eviction
