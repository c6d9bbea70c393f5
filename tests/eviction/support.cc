#include "tests/eviction/support.h"

#include <algorithm>
#include <utility>

namespace bigcast::eviction {

bool UnitCache::read(Entry entry) {
  if (std::find(resident_.begin(), resident_.end(), entry) != resident_.end()) {
    policy_->hit(entry);
    return true;
  }
  policy_->expect(entry, 1);
  while (resident_.size() >= capacity_) {
    const auto victim = policy_->evict();
    REQUIRE(victim);
    REQUIRE(std::erase(resident_, *victim) == 1);
    evicted_ += static_cast<char>(*victim);
  }
  policy_->insert(entry, 1);
  resident_.push_back(entry);
  return false;
}

std::string UnitCache::read_all(std::string_view letters) {
  for (const char letter : letters) read(static_cast<unsigned char>(letter));
  return std::exchange(evicted_, {});
}

std::string drain(Policy& policy) {
  std::string letters;
  while (const auto entry = policy.evict()) letters += static_cast<char>(*entry);
  return letters;
}

}  // namespace bigcast::eviction
