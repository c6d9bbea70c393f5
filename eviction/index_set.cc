#include "eviction/index_set.h"

#include <algorithm>
#include <bit>

namespace bigcast::eviction {
namespace {

constexpr uint32_t kBits = 64;

// Of the bits of `words` in ascending order.
std::optional<uint32_t> last_bit_before(const std::vector<uint64_t>& words, uint64_t end) {
  end = std::min<uint64_t>(end, words.size() * kBits);
  while (end > 0) {
    const uint64_t at = (end - 1) / kBits;
    const uint64_t word = words[at] << (kBits - 1 - (end - 1) % kBits);
    if (word != 0) return static_cast<uint32_t>(end - 1 - std::countl_zero(word));
    end = at * kBits;
  }
  return std::nullopt;
}

std::optional<uint32_t> first_bit_from(const std::vector<uint64_t>& words, uint64_t begin) {
  while (begin < words.size() * kBits) {
    const uint64_t word = words[begin / kBits] >> begin % kBits;
    if (word != 0) return static_cast<uint32_t>(begin + std::countr_zero(word));
    begin = (begin / kBits + 1) * kBits;
  }
  return std::nullopt;
}

}  // namespace

void IndexSet::add(uint32_t index) {
  const uint32_t at = index / kBits;
  if (at >= words_.size()) {
    words_.resize(at + 1);
    summary_.resize(at / kBits + 1);
  }
  words_[at] |= 1ull << index % kBits;
  summary_[at / kBits] |= 1ull << at % kBits;
  ++count_;
}

void IndexSet::remove(uint32_t index) {
  const uint32_t at = index / kBits;
  words_[at] &= ~(1ull << index % kBits);
  if (words_[at] == 0) summary_[at / kBits] &= ~(1ull << at % kBits);
  --count_;
}

std::optional<uint32_t> IndexSet::last_before(uint32_t end) const {
  const uint32_t at = end / kBits;
  if (at < words_.size() && end % kBits != 0) {
    const uint64_t below = words_[at] & ((1ull << end % kBits) - 1);
    if (below != 0) return at * kBits + kBits - 1 - std::countl_zero(below);
  }
  const auto word = last_bit_before(summary_, at);
  if (!word) return std::nullopt;
  return *word * kBits + kBits - 1 - std::countl_zero(words_[*word]);
}

std::optional<uint32_t> IndexSet::first_from(uint32_t begin) const {
  const uint32_t at = begin / kBits;
  if (at >= words_.size()) return std::nullopt;
  const uint64_t above = words_[at] >> begin % kBits;
  if (above != 0) return begin + std::countr_zero(above);
  const auto word = first_bit_from(summary_, at + 1);
  if (!word) return std::nullopt;
  return *word * kBits + std::countr_zero(words_[*word]);
}

}  // namespace bigcast::eviction
