#include "server/swarm.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <list>
#include <numeric>
#include <set>

#include "base/limits.h"

namespace bigcast::testing {
namespace {

constexpr uint32_t kChunkSize = 2 * limits::kMiB;
constexpr uint32_t kHomeLoadMax = 16;
constexpr uint32_t kPeerLoadMax = 8;
constexpr uint32_t kFresh = limits::kFreshAtOnce;
using Assignment = Swarm::Assignment;
using Failure = Swarm::Failure;

std::vector<uint32_t> upto(uint32_t count, uint32_t from = 0) {
  std::vector<uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), from);
  return indices;
}

struct Rules {
  explicit Rules(uint32_t chunks) {
    for (uint32_t i = 0; i < chunks; i++) swarm.home_has(i);
  }
  Swarm::Member join(std::vector<uint32_t> wanted = {}, bool can_serve = true) {
    const auto member = swarm.join(can_serve);
    swarm.want(member, std::move(wanted));
    return member;
  }
  Swarm::Member holder(const std::vector<uint32_t>& chunks) {
    const auto member = join();
    for (const uint32_t index : chunks) swarm.gained(member, index);
    return member;
  }
  Swarm swarm{1, kChunkSize};
};

TEST_CASE("fresh chunks come from the home, lowest first, a few at a time") {
  Rules rules(20);
  const auto a = rules.join(upto(20));
  for (uint32_t i = 0; i < kHomeLoadMax; i++) {
    CHECK(rules.swarm.assign(a) == Assignment{i, {}});
  }
  CHECK(rules.swarm.home_load() == kHomeLoadMax);
  CHECK_FALSE(rules.swarm.assign(a));
  rules.swarm.gained(a, 0);
  CHECK(rules.swarm.assign(a) == Assignment{kHomeLoadMax, {}});
}

TEST_CASE("those that can get them from each other get fresh chunks by twos") {
  Rules rules(20);
  constexpr uint32_t kFed = kHomeLoadMax / kFresh;
  std::vector<Swarm::Member> members;
  for (uint32_t i = 0; i <= kFed; i++) members.push_back(rules.join(upto(20)));
  for (uint32_t i = 0; i < kHomeLoadMax; i++) {
    const auto member = members[i / kFresh];
    CHECK(rules.swarm.assign(member) == Assignment{i, {}});
    if (i % kFresh == 1) CHECK_FALSE(rules.swarm.assign(member));
  }
  CHECK_FALSE(rules.swarm.assign(members.back()));  // the home is busy
  rules.swarm.gained(members[0], 0);
  CHECK(rules.swarm.assign(members[0]) == Assignment{kHomeLoadMax, {}});
  CHECK(rules.swarm.assign(members[1]) == Assignment{0, members[0]});
}

TEST_CASE("who has all, or can't be reached, holds no other back") {
  Rules rules(20);
  const auto a = rules.join(upto(20));
  rules.join(upto(20), false);
  rules.holder(upto(1));
  for (uint32_t i = 1; i <= kHomeLoadMax; i++) {
    CHECK(rules.swarm.assign(a) == Assignment{i, {}});
  }
}

TEST_CASE("only chunks that are at home, wanted and not on their way are given") {
  Rules rules(0);
  const auto a = rules.join({3, 4});
  CHECK_FALSE(rules.swarm.assign(a));
  rules.swarm.home_has(2);
  CHECK_FALSE(rules.swarm.assign(a));
  rules.swarm.home_has(4);
  CHECK(rules.swarm.assign(a) == Assignment{4, {}});
  CHECK_FALSE(rules.swarm.assign(a));
  rules.swarm.want(a, {4});
  CHECK_FALSE(rules.swarm.assign(a));
  rules.swarm.gained(a, 4);
  CHECK_FALSE(rules.swarm.assign(a));
  rules.swarm.want(a, {4});  // its copy has gone
  CHECK(rules.swarm.assign(a) == Assignment{4, {}});
}

