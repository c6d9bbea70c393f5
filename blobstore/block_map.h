#pragma once

#include <cstdint>
#include <vector>

namespace bigcast {

// Which blocks of one extent are taken: a bit each. Not thread-safe.
class BlockMap {
 public:
  struct Run {
    uint32_t first = 0;
    uint32_t count = 0;
  };

  explicit BlockMap(uint32_t blocks);

  uint32_t blocks() const { return blocks_; }
  uint32_t free() const { return free_; }

  // The next free run at or after `from` of at least `least` blocks, cut to `most`; count 0: none.
  // Requires: 1 <= least <= most.
  Run find(uint32_t from, uint32_t least, uint32_t most) const;
  // Requires: the run is within the map.
  bool is_free(Run run) const { return next(run.first, true) >= run.first + run.count; }
  // Requires: all of the run is free, or all of it taken.
  void take(Run run);
  void give(Run run);

 private:
  uint32_t next(uint32_t from, bool taken) const;  // blocks_ if there is none

  uint32_t blocks_;
  uint32_t free_;
  std::vector<uint64_t> taken_;
};

}  // namespace bigcast
