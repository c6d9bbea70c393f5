#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"

namespace bigcast {

// What keeps blobs alive. A lease lives while at least one session is attached to it and for a
// grace period afterwards; attaching again within the grace revives it. Monotonic time only.
// Not thread-safe.
class LeaseTable {
 public:
  LeaseTable(const Clock& clock, Duration grace) : clock_(clock), grace_(grace) {}

  void attach(LeaseId lease);
  void detach(LeaseId lease);  // Requires: an attach that was not yet detached.
  bool alive(LeaseId lease) const { return leases_.contains(lease); }
  size_t attached(LeaseId lease) const;
  size_t size() const { return leases_.size(); }
  // Forgets and returns the leases whose grace has ended.
  std::vector<LeaseId> expire();

 private:
  struct State {
    size_t sessions = 0;
    TimePoint detached_at{};
  };
  const Clock& clock_;
  Duration grace_;
  std::unordered_map<LeaseId, State> leases_;
};

}  // namespace bigcast