TEST_CASE("the least loaded holder gives, the rarest chunk first") {
  Rules rules(3);
  const auto a = rules.holder({0, 1});
  const auto b = rules.holder({0, 1, 2});
  const auto c = rules.join({0, 1, 2});
  CHECK(rules.swarm.assign(c) == Assignment{2, b});
  CHECK(rules.swarm.assign(c)->holder == a);  // b is sending already
  const auto d = rules.join({0, 1, 2});
  for (const auto member : {a, b}) rules.swarm.leave(member);
  CHECK_FALSE(rules.swarm.assign(d)->holder);
}

TEST_CASE("a holder gives to a few at a time, beside a home that idles") {
  Rules rules(1);
  const auto b = rules.holder({0});
  const auto d = rules.join({0});
  CHECK(rules.swarm.assign(d) == Assignment{0, b});
  CHECK(rules.swarm.assign(rules.join({0})) == Assignment{0, {}});  // b sends already
  CHECK(rules.swarm.assign(rules.join({0})) == Assignment{0, b});   // as much as the home
  CHECK(rules.swarm.assign(rules.join({0})) == Assignment{0, {}});
  for (uint32_t load = kFresh; load < kPeerLoadMax; load++) {
    CHECK(rules.swarm.assign(rules.join({0})) == Assignment{0, b});
  }
  const auto g = rules.join({0});
  CHECK_FALSE(rules.swarm.assign(g));  // now b has no room, and the home does not idle
  rules.swarm.gained(d, 0);
  CHECK(rules.swarm.assign(g)->holder == d);
}

TEST_CASE("a home that has fresh chunks to send repeats none") {
  Rules rules(kFresh + 1);
  const auto b = rules.holder({0});
  const auto d = rules.join(upto(kFresh, 1));
  for (uint32_t i = 0; i < kFresh; i++) CHECK(rules.swarm.assign(d) == Assignment{1 + i, {}});
  CHECK(rules.swarm.assign(rules.join({0})) == Assignment{0, b});
  CHECK(rules.swarm.assign(rules.join({0})) == Assignment{0, b});
}

TEST_CASE("a member that nobody can reach gets chunks and gives none") {
  Rules rules(1);
  const auto a = rules.join({0}, false);
  CHECK(rules.swarm.assign(a) == Assignment{0, {}});
  const auto b = rules.join({0});
  CHECK(rules.swarm.assign(b) == Assignment{0, {}});  // what a receives will not spread
  rules.swarm.gained(a, 0);
  rules.swarm.gained(b, 0);
  const auto c = rules.join({0});
  CHECK(rules.swarm.assign(c) == Assignment{0, b});
}

TEST_CASE("a holder that failed is not asked for that chunk again, then not at all") {
  Rules rules(4);
  const auto liar = rules.holder(upto(4));
  const auto a = rules.join({0});
  CHECK(rules.swarm.assign(a) == Assignment{0, liar});
  rules.swarm.failed(a, 0, Failure::kFailed);
  CHECK(rules.swarm.assign(a) == Assignment{0, {}});
  rules.swarm.gained(a, 0);
  rules.swarm.want(a, {1});
  CHECK(rules.swarm.assign(a) == Assignment{1, liar});
  rules.swarm.failed(a, 1, Failure::kFailed);
  rules.swarm.want(a, {2, 3});
  CHECK(rules.swarm.assign(a) == Assignment{2, {}});
  CHECK(rules.swarm.assign(a) == Assignment{3, {}});
  const auto b = rules.join({3});
  CHECK(rules.swarm.assign(b) == Assignment{3, liar});  // it failed a only
}

TEST_CASE("a chunk that failed twice comes from the home, whoever else has it") {
  Rules rules(1);
  const auto first = rules.holder({0});
  const auto second = rules.holder({0});
  rules.holder({0});
  const auto a = rules.join({0});
  std::set<std::optional<Swarm::Member>> asked;
  for (uint32_t i = 0; i < limits::kChunkFailuresMax; i++) {
    asked.insert(rules.swarm.assign(a)->holder);
    rules.swarm.failed(a, 0, Failure::kFailed);
  }
  CHECK(asked == std::set<std::optional<Swarm::Member>>{first, second});
  CHECK(rules.swarm.assign(a) == Assignment{0, {}});
}

