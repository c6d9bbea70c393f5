#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "server/swarm.h"
#include "tests/server/fixture.h"
#include "tests/support/fault_proxy.h"

namespace bigcast::testing {
namespace {

constexpr uint32_t kRelayedChunks = 8;

// A home and a relay, a writer at the one and a reader at the other.
struct Pair {
  explicit Pair(const std::function<void(Config&)>& adjust_relay = {},
                const std::function<void(Config&)>& adjust_home = {})
      : home(loop, adjust_home),
        relay(loop, adjust_relay),
        writer(login(loop, home.tcp(), {.lease = lease})),
        reader(login(loop, relay.tcp(), {.lease = lease})),
        at_home(loop, writer.session),
        at_relay(loop, reader.session) {}

  rpc::UvLoop loop;
  const LeaseId lease = LeaseId::random();
  TestNode home;
  TestNode relay;
  TestClient writer;
  TestClient reader;
  Caller at_home;
  Caller at_relay;
};

TEST_CASE("a relay pulls each chunk once, however many readers wait") {
  Pair pair;
  const auto ref = pair.at_home.put_blob({.until_removed = false}, kRelayedChunks);
  std::vector<rpc::Blob::Client> blobs;
  for (int i = 0; i < 4; i++) {
    auto blob = pair.at_relay.open_ref(ref);
    REQUIRE_MESSAGE(blob, (blob ? "" : blob.error().to_string()));
    blobs.push_back(kj::mv(*blob));
  }
  std::vector<kj::Promise<ReadAnswer>> reads;
  for (uint32_t i = 0; i < kRelayedChunks; i++) {
    for (auto& blob : blobs) reads.push_back(start_read(blob, i));
  }
  for (size_t i = 0; i < reads.size(); i++) {
    const auto index = static_cast<uint32_t>(i / blobs.size());
    CHECK(matches(reads[i].wait(pair.loop.wait_scope()), make_chunk(index)));
  }
  CHECK(pair.home.metrics().chunks_served() == kRelayedChunks);
  CHECK(pair.relay.metrics().chunks_fetched_home == kRelayedChunks);
  CHECK(pair.relay.metrics().chunks_refetched == 0);
  CHECK(pair.relay.metrics().relay_first_chunk_seconds.sum() > 0);
  CHECK(pair.relay.metrics().relay_complete_seconds.sum() > 0);
  CHECK(pair.home.metrics().relay_complete_seconds.sum() == 0);
  CHECK(pair.relay.metrics().calls.read.sum() > 0);
  CHECK(read(pair.loop, blobs.front(), kRelayedChunks).is_end);
  CHECK(matches(read(pair.loop, blobs.front(), 0), make_chunk(0)));
  CHECK(pair.home.metrics().chunks_served() ==
        kRelayedChunks);                // the second time from the relay's store
  CHECK(pair.at_relay.list().empty());  // a relay's copies are not its blobs
}

TEST_CASE("fan-out efficiency: a blob's stored bytes over the link's speed, by the time it took") {
  constexpr auto kPause = std::chrono::milliseconds(200);
  Pair pair([](Config& config) { config.link_speed = limits::kMiB; });
  const Histogram& efficiency = pair.relay.metrics().fanout_efficiency;
  const TimePoint began = std::chrono::steady_clock::now();
  auto created = pair.at_home.create({.until_removed = false});
  REQUIRE(created);
  auto blob = pair.at_relay.open_ref(created->ref);
  REQUIRE(blob);
  for (uint32_t i = 0; i < kRelayedChunks; i++) {
    REQUIRE(pair.at_home.send(created->upload, make_chunk(i)));
    CHECK(matches(read(pair.loop, *blob, i), make_chunk(i)));
    if (i == 0) run_for(pair.loop, kPause);
  }
  CHECK(efficiency.sum() == 0);  // more may come
  REQUIRE(
      pair.at_home.seal(created->upload, uint64_t{kRelayedChunks} * kSmallChunk, kRelayedChunks));
  run_until(
      pair.loop, [&] { return efficiency.sum() > 0; }, "the relay to know that it has all");
  const double seconds = seconds_of(std::chrono::steady_clock::now() - began);
  const double least = double{kRelayedChunks} * kSmallChunk / limits::kMiB;
  const double took = pair.relay.metrics().relay_complete_seconds.sum();
  CHECK(took >= seconds_of(kPause));
  CHECK(took <= seconds);
  CHECK(efficiency.sum() == doctest::Approx(least / took));
}

TEST_CASE("readers at a relay follow the writer at home") {
  Pair pair;
  auto created = pair.at_home.create({.until_removed = false});
  REQUIRE(created);
  auto blob = pair.at_relay.open_ref(created->ref);
  REQUIRE(blob);
  auto first = start_read(*blob, 0);
  auto beyond = start_read(*blob, 1);
  run_for(pair.loop, std::chrono::milliseconds(50));
  CHECK_FALSE(first.poll(pair.loop.wait_scope()));
  CHECK(pair.relay.core().credits->bytes_used() == 0);  // waiting takes no room
  REQUIRE(pair.at_home.send(created->upload, make_chunk(0)));
  CHECK(matches(first.wait(pair.loop.wait_scope()), make_chunk(0)));
  CHECK_FALSE(beyond.poll(pair.loop.wait_scope()));
  const auto sealed = pair.at_home.seal(created->upload, kSmallChunk, 1);
  REQUIRE(sealed);
  CHECK(beyond.wait(pair.loop.wait_scope()).is_end);
  CHECK(read(pair.loop, *blob, 1).is_end);
  CHECK(pair.relay.core().store->stat(sealed->id)->root_digest == sealed->root_digest);
}

TEST_CASE("readers at a relay get ABORTED when the writer at home gives up") {
  Pair pair;
  auto created = pair.at_home.create({.until_removed = false});
  REQUIRE(created);
  auto blob = pair.at_relay.open_ref(created->ref);
  REQUIRE(blob);
  auto first = start_read(*blob, 0);
  run_for(pair.loop, std::chrono::milliseconds(50));
  created->upload = nullptr;
  const ReadAnswer answer = first.wait(pair.loop.wait_scope());
  REQUIRE(answer.error);
  const bool gone =
      answer.error->code == ErrorCode::kAborted || answer.error->code == ErrorCode::kNotFound;
  CHECK(gone);
  run_until(
      pair.loop, [&] { return pair.relay.core().store->usage().blobs == 0; },
      "the relay's copy's end");
  CHECK(pair.at_relay.open_ref(created->ref).error().code == ErrorCode::kNotFound);
}

TEST_CASE("remove and dropCopies reach the relay") {
  Pair pair;
  const auto ref = pair.at_home.put_blob({.until_removed = false}, kRelayedChunks);
  auto blob = pair.at_relay.open_ref(ref);
  REQUIRE(blob);
  for (uint32_t i = 0; i < kRelayedChunks; i++) read(pair.loop, *blob, i);
  const auto& store = *pair.relay.core().store;
  CHECK(store.usage().memory_used > 0);
  for (int round = 0; round < 2; round++) {
    REQUIRE(pair.at_home.drop_copies(ref.id));
    run_until(
        pair.loop, [&] { return store.usage().memory_used == 0; }, "the drop of copies");
    CHECK(matches(read(pair.loop, *blob, 2), make_chunk(2)));
    CHECK(store.usage().memory_used > 0);
  }
  CHECK(store.usage().blobs == 1);
  REQUIRE(pair.at_home.remove_name("blob"));
  // A chunk that is being put goes when that is done.
  run_until(
      pair.loop, [&] { return store.usage().blobs == 0 && store.usage().memory_used == 0; },
      "the removal");
  CHECK(read(pair.loop, *blob, 0).error->code == ErrorCode::kNotFound);
  CHECK(pair.relay.metrics().relayed_blobs == 0);
}

// Changes a byte of what rests in memory.
void damage(BlobStore& store, BlobId id, uint64_t offset) {
  const auto file = store.memory_file(id);
  REQUIRE(file);
  REQUIRE(fchmod(file->fd, 0600) == 0);
  const int fd = open(("/proc/self/fd/" + std::to_string(file->fd)).c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  char byte = 0;
  REQUIRE(pread(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  byte = static_cast<char>(byte ^ 1);
  REQUIRE(pwrite(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  close(fd);
  close(file->fd);
}

TEST_CASE(
    "a chunk that fails its reader's check is checked at the node, and fetched again by a relay") {
  Pair pair;
  const auto ref = pair.at_home.put_blob({}, kRelayedChunks);
  auto blob = pair.at_relay.open_ref(ref);
  REQUIRE(blob);
  for (uint32_t i = 0; i < kRelayedChunks; i++)
    CHECK(matches(read(pair.loop, *blob, i), make_chunk(i)));
  BlobStore& at_relay = *pair.relay.core().store;
  damage(at_relay, ref.id, kSmallChunk + 5);
  const ReadAnswer damaged = read(pair.loop, *blob, 1);
  CHECK(damaged.meta == make_chunk(1).meta);
  CHECK_FALSE(damaged.bytes == make_chunk(1).bytes);
  CHECK(matches(read(pair.loop, *blob, 1, rpc::ReadMode::CHECKED), make_chunk(1)));
  CHECK(at_relay.usage().checksum_failures == 1);
  CHECK(matches(read(pair.loop, *blob, 1), make_chunk(1)));

  damage(*pair.home.core().store, ref.id, kSmallChunk + 5);
  auto at_home = pair.at_home.open_home(ref.id);
  REQUIRE(at_home);
  const ReadAnswer lost = read(pair.loop, *at_home, 1, rpc::ReadMode::CHECKED);
  REQUIRE(lost.error);
  CHECK(lost.error->code == ErrorCode::kCorrupt);
}

TEST_CASE("a relay without room for a blob still serves all of it") {
  constexpr uint32_t kLarge = limits::kChunkSizeDefault;
  Pair pair([](Config& config) { config.memory_bytes = 2 * kLarge; },
            [](Config& config) { config.memory_bytes = 16 * kLarge; });
  const auto ref = pair.at_home.put_blob({.chunk_size = kLarge}, 6);
  auto blob = pair.at_relay.open_ref(ref);
  REQUIRE(blob);
  for (int round = 0; round < 2; round++) {
    for (uint32_t i = 0; i < 6; i++) {
      CHECK(matches(read(pair.loop, *blob, i), make_chunk(i, kLarge)));
    }
  }
  CHECK(pair.relay.core().store->usage().memory_used <= 2 * kLarge);
  CHECK(pair.relay.metrics().chunks_fetched_home > 6);
  CHECK(pair.relay.metrics().chunks_refetched == pair.relay.metrics().chunks_fetched_home - 6);
  CHECK(pair.relay.core().credits->bytes_used() == 0);
}

TEST_CASE("a reader at a relay renews the lease at home, until it leaves") {
  const auto quick = [](Config& config) {
    config.lease_grace = std::chrono::milliseconds(300);
    config.session_timeout = std::chrono::milliseconds(1500);
  };
  Pair pair(quick, quick);
  const auto ref = pair.at_home.put_blob({.until_removed = false}, 2);
  auto blob = pair.at_relay.open_ref(ref);
  REQUIRE(blob);
  for (uint32_t i = 0; i < 2; i++) read(pair.loop, *blob, i);
  { const TestClient gone = kj::mv(pair.writer); }
  const auto& home_store = *pair.home.core().store;
  for (int i = 0; i < 10; i++) {
    run_for(pair.loop, std::chrono::milliseconds(100));
    pair.reader.session.renewRequest().send().wait(pair.loop.wait_scope());
  }
  CHECK(home_store.usage().blobs == 1);
  { const rpc::Blob::Client closed = kj::mv(*blob); }
  { const TestClient gone = kj::mv(pair.reader); }
  run_until(
      pair.loop, [&] { return home_store.usage().blobs == 0; }, "the lease's end at home");
  run_until(
      pair.loop, [&] { return pair.relay.core().store->usage().blobs == 0; },
      "the relay's copy's end");
  CHECK(pair.relay.core().store->usage().memory_used == 0);
}

TEST_CASE("a relay whose chunks are held up renews its lease and opens blobs") {
  constexpr uint32_t kLarge = limits::kMiB;
  test::FaultProxy proxy;
  const auto quick = [](Config& config) {
    config.lease_grace = std::chrono::milliseconds(300);
    config.session_timeout = std::chrono::milliseconds(4000);
  };
  Pair pair(quick, [&](Config& config) {
    quick(config);
    config.advertise = *rpc::Address::parse(proxy.address());
  });
  proxy.forward_to(pair.home.tcp().to_string());
  proxy.clog_after(kLarge / 2);
  const auto large = pair.at_home.put_blob(
      {.name = "large", .chunk_size = kLarge, .until_removed = false}, kRelayedChunks);
  pair.reader.session.renewRequest().send().wait(pair.loop.wait_scope());  // that took a while
  TestClient other = login(pair.loop, pair.home.tcp());                    // it holds no lease
  Caller writer(pair.loop, other.session);
  const auto third = writer.put_blob({.name = "third"}, 1);
  auto small = writer.create({.name = "small"});
  REQUIRE(small);
  REQUIRE(writer.send(small->upload, make_chunk(0)));
  auto following = pair.at_relay.open_ref(small->ref);
  REQUIRE(following);
  CHECK(matches(read(pair.loop, *following, 0), make_chunk(0)));
  auto next = start_read(*following, 1);  // the relay asks for what is still to come

  auto blob = pair.at_relay.open_ref(large);
  REQUIRE(blob);
  std::vector<kj::Promise<ReadAnswer>> answers;
  for (uint32_t i = 0; i < kRelayedChunks; i++) answers.push_back(start_read(*blob, i));
  { const TestClient gone = kj::mv(pair.writer); }  // from now on only the relay holds the lease
  const auto& served = pair.home.metrics().bytes_served_peer;
  const uint64_t held_up = kSmallChunk + uint64_t{fetches_at_once(kLarge)} * kLarge;
  run_until(
      pair.loop, [&] { return served == held_up; }, "chunks on their way to the relay");
  CHECK(pair.at_relay.open_ref(third));
  REQUIRE(writer.send(small->upload, make_chunk(1)));
  CHECK(pair.relay.metrics().chunks_fetched_home == 1);  // the rest was held up all the time
  // Longer than a session's timeout and the grace, and on a slow machine, too, shorter than a
  // transfer may stand.
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(4800);
  while (std::chrono::steady_clock::now() < end) {
    run_for(pair.loop, std::chrono::milliseconds(100));
    pair.reader.session.renewRequest().send().wait(pair.loop.wait_scope());
    other.session.renewRequest().send().wait(pair.loop.wait_scope());
  }
  CHECK(pair.home.core().store->stat(large.id));

  proxy.clog_after(0);
  CHECK(matches(next.wait(pair.loop.wait_scope()), make_chunk(1)));
  for (uint32_t i = 0; i < kRelayedChunks; i++) {
    CHECK(matches(answers[i].wait(pair.loop.wait_scope()), make_chunk(i, kLarge)));
  }
}

TEST_CASE("a relay lets go of a blob whose home has gone") {
  Pair pair([](Config& config) { config.lease_grace = std::chrono::milliseconds(300); });
  const auto ref = pair.at_home.put_blob({.until_removed = false}, 2);
  auto blob = pair.at_relay.open_ref(ref);
  REQUIRE(blob);
  CHECK(matches(read(pair.loop, *blob, 0), make_chunk(0)));
  auto never = start_read(*blob, 1);
  { const TestClient gone = kj::mv(pair.writer); }
  never = nullptr;
  pair.home.node.reset();
  auto missing = start_read(*blob, 1);
  const ReadAnswer answer = missing.wait(pair.loop.wait_scope());
  run_until(
      pair.loop, [&] { return pair.relay.core().store->usage().blobs == 0; },
      "the relay's copy's end");
  CHECK(pair.at_relay.open_ref(ref).error().code == ErrorCode::kUnavailable);
}

TEST_CASE("a reader at a relay whose home is out of reach is told so, and may try again") {
  Pair pair([](Config& config) { config.lease_grace = std::chrono::milliseconds(300); });
  const auto ref = pair.at_home.put_blob({.until_removed = false}, 2);
  auto blob = pair.at_relay.open_ref(ref);
  REQUIRE(blob);
  CHECK(matches(read(pair.loop, *blob, 0), make_chunk(0)));
  { const TestClient gone = kj::mv(pair.writer); }
  const rpc::Address address = pair.home.tcp();
  pair.home.node.reset();
  run_until(
      pair.loop, [&] { return pair.relay.core().store->usage().blobs == 0; },
      "the relay's copy's end");
  const ReadAnswer late = read(pair.loop, *blob, 0);
  REQUIRE(late.error);
  CHECK(late.error->code == ErrorCode::kUnavailable);
  CHECK_MESSAGE(late.error->message.find("its home is out of reach: " + address.to_string()) !=
                    std::string::npos,
                late.error->message);
}

TEST_CASE("a ref that names nobody who knows the blob") {
  Pair pair;
  rpc::BlobRefData ref = pair.at_home.put_blob({}, 1);
  ref.id = BlobId::random();
  CHECK(pair.at_relay.open_ref(ref).error().code == ErrorCode::kNotFound);
  ref.homes = {pair.relay.tcp()};  // itself
  CHECK(pair.at_relay.open_ref(ref).error().code == ErrorCode::kNotFound);
  ref.homes.clear();
  CHECK(pair.at_relay.open_ref(ref).error().code == ErrorCode::kNotFound);
  ref.homes = {rpc::Address::tcp("127.0.0.1", 1)};  // nobody
  CHECK(pair.at_relay.open_ref(ref).error().code == ErrorCode::kUnavailable);
  CHECK(pair.relay.core().store->usage().blobs == 0);
}

TEST_CASE("a relay proves the namespace to the home, and the home to the relay") {
  const std::string secret(32, 'a');
  const auto with = [](const std::string& text) {
    return [text](Config& config) { config.secret = *Secret::from_text(text, "test"); };
  };
  rpc::UvLoop loop;
  TestNode home(loop, with(secret));
  TestNode relay(loop, with(secret));
  TestNode stranger(loop, with(std::string(32, 'b')));
  TestClient writer = login(loop, home.tcp(), {.secret = secret});
  const auto ref = Caller(loop, writer.session).put_blob({}, 1);
  TestClient reader = login(loop, relay.tcp(), {.secret = secret});
  auto blob = Caller(loop, reader.session).open_ref(ref);
  REQUIRE(blob);
  CHECK(matches(read(loop, *blob, 0), make_chunk(0)));
  TestClient lost = login(loop, stranger.tcp(), {.secret = std::string(32, 'b')});
  CHECK(Caller(loop, lost.session).open_ref(ref).error().code == ErrorCode::kUnauthenticated);
}

}  // namespace
}  // namespace bigcast::testing
