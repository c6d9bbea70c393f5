#pragma once

#include "eviction/queue_policy.h"

namespace bigcast::eviction {

// A hand goes from the oldest entry to the newest and round again, evicts the first that was not
// hit since it last passed, and stays there; what was hit keeps its place (Zhang, Yang, Yue,
// Vigfusson and Rashmi, "SIEVE is simpler than LRU", NSDI 2024, algorithm 1).
class Sieve final : public QueuePolicy {
 public:
  std::string_view name() const override { return "sieve"; }
  void hit(Entry entry) override {
    const Slot slot = table_.find(entry);
    if (slot != kNoSlot) table_[slot].visited = true;
  }

 private:
  Slot victim() override {
    if (hand_ == kNoSlot) hand_ = queue_.oldest();
    while (table_[hand_].visited) {
      table_[hand_].visited = false;
      hand_ = table_[hand_].newer;
      if (hand_ == kNoSlot) hand_ = queue_.oldest();
    }
    return hand_;
  }
  void before_removal(Slot slot) override {
    if (slot == hand_) hand_ = table_[slot].newer;
  }

  Slot hand_ = kNoSlot;  // none: at the oldest
};

}  // namespace bigcast::eviction