TEST_CASE("absent clears the holder's bit; declined is nobody's fault") {
  Rules rules(1);
  const auto holder = rules.holder({0});
  const auto a = rules.join({0});
  CHECK(rules.swarm.assign(a) == Assignment{0, holder});
  rules.swarm.failed(a, 0, Failure::kDeclined);
  CHECK(rules.swarm.assign(a) == Assignment{0, holder});
  rules.swarm.failed(a, 0, Failure::kAbsent);
  const auto b = rules.join({0});
  CHECK(rules.swarm.assign(b) == Assignment{0, {}});
  CHECK_FALSE(rules.swarm.assign(a));  // b will have it soon
  rules.swarm.gained(b, 0);
  CHECK(rules.swarm.assign(a) == Assignment{0, b});
}

TEST_CASE("what a member that leaves or falls silent had or was getting is given anew") {
  for (const bool leaves : {true, false}) {
    Rules rules(3);
    const auto holder = rules.holder({0});
    const auto going = rules.join({1, 2});
    const auto a = rules.join({0, 1, 2});
    CHECK(rules.swarm.assign(going) == Assignment{1, {}});
    CHECK(rules.swarm.assign(a) == Assignment{2, {}});
    CHECK(rules.swarm.assign(a) == Assignment{0, holder});
    CHECK_FALSE(rules.swarm.assign(a));
    const auto go = [&](Swarm::Member member) {
      leaves ? rules.swarm.leave(member) : rules.swarm.set_silent(member, true);
    };
    go(going);
    CHECK(rules.swarm.home_load() == 1);
    CHECK(rules.swarm.assign(a) == Assignment{1, {}});
    go(holder);
    rules.swarm.failed(a, 0, Failure::kFailed);
    CHECK(rules.swarm.assign(a) == Assignment{0, {}});
    if (leaves) continue;
    rules.swarm.set_silent(going, false);
    rules.swarm.gained(going, 1);
    rules.swarm.gained(a, 0);
    rules.swarm.gained(a, 1);
    rules.swarm.gained(a, 2);
    CHECK(rules.swarm.home_load() == 0);
    const auto b = rules.join({1});
    CHECK(rules.swarm.assign(b)->holder.has_value());
  }
}

TEST_CASE("what is late on its way to a slow member comes to others from elsewhere") {
  Rules rules(2 * kHomeLoadMax);
  const auto slow = rules.join(upto(kHomeLoadMax));
  for (uint32_t i = 0; i < kHomeLoadMax; i++) CHECK(rules.swarm.assign(slow));
  const auto fast = rules.join(upto(2 * kHomeLoadMax));
  CHECK_FALSE(rules.swarm.assign(fast));
  for (uint32_t i = 0; i < limits::kFlightLateBeatsMax; i++) rules.swarm.beat();
  CHECK_FALSE(rules.swarm.assign(fast));
  rules.swarm.beat();
  CHECK(rules.swarm.home_load() == 0);
  for (uint32_t i = 0; i < kHomeLoadMax; i++) {
    CHECK(rules.swarm.assign(fast) == Assignment{i, {}});
    rules.swarm.gained(fast, i);
  }
  CHECK_FALSE(rules.swarm.assign(slow));  // all that it wants is on its way
  rules.swarm.gained(slow, 0);
  CHECK(rules.swarm.home_load() == 0);
}

TEST_CASE("late is measured by what is usual") {
  Rules rules(3);
  const auto a = rules.join({0, 1});
  CHECK(rules.swarm.assign(a) == Assignment{0, {}});
  rules.swarm.gained(a, 0);  // within a beat
  CHECK(rules.swarm.assign(a) == Assignment{1, {}});
  for (uint32_t i = 0; i < limits::kFlightLateBeatsMin; i++) rules.swarm.beat();
  CHECK(rules.swarm.home_load() == 1);
  rules.swarm.beat();
  CHECK(rules.swarm.home_load() == 0);
}

