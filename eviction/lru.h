#pragma once

#include "eviction/queue_policy.h"

namespace bigcast::eviction {

// Least recently used (Mattson, Gecsei, Slutz and Traiger, "Evaluation techniques for storage
// hierarchies", IBM Systems Journal 9(2), 1970).
class Lru final : public QueuePolicy {
 public:
  std::string_view name() const override { return "lru"; }
  void hit(Entry entry) override {
    const Slot slot = table_.find(entry);
    if (slot != kNoSlot) queue_.renew(slot);
  }

 private:
  Slot victim() override { return queue_.oldest(); }
};

}  // namespace bigcast::eviction
