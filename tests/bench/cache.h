#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "eviction/policy.h"

namespace bigcast::bench {

// A simulated cache: which entries are resident, and how many bytes had to be fetched.
class Cache {
 public:
  struct Counts {
    uint64_t reads = 0;
    uint64_t misses = 0;
    uint64_t bytes_read = 0;
    uint64_t bytes_missed = 0;
    uint64_t bytes_refetched = 0;  // of what had been resident before
  };

  // With `unit_size` every entry takes 1 of the capacity.
  Cache(std::unique_ptr<eviction::Policy> policy, uint64_t capacity, bool unit_size);

  void read(eviction::Entry entry, uint64_t size);
  bool is_resident(eviction::Entry entry) const;
  eviction::Policy& policy() { return *policy_; }
  const Counts& counts() const { return counts_; }

 private:
  void load(eviction::Entry entry, uint64_t size);

  std::unique_ptr<eviction::Policy> policy_;
  uint64_t capacity_;
  bool unit_size_;
  uint64_t used_ = 0;
  std::unordered_map<eviction::Entry, uint64_t> sizes_;  // of all seen; 0: not resident
  Counts counts_;
};

}  // namespace bigcast::bench