TEST_CASE("a holder that is late with a chunk is given to nobody until it has caught up") {
  for (const bool arrives : {true, false}) {
    Rules rules(2);
    const auto holder = rules.holder({0, 1});
    const auto a = rules.join({0});
    CHECK(rules.swarm.assign(a) == Assignment{0, holder});
    for (uint32_t i = 0; i <= limits::kFlightLateBeatsMax; i++) rules.swarm.beat();
    const auto b = rules.join({1}, false);
    CHECK(rules.swarm.assign(b) == Assignment{1, {}});
    if (arrives) {
      rules.swarm.gained(a, 0);
    } else {
      rules.swarm.leave(a);
    }
    const auto c = rules.join({1});
    CHECK(rules.swarm.assign(c) == Assignment{1, holder});
  }
}

// Hosts with one link each, all equally fast: connections share it, and what goes over a connection
// goes one after the other. One unit of time is one chunk over a whole link. A chunk begins to come
// a while after it was given.
class Simulation {
 public:
  Simulation(uint64_t seed, uint32_t hosts, uint32_t chunks)
      : chunks_(chunks), random_(seed), swarm_(seed, kChunkSize), hosts_(hosts) {
    for (Host& host : hosts_) {
      host.member = swarm_.join(true);
      by_member_[host.member] = &host;
      host.has.resize(chunks);
    }
  }
  // One in this many transfers fails; and that host is gone once it has half of the blob.
  uint32_t failures_one_in = 0;
  bool one_leaves = false;

  // Returns time / (S/B): 1 is the bound.
  double run() {
    uint32_t written = 0;
    double time = 0;
    for (; !done(); time += kTick) {
      REQUIRE_MESSAGE(time < 20.0 * chunks_, "they get nowhere");
      while (written < chunks_ && written <= time * 1.2) swarm_.home_has(written++);
      if (one_leaves && !hosts_[0].gone && hosts_[0].count > chunks_ / 2) leave(hosts_[0]);
      hand_out(time);
      advance(time);
    }
    return time / chunks_;
  }
  double sent_by_home() const { return static_cast<double>(sent_by_home_) / chunks_; }

 private:
  static constexpr double kTick = 1.0 / 16;
  static constexpr double kLatency = 0.25;
  struct Transfer {
    uint32_t index;
    std::optional<Swarm::Member> from;
    double starts;
    double progress = 0;
  };
  struct Host {
    Swarm::Member member = 0;
    std::vector<bool> has;
    uint32_t count = 0;
    bool gone = false;
    std::vector<Transfer> transfers;
  };

