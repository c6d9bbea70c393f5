#pragma once

#include "eviction/table.h"

namespace bigcast::eviction {

// What the policies with a single queue share: new entries are the newest.
class QueuePolicy : public Policy {
 public:
  QueuePolicy() : queue_(table_) {}
  QueuePolicy(const QueuePolicy&) = delete;
  QueuePolicy& operator=(const QueuePolicy&) = delete;

  void expect(Entry entry, uint64_t size) override { table_.prefetch(entry); }
  void insert(Entry entry, uint64_t size) override;
  void erase(Entry entry) override;
  std::optional<Entry> evict() override;
  size_t size() const override { return table_.size(); }

 protected:
  struct Node : QueueNode {
    bool visited = false;  // hit since it came, or since this was last looked at
  };

  // The entry to evict. Requires: there is one.
  virtual Slot victim() = 0;
  virtual void before_removal(Slot slot) {}

  Table<Node> table_;
  Queue<Node> queue_;

 private:
  void remove(Slot slot);
};

}  // namespace bigcast::eviction
