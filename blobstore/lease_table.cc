#include "blobstore/lease_table.h"

#include <cassert>

namespace bigcast {

void LeaseTable::attach(LeaseId lease) { ++leases_[lease].sessions; }

void LeaseTable::detach(LeaseId lease) {
  const auto it = leases_.find(lease);
  assert(it != leases_.end() && it->second.sessions > 0);
  if (it == leases_.end() || it->second.sessions == 0) return;
  if (--it->second.sessions == 0) it->second.detached_at = clock_.now();
}

size_t LeaseTable::attached(LeaseId lease) const {
  const auto it = leases_.find(lease);
  return it == leases_.end() ? 0 : it->second.sessions;
}

std::vector<LeaseId> LeaseTable::expire() {
  std::vector<LeaseId> expired;
  const TimePoint now = clock_.now();
  for (auto it = leases_.begin(); it != leases_.end();) {
    if (it->second.sessions == 0 && now - it->second.detached_at >= grace_) {
      expired.push_back(it->first);
      it = leases_.erase(it);
    } else {
      ++it;
    }
  }
  return expired;
}

}  // namespace bigcast
