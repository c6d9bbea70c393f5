#pragma once

#include "eviction/queue_policy.h"

namespace bigcast::eviction {

// Second chance: what was hit since it was last the oldest becomes the newest instead of leaving
// (Corbató, "A paging experiment with the Multics system", MIT Project MAC, 1968; one bit each).
class Clock final : public QueuePolicy {
 public:
  std::string_view name() const override { return "clock"; }
  void hit(Entry entry) override {
    const Slot slot = table_.find(entry);
    if (slot != kNoSlot) table_[slot].visited = true;
  }

 private:
  Slot victim() override {
    while (table_[queue_.oldest()].visited) {
      const Slot oldest = queue_.oldest();
      table_[oldest].visited = false;
      queue_.renew(oldest);
    }
    return queue_.oldest();
  }
};

}  // namespace bigcast::eviction
