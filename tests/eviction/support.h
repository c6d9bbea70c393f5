#pragma once

#include <doctest/doctest.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "eviction/policy.h"

namespace bigcast::eviction {

// A cache of entries of size 1 that counts like the papers do.
class UnitCache {
 public:
  UnitCache(std::string_view name, uint64_t capacity)
      : policy_(make_policy(name, capacity)), capacity_(capacity) {}

  bool read(Entry entry);  // whether it was resident
  // Reads one-letter entries in turn; a letter for each that left, in order.
  std::string read_all(std::string_view letters);
  Policy& policy() { return *policy_; }
  const std::vector<Entry>& resident() const { return resident_; }

 private:
  std::unique_ptr<Policy> policy_;
  uint64_t capacity_;
  std::vector<Entry> resident_;
  std::string evicted_;
};

// All that evict() gives, as letters.
std::string drain(Policy& policy);

}  // namespace bigcast::eviction
