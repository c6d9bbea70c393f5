#include <doctest/doctest.h>
#include <kj/vector.h>
#include <signal.h>

#include <list>
#include <string>
#include <vector>

#include "server/swarm.h"
#include "tests/server/fixture.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/node_process.h"

namespace bigcast::testing {
namespace {

constexpr uint32_t kChunks = 64;
constexpr uint32_t kLanes = limits::kDownloadWindowChunks;

// Chunks lane, lane + kLanes, ... one after the other; gives how many were right.
kj::Promise<uint32_t> read_lane(rpc::Blob::Client blob, uint32_t index) {
  if (index >= kChunks) return uint32_t{0};
  return start_read(blob, index).then([blob, index](const ReadAnswer& answer) mutable {
    const uint32_t right = matches(answer, make_chunk(index)) ? 1 : 0;
    if (answer.error) MESSAGE("chunk " << index << ": " << answer.error->to_string());
    return read_lane(kj::mv(blob), index + kLanes).then([right](uint32_t more) {
      return right + more;
    });
  });
}

kj::Promise<uint32_t> read_blob(rpc::Blob::Client blob) {
  kj::Vector<kj::Promise<uint32_t>> lanes;
  for (uint32_t lane = 0; lane < kLanes; lane++) lanes.add(read_lane(blob, lane));
  return kj::joinPromises(lanes.releaseAsArray()).then([](const kj::Array<uint32_t>& counts) {
    uint32_t right = 0;
    for (const uint32_t count : counts) right += count;
    return right;
  });
}

struct Hosts {
  explicit Hosts(uint32_t count)
      : home(loop),
        writer(login(loop, home.tcp(), {.lease = lease})),
        at_home(loop, writer.session) {
    for (uint32_t i = 0; i < count; i++) add();
  }
  Host& add(const std::function<void(Config&)>& adjust = {}) {
    return relays.emplace_back(loop, lease, adjust);
  }
  rpc::BlobRefData put() { return at_home.put_blob({.until_removed = false}, kChunks); }
  // Starts a reader at each relay.
  void start(const rpc::BlobRefData& ref) {
    for (Host& host : relays) {
      auto blob = host.caller.open_ref(ref);
      REQUIRE_MESSAGE(blob, (blob ? "" : blob.error().to_string()));
      reads.push_back(read_blob(*blob));
    }
  }
  void check_all_right() {
    for (auto& read : reads) CHECK(read.wait(loop.wait_scope()) == kChunks);
    reads.clear();
  }
  uint64_t from_peers() {
    uint64_t count = 0;
    for (Host& host : relays) count += host.node.metrics().chunks_fetched_peer;
    return count;
  }
  uint64_t peer_failures() {
    uint64_t count = 0;
    for (Host& host : relays) count += host.node.metrics().peer_fetch_failures;
    return count;
  }

