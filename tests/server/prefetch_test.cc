#include <doctest/doctest.h>

#include <string>

#include "tests/server/fixture.h"

namespace bigcast::testing {
namespace {

constexpr uint32_t kPrefetchedChunks = 64;

uint64_t fetched(Metrics& metrics) {
  return metrics.chunks_fetched_home + metrics.chunks_fetched_peer;
}

// A home with a writer, and a relay whose reader has it follow the home.
struct Prefetching {
  explicit Prefetching(uint64_t relay_memory = 64 * limits::kMiB)
      : home(loop),
        relay(loop, [&](Config& config) { config.memory_bytes = relay_memory; }),
        writer(login(loop, home.tcp(), {.lease = lease})),
        at_home(loop, writer.session),
        reader(login(loop, relay.tcp(), {.lease = lease})),
        at_relay(loop, reader.session) {
    REQUIRE(follow(reader));
  }

  Result<void> follow(TestClient& client) {
    auto request = client.session.followHomeRequest();
    rpc::write(home.tcp(), request.initHome());
    const auto response = request.send().wait(loop.wait_scope());
    if (response.getResult().isOk()) return {};
    return tl::unexpected(rpc::read(response.getResult().getError()));
  }
  Created create(const NewBlob& blob) {
    auto created = at_home.create(blob);
    REQUIRE(created);
    return *created;
  }
  rpc::BlobRefData put(const std::string& name, uint32_t chunks, uint64_t announce_from = 1) {
    return at_home.put_blob({.name = name, .until_removed = false, .announce_from = announce_from},
                            chunks);
  }
  void run_until_fetched(uint64_t chunks) {
    run_until(
        loop, [&] { return fetched(relay.metrics()) >= chunks; },
        std::to_string(chunks) + " chunks");
    CHECK(fetched(relay.metrics()) == chunks);
  }
  void read_all(const rpc::BlobRefData& ref, uint32_t chunks) {
    auto blob = at_relay.open_ref(ref);
    REQUIRE(blob);
    for (uint32_t i = 0; i < chunks; i++) CHECK(matches(read(loop, *blob, i), make_chunk(i)));
  }

