#pragma once

#include "eviction/table.h"

namespace bigcast::eviction {

// S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction",
// SOSP 2023, algorithm 1): a small queue of a tenth of the capacity filters what is read once, a
// main queue gives second chances, and a ghost queue remembers what left the small one.
//
// Two rules are those of the authors' simulator libCacheSim instead of the paper's: an entry goes
// from small to main if it was hit twice, and until the first eviction new entries go to main once
// the small queue is full.
class S3Fifo final : public Policy {
 public:
  explicit S3Fifo(uint64_t capacity);
  S3Fifo(const S3Fifo&) = delete;
  S3Fifo& operator=(const S3Fifo&) = delete;

  std::string_view name() const override { return "s3fifo"; }
  bool admits(uint64_t size) const override { return size < small_capacity_; }
  void expect(Entry entry, uint64_t size) override;
  void insert(Entry entry, uint64_t size) override;
  void hit(Entry entry) override;
  void erase(Entry entry) override;
  std::optional<Entry> evict() override;
  size_t size() const override { return small_.count() + main_.count(); }

 private:
  enum class Place : uint8_t { kSmall, kMain, kGhost };
  struct Node : QueueNode {
    Place place = Place::kSmall;
    uint8_t hits = 0;
  };

  Queue<Node>& queue_at(Place place);
  void move(Slot slot, Place to);
  void remove(Slot slot);
  std::optional<Entry> evict_small();
  Entry evict_main();

  const uint64_t small_capacity_;
  const uint64_t main_capacity_;
  const uint64_t ghost_capacity_;
  Table<Node> table_;
  Queue<Node> small_{table_};
  Queue<Node> main_{table_};
  Queue<Node> ghosts_{table_};
  std::optional<Entry> returning_;  // expected, and was a ghost
  bool has_evicted_ = false;
};

}  // namespace bigcast::eviction
