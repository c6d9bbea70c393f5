#include "eviction/gdsf.h"

#include <algorithm>

namespace bigcast::eviction {
namespace {

constexpr size_t kChildren = 4;  // shallower than 2, and siblings share a cache line or two

}  // namespace

Gdsf::Item Gdsf::item_of(Slot slot, double age) {
  const Node& node = table_[slot];
  const auto size = static_cast<double>(std::max<uint64_t>(node.size, 1));
  return {age + static_cast<double>(node.reads) / size, ++time_, slot};
}

void Gdsf::put(size_t at, const Item& item) {
  heap_[at] = item;
  table_[item.slot].at = at;
}

void Gdsf::sift_up(size_t at, const Item& item) {
  while (at > 0) {
    const size_t parent = (at - 1) / kChildren;
    if (!(item < heap_[parent])) break;
    put(at, heap_[parent]);
    at = parent;
  }
  put(at, item);
}

void Gdsf::sift_down(size_t at, const Item& item) {
  while (true) {
    const size_t first = at * kChildren + 1;
    if (first >= heap_.size()) break;
    const auto begin = heap_.begin() + static_cast<ptrdiff_t>(first);
    const auto end = begin + static_cast<ptrdiff_t>(std::min(kChildren, heap_.size() - first));
    const auto least = std::min_element(begin, end);
    if (!(*least < item)) break;
    const auto child = static_cast<size_t>(least - heap_.begin());
    put(at, *least);
    at = child;
  }
  put(at, item);
}

void Gdsf::insert(Entry entry, uint64_t size) {
  const Slot slot = table_.add(entry, size);
  heap_.emplace_back();
  sift_up(heap_.size() - 1, item_of(slot, entry == expected_.entry ? expected_.age : age_));
}

void Gdsf::hit(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot == kNoSlot) return;
  ++table_[slot].reads;
  sift_down(table_[slot].at, item_of(slot, age_));  // it can only have risen
}

void Gdsf::erase(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot != kNoSlot) remove(slot);
}

std::optional<Entry> Gdsf::evict() {
  if (heap_.empty()) return std::nullopt;
  const Slot slot = heap_.front().slot;
  const Entry entry = table_[slot].entry;
  age_ = heap_.front().value;
  remove(slot);
  return entry;
}

void Gdsf::remove(Slot slot) {
  const size_t at = table_[slot].at;
  const Item last = heap_.back();
  heap_.pop_back();
  if (at < heap_.size()) {
    if (at > 0 && last < heap_[(at - 1) / kChildren]) {
      sift_up(at, last);
    } else {
      sift_down(at, last);
    }
  }
  table_.remove(slot);
}

}  // namespace bigcast::eviction
