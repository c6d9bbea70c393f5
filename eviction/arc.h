#pragma once

#include "eviction/table.h"

namespace bigcast::eviction {

// ARC (Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, figure
// 4): what was read once and what was read again are two LRU lists; what either lost lately decides
// how they share the capacity. Sizes other than 1 count as so many pages of the paper.
class Arc final : public Policy {
 public:
  explicit Arc(uint64_t capacity) : capacity_(capacity) {}
  Arc(const Arc&) = delete;
  Arc& operator=(const Arc&) = delete;

  std::string_view name() const override { return "arc"; }
  void expect(Entry entry, uint64_t size) override;
  void insert(Entry entry, uint64_t size) override;
  void hit(Entry entry) override;
  void erase(Entry entry) override;
  std::optional<Entry> evict() override;
  size_t size() const override { return recent_.count() + frequent_.count(); }

 private:
  // In the paper: T1, T2, B1 and B2.
  enum class Place : uint8_t { kRecent, kFrequent, kRecentGhost, kFrequentGhost };
  struct Node : QueueNode {
    Place place = Place::kRecent;
  };
  struct Expected {
    Entry entry = 0;
    std::optional<Place> ghost;  // where it was found
  };

  static bool is_ghost(Place place) { return place >= Place::kRecentGhost; }
  Queue<Node>& queue_at(Place place);
  void move(Slot slot, Place to);
  void remove(Slot slot);
  void adapt(Place ghost, uint64_t size);
  void trim_ghosts();

  const uint64_t capacity_;
  double recent_target_ = 0;  // p in the paper; a fraction counts
  Table<Node> table_;
  Queue<Node> recent_{table_};
  Queue<Node> frequent_{table_};
  Queue<Node> recent_ghosts_{table_};
  Queue<Node> frequent_ghosts_{table_};
  std::optional<Expected> expected_;
};

}  // namespace bigcast::eviction
