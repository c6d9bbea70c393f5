#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "eviction/policy.h"

namespace bigcast::eviction {

// A node's place in its table, where it stays as long as it lives.
using Slot = uint32_t;
constexpr Slot kNoSlot = UINT32_MAX;

// What a Queue needs of a node. Policies derive from it; what they add should leave it at 32 bytes,
// so that a node is in one cache line.
struct alignas(32) QueueNode {
  Entry entry = 0;
  uint64_t size = 0;
  Slot older = kNoSlot;
  Slot newer = kNoSlot;
};

// Nodes by entry: one array of nodes, and one of their names with open addressing (linear probing,
// at most 3/4 full; Knuth, TAOCP vol. 3, 6.4, algorithms L and R). Finding allocates nothing and
// costs two cache misses. References to nodes last until the next add().
template <typename Node>
class Table {
 public:
  Slot find(Entry entry) const {
    if (cells_.empty()) return kNoSlot;
    for (size_t at = home_of(entry);; at = next(at)) {
      if (cells_[at].slot == kNoSlot || cells_[at].entry == entry) return cells_[at].slot;
    }
  }

  // Requires: not there.
  Slot add(Entry entry, uint64_t size) {
    assert(find(entry) == kNoSlot);
    if ((count_ + 1) * 4 > cells_.size() * 3) grow();
    Slot slot = free_;
    if (slot == kNoSlot) {
      slot = static_cast<Slot>(nodes_.size());
      nodes_.emplace_back();
    } else {
      free_ = nodes_[slot].older;
      nodes_[slot] = Node{};
    }
    nodes_[slot].entry = entry;
    nodes_[slot].size = size;
    place({entry, slot});
    ++count_;
    return slot;
  }

  void remove(Slot slot) {
    size_t hole = home_of(nodes_[slot].entry);
    while (cells_[hole].slot != slot) hole = next(hole);
    // Whoever was pushed past the hole by a collision moves back into it.
    for (size_t at = next(hole); cells_[at].slot != kNoSlot; at = next(at)) {
      const size_t home = home_of(cells_[at].entry);
      if (((at - home) & mask()) < ((at - hole) & mask())) continue;
      cells_[hole] = cells_[at];
      hole = at;
    }
    cells_[hole] = {};
    nodes_[slot].older = free_;
    free_ = slot;
    --count_;
  }

  // Has the processor fetch what find(), add() or remove() of it would wait for.
  void prefetch(Entry entry) const {
    if (!cells_.empty()) __builtin_prefetch(&cells_[home_of(entry)], 1);
  }
  void prefetch_node(Slot slot) const {
    if (slot != kNoSlot) __builtin_prefetch(&nodes_[slot], 1);
  }

  Node& operator[](Slot slot) { return nodes_[slot]; }
  const Node& operator[](Slot slot) const { return nodes_[slot]; }
  size_t size() const { return count_; }

 private:
  struct Cell {
    Entry entry = 0;
    Slot slot = kNoSlot;
  };

  size_t mask() const { return cells_.size() - 1; }
  size_t next(size_t at) const { return (at + 1) & mask(); }
  // The upper bits of a product spread entries that differ in few bits (Fibonacci hashing).
  size_t home_of(Entry entry) const {
    const uint64_t mixed = (entry ^ entry >> 32) * 0x9e3779b97f4a7c15;
    return (mixed >> 32 ^ mixed >> 8) & mask();
  }

  void place(Cell cell) {
    size_t at = home_of(cell.entry);
    while (cells_[at].slot != kNoSlot) at = next(at);
    cells_[at] = cell;
  }

  void grow() {
    const std::vector<Cell> old = std::exchange(cells_, {});
    cells_.resize(old.empty() ? 16 : old.size() * 2);
    for (const Cell& cell : old) {
      if (cell.slot != kNoSlot) place(cell);
    }
  }

  std::vector<Node> nodes_;
  std::vector<Cell> cells_;  // a power of two
  Slot free_ = kNoSlot;      // of removed nodes, linked by `older`
  size_t count_ = 0;
};

// A list of a table's nodes, oldest to newest, linked through them. A node is in one queue at most.
template <typename Node>
class Queue {
 public:
  explicit Queue(Table<Node>& table) : table_(table) {}

  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  uint64_t total_size() const { return total_size_; }
  Slot oldest() const { return oldest_; }

  void push(Slot slot) {
    Node& node = table_[slot];
    node.older = newest_;
    node.newer = kNoSlot;
    (newest_ == kNoSlot ? oldest_ : table_[newest_].newer) = slot;
    newest_ = slot;
    ++count_;
    total_size_ += node.size;
  }

  void unlink(Slot slot) {
    const Node& node = table_[slot];
    (node.older == kNoSlot ? oldest_ : table_[node.older].newer) = node.newer;
    (node.newer == kNoSlot ? newest_ : table_[node.newer].older) = node.older;
    --count_;
    total_size_ -= node.size;
  }

  void renew(Slot slot) {
    if (slot == newest_) return;
    unlink(slot);
    push(slot);
  }

 private:
  Table<Node>& table_;
  Slot oldest_ = kNoSlot;
  Slot newest_ = kNoSlot;
  size_t count_ = 0;
  uint64_t total_size_ = 0;
};

}  // namespace bigcast::eviction