  bool done() const {
    return std::ranges::all_of(hosts_, [&](const Host& h) { return h.gone || h.count == chunks_; });
  }
  void leave(Host& host) {
    host.gone = true;
    swarm_.leave(host.member);
    by_member_.erase(host.member);
  }
  void hand_out(double time) {
    for (Host& host : hosts_) {
      if (host.gone) continue;
      std::vector<uint32_t> wanted;
      const auto first = std::ranges::find(host.has, false) - host.has.begin();
      for (uint32_t i = static_cast<uint32_t>(first);
           i < std::min<size_t>(chunks_, static_cast<size_t>(first) + limits::kWindowChunks); i++) {
        if (!host.has[i]) wanted.push_back(i);
      }
      swarm_.want(host.member, std::move(wanted));
    }
    const size_t turn = random_();
    for (bool any = true; any;) {
      any = false;
      for (size_t i = 0; i < hosts_.size(); i++) {
        Host& host = hosts_[(turn + i) % hosts_.size()];
        if (host.gone || host.transfers.size() >= fetches_at_once(kChunkSize)) continue;
        const auto assignment = swarm_.assign(host.member);
        if (!assignment) continue;
        for (const Transfer& other : host.transfers) REQUIRE(other.index != assignment->index);
        host.transfers.push_back({assignment->index, assignment->holder, time + 2 * kLatency});
        sent_by_home_ += assignment->holder ? 0 : 1;
        any = true;
      }
    }
  }
  // What goes over a connection now: the first transfer between two hosts.
  struct Connection {
    Transfer* transfer;
    std::array<uint32_t, 2> links;  // the sender's way out, the receiver's way in
    double rate = 0;
  };
  std::vector<Connection> connections(double time) {
    std::vector<Connection> found;
    for (Host& host : hosts_) {
      std::set<uint32_t> senders;
      for (Transfer& transfer : host.transfers) {
        const uint32_t out = transfer.from ? 2 * (*transfer.from + 1) : 0;
        if (transfer.starts > time || !senders.insert(out).second) continue;
        found.push_back({&transfer, {out, 2 * host.member + 1}});
      }
    }
    return found;
  }
  // Max-min fair: all rates grow together, and those over a link that is full stay as they are.
  static void share_links(std::vector<Connection>& all) {
    std::map<uint32_t, double> left;
    std::list<Connection*> growing;
    for (Connection& one : all) {
      growing.push_back(&one);
      for (const uint32_t link : one.links) left[link] = 1;
    }
    while (!growing.empty()) {
      std::map<uint32_t, uint32_t> users;
      for (const Connection* one : growing) {
        for (const uint32_t link : one->links) users[link]++;
      }
      double more = 1;
      for (const auto& [link, count] : users) more = std::min(more, left[link] / count);
      for (const auto& [link, count] : users) left[link] -= more * count;
      for (Connection* one : growing) one->rate += more;
      std::erase_if(growing, [&](const Connection* one) {
        return std::ranges::any_of(one->links, [&](uint32_t link) { return left[link] < 1e-9; });
      });
    }
  }
  void advance(double time) {
    auto all = connections(time);
    share_links(all);
    for (const Connection& one : all) one.transfer->progress += one.rate * kTick;
    for (Host& host : hosts_) {
      if (host.gone) continue;
      std::erase_if(host.transfers, [&](Transfer& transfer) {
        if (transfer.from && !by_member_.contains(*transfer.from)) {
          swarm_.failed(host.member, transfer.index, Failure::kFailed);
          return true;
        }
        if (transfer.progress < 1) return false;
        if (failures_one_in != 0 && random_() % failures_one_in == 0) {
          swarm_.failed(host.member, transfer.index, Failure::kFailed);
          return true;
        }
        swarm_.gained(host.member, transfer.index);
        host.has[transfer.index] = true;
        host.count++;
        return true;
      });
    }
  }

  const uint32_t chunks_;
  std::mt19937_64 random_;
  Swarm swarm_;
  std::vector<Host> hosts_;
  std::map<Swarm::Member, Host*> by_member_;
  uint64_t sent_by_home_ = 0;
};

TEST_CASE("a simulated blob reaches every host in about the time of one transfer") {
  const uint64_t seed = std::random_device()();
  for (const uint32_t hosts : {1, 2, 4, 8, 32}) {
    Simulation simulation(seed, hosts, 256);
    const double ratio = simulation.run();
    INFO("seed " << seed << ", " << hosts << " hosts: " << ratio << " of the bound, the home sent "
                 << simulation.sent_by_home());
    CHECK(ratio <= 1.2);
    CHECK(simulation.sent_by_home() <= 1.1);
  }
}

TEST_CASE("simulated hosts finish though transfers fail and one of them leaves") {
  const uint64_t seed = std::random_device()();
  Simulation simulation(seed, 8, 128);
  simulation.failures_one_in = 20;
  simulation.one_leaves = true;
  const double ratio = simulation.run();
  INFO("seed " << seed << ": " << ratio << ", the home sent " << simulation.sent_by_home());
  CHECK(ratio <= 2);
  CHECK(simulation.sent_by_home() <= 2);
}

}  // namespace
}  // namespace bigcast::testing
