#pragma once

#include "eviction/queue_policy.h"

namespace bigcast::eviction {

// First in, first out (Belady, "A study of replacement algorithms for a virtual-storage computer",
// IBM Systems Journal 5(2), 1966).
class Fifo final : public QueuePolicy {
 public:
  std::string_view name() const override { return "fifo"; }
  void hit(Entry entry) override {}

 private:
  Slot victim() override { return queue_.oldest(); }
};

}  // namespace bigcast::eviction
