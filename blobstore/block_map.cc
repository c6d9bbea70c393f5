#include "blobstore/block_map.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace bigcast {

BlockMap::BlockMap(uint32_t blocks)
    : blocks_(blocks), free_(blocks), taken_((blocks + 63) / 64, 0) {}

uint32_t BlockMap::next(uint32_t from, bool taken) const {
  while (from < blocks_) {
    const uint64_t word = (taken ? taken_[from / 64] : ~taken_[from / 64]) >> (from % 64);
    if (word != 0) return std::min(blocks_, from + static_cast<uint32_t>(std::countr_zero(word)));
    from = (from / 64 + 1) * 64;
  }
  return blocks_;
}

BlockMap::Run BlockMap::find(uint32_t from, uint32_t least, uint32_t most) const {
  while (true) {
    const uint32_t first = next(from, false);
    if (first >= blocks_) return {};
    const uint32_t end = next(first, true);
    if (end - first >= least) return {first, std::min(end - first, most)};
    from = end;
  }
}

void BlockMap::take(Run run) {
  for (uint32_t block = run.first; block < run.first + run.count; ++block) {
    assert((taken_[block / 64] >> (block % 64) & 1) == 0);
    taken_[block / 64] |= uint64_t{1} << (block % 64);
  }
  free_ -= run.count;
}

void BlockMap::give(Run run) {
  for (uint32_t block = run.first; block < run.first + run.count; ++block) {
    assert((taken_[block / 64] >> (block % 64) & 1) == 1);
    taken_[block / 64] &= ~(uint64_t{1} << (block % 64));
  }
  free_ += run.count;
}

}  // namespace bigcast
