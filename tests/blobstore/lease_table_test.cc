#include "blobstore/lease_table.h"

#include <doctest/doctest.h>

#include <algorithm>

namespace bigcast {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("a lease lives while attached, however long, and for its grace afterwards") {
  ManualClock clock;
  LeaseTable leases(clock, seconds(10));
  const LeaseId lease{1, 1};
  CHECK_FALSE(leases.alive(lease));
  leases.attach(lease);
  leases.attach(lease);
  clock.advance(std::chrono::hours(1000));
  CHECK(leases.expire().empty());
  leases.detach(lease);
  clock.advance(seconds(100));
  CHECK(leases.expire().empty());
  CHECK(leases.attached(lease) == 1);

  leases.detach(lease);
  clock.advance(seconds(10) - milliseconds(1));
  CHECK(leases.expire().empty());
  CHECK(leases.alive(lease));
  clock.advance(milliseconds(1));
  CHECK(leases.expire() == std::vector<LeaseId>{lease});
  CHECK_FALSE(leases.alive(lease));
  CHECK(leases.expire().empty());
  CHECK(leases.size() == 0);
}

TEST_CASE("attaching within the grace revives a lease") {
  ManualClock clock;
  LeaseTable leases(clock, seconds(10));
  const LeaseId lease{1, 2};
  leases.attach(lease);
  leases.detach(lease);
  clock.advance(seconds(9));
  leases.attach(lease);
  clock.advance(seconds(9));
  CHECK(leases.expire().empty());
  leases.detach(lease);
  clock.advance(seconds(9));
  CHECK(leases.expire().empty());  // a new grace from the last detach
  clock.advance(seconds(1));
  CHECK(leases.expire().size() == 1);
}

TEST_CASE("leases end each on their own") {
  ManualClock clock;
  LeaseTable leases(clock, seconds(10));
  const LeaseId first{1, 0};
  const LeaseId second{2, 0};
  const LeaseId attached{3, 0};
  for (const LeaseId lease : {first, second, attached}) leases.attach(lease);
  leases.detach(first);
  clock.advance(seconds(5));
  leases.detach(second);
  clock.advance(seconds(5));
  CHECK(leases.expire() == std::vector<LeaseId>{first});
  clock.advance(seconds(5));
  CHECK(leases.expire() == std::vector<LeaseId>{second});
  CHECK(leases.alive(attached));
}

}  // namespace bigcast
