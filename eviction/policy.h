#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace bigcast::eviction {

// Decides which entry leaves next. Pure bookkeeping: knows no chunk, clock or network, so that
// stores and simulators drive the same code. Not thread-safe: the owner locks.
class Policy {
 public:
  using Entry = uint64_t;  // chosen by the owner, unique while it is in the policy

  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;

  // `entry` is new and resident. Requires: not in the policy.
  virtual void insert(Entry entry, uint64_t size) = 0;
  // `entry` was read. No-op if it is not in the policy. Allocates nothing.
  virtual void hit(Entry entry) = 0;
  // `entry` is gone or may not be evicted for now. No-op if it is not in the policy.
  virtual void erase(Entry entry) = 0;
  // Removes and returns the entry to evict next; nothing when empty.
  virtual std::optional<Entry> evict() = 0;
  virtual size_t size() const = 0;
};

// Least recently used (Mattson et al., "Evaluation techniques for storage hierarchies", 1970).
std::unique_ptr<Policy> make_lru();

// By the names that configuration uses; null for an unknown one.
std::unique_ptr<Policy> make_policy(std::string_view name);

}  // namespace bigcast::eviction
