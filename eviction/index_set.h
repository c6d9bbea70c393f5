#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace bigcast::eviction {

// A set of chunk indices: one bit each, and above them one bit for every 64 of those, so that the
// nearest member is a matter of at most 256 words even in the largest blob (2^20 chunks).
class IndexSet {
 public:
  bool empty() const { return count_ == 0; }
  void add(uint32_t index);     // Requires: not in it.
  void remove(uint32_t index);  // Requires: in it.
  std::optional<uint32_t> last_before(uint32_t end) const;
  std::optional<uint32_t> first_from(uint32_t begin) const;

 private:
  std::vector<uint64_t> words_;
  std::vector<uint64_t> summary_;
  uint32_t count_ = 0;
};

}  // namespace bigcast::eviction