  rpc::UvLoop loop;
  const LeaseId lease = LeaseId::random();
  TestNode home;
  TestNode relay;
  TestClient writer;
  Caller at_home;
  TestClient reader;
  Caller at_relay;
};

TEST_CASE("a relay fetches what its home announces before anybody reads it") {
  Prefetching hosts;
  const auto ref = hosts.put("blob", kPrefetchedChunks);
  hosts.run_until_fetched(kPrefetchedChunks);
  CHECK(hosts.relay.metrics().bytes_prefetched == uint64_t{kPrefetchedChunks} * kSmallChunk);
  hosts.read_all(ref, kPrefetchedChunks);
  CHECK(fetched(hosts.relay.metrics()) == kPrefetchedChunks);
  REQUIRE(hosts.at_home.remove_name("blob"));
  run_until(
      hosts.loop, [&] { return hosts.relay.metrics().relayed_blobs == 0; }, "its end");
  CHECK(hosts.relay.metrics().bytes_prefetch_wasted == 0);
}

TEST_CASE("a relay fetches while the blob is written") {
  Prefetching hosts;
  auto created = hosts.create({.until_removed = false, .announce_from = 1});
  for (uint32_t i = 0; i < kPrefetchedChunks / 2; i++) {
    REQUIRE(hosts.at_home.send(created.upload, make_chunk(i)));
  }
  hosts.run_until_fetched(kPrefetchedChunks / 2);
  for (uint32_t i = kPrefetchedChunks / 2; i < kPrefetchedChunks; i++) {
    REQUIRE(hosts.at_home.send(created.upload, make_chunk(i)));
  }
  hosts.run_until_fetched(kPrefetchedChunks);
  REQUIRE(hosts.at_home.seal(created.upload, uint64_t{kPrefetchedChunks} * kSmallChunk,
                             kPrefetchedChunks));
  hosts.read_all(created.ref, kPrefetchedChunks);
}

TEST_CASE("a blob is announced once it is known to have the size that its writer set") {
  Prefetching hosts;
  const uint64_t from = 4 * uint64_t{kSmallChunk};
  const auto news = [&](TestClient& client) {
    return client.session.announcementsRequest().send();
  };
  auto heard = news(hosts.writer);
  const NewBlob blob{.name = "grows", .until_removed = false, .announce_from = from};
  auto created = hosts.create(blob);
  for (uint32_t i = 0; i < 3; i++) REQUIRE(hosts.at_home.send(created.upload, make_chunk(i)));
  CHECK_FALSE(heard.poll(hosts.loop.wait_scope()));
  REQUIRE(hosts.at_home.send(created.upload, make_chunk(3)));
  auto response = heard.wait(hosts.loop.wait_scope());
  REQUIRE(response.getBlobs().size() == 1);
  CHECK(rpc::read(response.getBlobs()[0].getId()) == created.ref.id);

  // A size that is given at the start counts at once; none at all never does.
  auto request = hosts.writer.session.announcementsRequest();
  request.setSeen(response.getSeen());
  auto next = request.send();
  hosts.put("never", 8, 0);
  CHECK_FALSE(next.poll(hosts.loop.wait_scope()));
  hosts.create(
      {.name = "known", .size = int64_t{1} << 20, .until_removed = false, .announce_from = from});
  CHECK(next.wait(hosts.loop.wait_scope()).getBlobs().size() == 1);
}

TEST_CASE("only sessions of the blob's namespace and lease hear of it") {
  Prefetching hosts;
  TestClient other_lease = login(hosts.loop, hosts.home.tcp(), {.lease = LeaseId::random()});
  TestClient other_space =
      login(hosts.loop, hosts.home.tcp(), {.name_space = "other", .lease = hosts.lease});
  auto first = other_lease.session.announcementsRequest().send();
  auto second = other_space.session.announcementsRequest().send();
  hosts.put("blob", 8);
  hosts.run_until_fetched(8);
  CHECK_FALSE(first.poll(hosts.loop.wait_scope()));
  CHECK_FALSE(second.poll(hosts.loop.wait_scope()));
}

TEST_CASE("prefetch takes free memory only, and leaves before what was read") {
  constexpr uint32_t kFit = 128;  // chunks in 8 MiB
  Prefetching hosts(8 * limits::kMiB);
  const auto& metrics = hosts.relay.metrics();
  const auto asked_for = hosts.put("asked for", kPrefetchedChunks, 0);
  hosts.read_all(asked_for, kPrefetchedChunks);
  hosts.put("big", 2 * kFit);
  hosts.run_until_fetched(kFit);
  hosts.read_all(asked_for, kPrefetchedChunks);
  CHECK(metrics.chunks_refetched == 0);
  CHECK(hosts.relay.core().store->usage().chunks_dropped == 0);

  // What is read now needs room, which unread chunks make.
  const auto also_asked_for = hosts.put("also asked for", kPrefetchedChunks / 2, 0);
  hosts.read_all(also_asked_for, kPrefetchedChunks / 2);
  CHECK(hosts.relay.core().store->usage().chunks_dropped >= kPrefetchedChunks / 2);
  const uint64_t before = fetched(hosts.relay.metrics());
  hosts.read_all(asked_for, kPrefetchedChunks);
  hosts.read_all(also_asked_for, kPrefetchedChunks / 2);
  CHECK(fetched(hosts.relay.metrics()) == before);
}

TEST_CASE("copies that were asked to go are not fetched again before they are read") {
  Prefetching hosts;
  const auto ref = hosts.put("blob", kPrefetchedChunks);
  hosts.run_until_fetched(kPrefetchedChunks);
  REQUIRE(hosts.at_home.drop_copies(ref.id));
  run_until(
      hosts.loop, [&] { return hosts.relay.core().store->usage().memory_used == 0; }, "the drop");
  CHECK(hosts.relay.metrics().bytes_prefetch_wasted == uint64_t{kPrefetchedChunks} * kSmallChunk);
  // A relay that hears of all that is announced hears of it no more.
  TestClient late = login(hosts.loop, hosts.home.tcp(), {.lease = hosts.lease});
  CHECK_FALSE(late.session.announcementsRequest().send().poll(hosts.loop.wait_scope()));
  hosts.read_all(ref, kPrefetchedChunks);
}

TEST_CASE("a home is followed again when it is back, and no longer than its readers stay") {
  Prefetching hosts;
  hosts.put("first", 8);
  hosts.run_until_fetched(8);
  // The relay's session at the home is the one that the test did not make.
  CHECK(hosts.home.metrics().sessions >= 2);
  { const TestClient gone = kj::mv(hosts.reader); }
  run_until(
      hosts.loop, [&] { return hosts.home.metrics().sessions == 1; }, "the links' end");
  hosts.put("second", 8);
  TestClient back = login(hosts.loop, hosts.relay.tcp(), {.lease = hosts.lease});
  REQUIRE(hosts.follow(back));
  hosts.run_until_fetched(16);
}

TEST_CASE("following needs a lease and a home that can be dialled") {
  Prefetching hosts;
  TestClient no_lease = login(hosts.loop, hosts.relay.tcp());
  CHECK(hosts.follow(no_lease).error().code == ErrorCode::kInvalidArgument);
  const auto response =
      hosts.reader.session.followHomeRequest().send().wait(hosts.loop.wait_scope());
  REQUIRE(response.getResult().isError());
  CHECK(rpc::read(response.getResult().getError()).code == ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace bigcast::testing
