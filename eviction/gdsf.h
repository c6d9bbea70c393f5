#pragma once

#include <vector>

#include "eviction/table.h"

namespace bigcast::eviction {

// Greedy-Dual-Size-Frequency (Cherkasova, "Improving WWW proxies performance with
// Greedy-Dual-Size-Frequency caching policy", HP Laboratories HPL-98-69R1, 1998), with every
// entry's cost 1: the lowest of age + reads / size leaves, and the age becomes that. An entry
// counts with the age at which it was asked for, before room was made. Among equals the one that
// was read longest ago leaves.
class Gdsf final : public Policy {
 public:
  std::string_view name() const override { return "gdsf"; }
  void expect(Entry entry, uint64_t size) override { expected_ = {entry, age_}; }
  void insert(Entry entry, uint64_t size) override;
  void hit(Entry entry) override;
  void erase(Entry entry) override;
  std::optional<Entry> evict() override;
  size_t size() const override { return table_.size(); }

 private:
  struct Node : QueueNode {
    uint64_t reads = 1;
    size_t at = 0;  // in heap_
  };
  struct Item {
    double value = 0;
    uint64_t time = 0;  // of the last read, counted in reads
    Slot slot = kNoSlot;
    bool operator<(const Item& other) const {
      return value != other.value ? value < other.value : time < other.time;
    }
  };

  Item item_of(Slot slot, double age);
  void put(size_t at, const Item& item);
  void sift_up(size_t at, const Item& item);
  void sift_down(size_t at, const Item& item);
  void remove(Slot slot);

  Table<Node> table_;
  std::vector<Item> heap_;  // of 4 children each, the lowest first
  double age_ = 0;
  struct {
    Entry entry = 0;
    double age = 0;
  } expected_;
  uint64_t time_ = 0;
};

}  // namespace bigcast::eviction
