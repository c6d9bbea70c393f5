#include "tests/bench/cache.h"

#include <cassert>
#include <utility>

namespace bigcast::bench {

Cache::Cache(std::unique_ptr<eviction::Policy> policy, uint64_t capacity, bool unit_size)
    : policy_(std::move(policy)), capacity_(capacity), unit_size_(unit_size) {}

bool Cache::is_resident(eviction::Entry entry) const {
  const auto it = sizes_.find(entry);
  return it != sizes_.end() && it->second > 0;
}

void Cache::read(eviction::Entry entry, uint64_t size) {
  if (unit_size_) size = 1;
  ++counts_.reads;
  counts_.bytes_read += size;
  const auto it = sizes_.find(entry);
  if (it != sizes_.end() && it->second > 0) {
    policy_->hit(entry);
    return;
  }
  ++counts_.misses;
  counts_.bytes_missed += size;
  if (it != sizes_.end()) counts_.bytes_refetched += size;
  load(entry, size);
}

void Cache::load(eviction::Entry entry, uint64_t size) {
  policy_->expect(entry, size);
  if (size > capacity_ || !policy_->admits(size)) return;
  while (used_ + size > capacity_) {
    const auto victim = policy_->evict();
    assert(victim);
    used_ -= std::exchange(sizes_[*victim], 0);
  }
  policy_->insert(entry, size);
  sizes_[entry] = size;
  used_ += size;
}

}  // namespace bigcast::bench