  rpc::UvLoop loop;
  const LeaseId lease = LeaseId::random();
  TestNode home;
  TestClient writer;
  Caller at_home;
  std::list<Host> relays;
  std::vector<kj::Promise<uint32_t>> reads;
};

TEST_CASE("relays get a blob from each other; its home sends it about once") {
  Hosts hosts(4);
  hosts.start(hosts.put());
  hosts.check_all_right();
  CHECK(hosts.home.metrics().chunks_served() <= kChunks * 13 / 10);
  for (Host& host : hosts.relays) {
    CHECK(host.fetched() == kChunks);
    CHECK(host.node.metrics().chunks_refetched == 0);
    CHECK(host.node.core().credits->bytes_used() == 0);
  }
  CHECK(hosts.from_peers() >= 3 * kChunks - kChunks * 3 / 10);
  CHECK(hosts.peer_failures() == 0);
}

TEST_CASE("relays spread a blob while it is written") {
  Hosts hosts(3);
  auto created = hosts.at_home.create({.until_removed = false});
  REQUIRE(created);
  hosts.start(created->ref);
  for (uint32_t i = 0; i < kChunks; i++) {
    REQUIRE(hosts.at_home.send(created->upload, make_chunk(i)));
  }
  REQUIRE(hosts.at_home.seal(created->upload, uint64_t{kChunks} * kSmallChunk, kChunks));
  hosts.check_all_right();
  CHECK(hosts.from_peers() > 0);
  for (Host& host : hosts.relays) CHECK(host.fetched() == kChunks);
}

TEST_CASE("a relay that goes in mid-transfer costs the others nothing but time") {
  Hosts hosts(4);
  hosts.start(hosts.put());
  run_until(
      hosts.loop, [&] { return hosts.relays.front().fetched() > kChunks / 4; }, "some chunks");
  hosts.reads.erase(hosts.reads.begin());
  hosts.relays.pop_front();
  hosts.check_all_right();
}

TEST_CASE("a relay that nobody can reach follows, and gives nothing") {
  Hosts hosts(1);
  hosts.add([](Config& config) {
    config.listen.clear();
    config.socket = *rpc::Address::parse(unique_socket());
  });
  hosts.start(hosts.put());
  hosts.check_all_right();
  CHECK(hosts.relays.back().node.metrics().bytes_served_peer == 0);
  CHECK(hosts.peer_failures() == 0);
}

TEST_CASE("a peer whose bytes are damaged is left; readers get the right ones from elsewhere") {
  test::FaultProxy liar;
  Hosts hosts(0);
  Host& first =
      hosts.add([&](Config& config) { config.advertise = *rpc::Address::parse(liar.address()); });
  liar.forward_to(first.node.tcp().to_string());
  liar.flip_every(40'000);  // logins are shorter, chunks are not
  const auto ref = hosts.put();
  hosts.start(ref);
  hosts.check_all_right();  // it has all of the blob
  hosts.add();
  hosts.add();
  hosts.start(ref);
  hosts.check_all_right();
  CHECK(liar.flips() > 0);
  CHECK(hosts.peer_failures() > 0);
  // Each of the others is failed twice by it, then leaves it.
  CHECK(hosts.peer_failures() <= 2 * 2 * fetches_at_once(kSmallChunk));
}

TEST_CASE("a peer that is stopped is left after a while without bytes") {
  Hosts hosts(0);
  const auto ref = hosts.put();
  test::NodeProcess stopped;
  TestClient client =
      login(hosts.loop, *rpc::Address::parse(stopped.tcp()), {.lease = hosts.lease});
  auto blob = Caller(hosts.loop, client.session).open_ref(ref);
  REQUIRE(blob);
  CHECK(read_blob(*blob).wait(hosts.loop.wait_scope()) == kChunks);
  REQUIRE(kill(stopped.pid(), SIGSTOP) == 0);
  hosts.add();
  hosts.start(ref);
  hosts.check_all_right();
  CHECK(hosts.peer_failures() > 0);
  CHECK(hosts.peer_failures() <= 2 * fetches_at_once(kSmallChunk));
  REQUIRE(kill(stopped.pid(), SIGCONT) == 0);
}

TEST_CASE("a peer that is killed is left at once") {
  Hosts hosts(0);
  const auto ref = hosts.put();
  auto killed = std::make_unique<test::NodeProcess>();
  TestClient client =
      login(hosts.loop, *rpc::Address::parse(killed->tcp()), {.lease = hosts.lease});
  auto blob = Caller(hosts.loop, client.session).open_ref(ref);
  REQUIRE(blob);
  CHECK(read_blob(*blob).wait(hosts.loop.wait_scope()) == kChunks);
  hosts.add();
  hosts.add();
  hosts.start(ref);
  run_until(
      hosts.loop, [&] { return hosts.from_peers() > 0; }, "the first chunk from a peer");
  killed->end(SIGKILL);
  hosts.check_all_right();
}

TEST_CASE("copies are read at once or absent, and only within the namespace") {
  Hosts hosts(1);
  Host& host = hosts.relays.front();
  auto created = hosts.at_home.create({.until_removed = false});
  REQUIRE(created);
  REQUIRE(hosts.at_home.send(created->upload, make_chunk(0)));
  auto blob = host.caller.open_ref(created->ref);
  REQUIRE(blob);
  CHECK(matches(read(hosts.loop, *blob, 0), make_chunk(0)));

  TestClient peer = login(hosts.loop, host.node.tcp());
  auto copy = Caller(hosts.loop, peer.session).open_copy(created->ref.id);
  REQUIRE(copy);
  CHECK(matches(read(hosts.loop, *copy, 0), make_chunk(0)));
  CHECK(read(hosts.loop, *copy, 1).is_absent);  // others wait for it
  TestClient stranger = login(hosts.loop, host.node.tcp(), {.name_space = "other"});
  CHECK(Caller(hosts.loop, stranger.session).open_copy(created->ref.id).error().code ==
        ErrorCode::kNotFound);
  REQUIRE(hosts.at_home.drop_copies(created->ref.id));
  run_until(
      hosts.loop, [&] { return read(hosts.loop, *copy, 0).is_absent; }, "the drop of copies");
}

TEST_CASE("peers keep neither each other nor their sessions alive") {
  Hosts hosts(2);
  hosts.start(hosts.put());
  hosts.check_all_right();
  CHECK(hosts.from_peers() > 0);
  for (Host& host : hosts.relays) {
    CHECK(host.node.core().attached == 1);
    const TestClient gone = kj::mv(host.client);
  }
  for (Host& host : hosts.relays) {
    run_until(
        hosts.loop, [&] { return host.node.metrics().sessions == 0; }, "the links' end");
    CHECK(host.node.core().attached == 0);
  }
}

}  // namespace
}  // namespace bigcast::testing
