#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <latch>
#include <list>
#include <string>
#include <thread>

#include "tests/server/fixture.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/flip.h"

namespace bigcast::testing {
namespace {

constexpr uint32_t kReplicatedChunks = 24;
constexpr uint64_t kReplicatedSize = uint64_t{kReplicatedChunks} * kSmallChunk;

void shorten_grace(Config& config) { config.lease_grace = std::chrono::milliseconds(300); }

struct ReplicaCluster {
  using Adjust = std::function<void(Config&)>;
  explicit ReplicaCluster(uint32_t count, const Adjust& adjust = shorten_grace) {
    for (uint32_t i = 0; i < count; i++) hosts.emplace_back(loop, lease, adjust);
  }
  Host& host(size_t index) { return *std::next(hosts.begin(), static_cast<ptrdiff_t>(index)); }

  // Of as many homes as copies, the first hosts; the others are spares.
  NewBlob new_blob() {
    rpc::BlobRefData ref;
    ref.id = BlobId::random();
    ref.chunk_size = kSmallChunk;
    ref.name_space = "app";
    ref.name = "blob";
    ref.copies = copies;
    for (Host& host : hosts) {
      auto& addresses = ref.homes.size() < ref.copies ? ref.homes : ref.spares;
      addresses.push_back(*host.node.core().advertised);
    }
    return {.until_removed = durable, .durable = durable, .striped = ref};
  }
  Created create() {
    auto created = host(0).caller.create(new_blob());
    REQUIRE_MESSAGE(created, (created ? "" : created.error().to_string()));
    return *created;
  }
  void send(Created& blob, uint32_t first = 0, uint32_t end = kReplicatedChunks) {
    for (uint32_t i = first; i < end; i++) {
      REQUIRE(host(0).caller.send(blob.upload, make_chunk(i)));
    }
  }
  rpc::BlobRefData seal(Created& blob, uint32_t chunks = kReplicatedChunks) {
    const auto ref = host(0).caller.seal(blob.upload, uint64_t{chunks} * kSmallChunk, chunks,
                                         root_of_chunks(chunks));
    REQUIRE_MESSAGE(ref, (ref ? "" : ref.error().to_string()));
    return *ref;
  }
  rpc::BlobRefData put(uint32_t chunks = kReplicatedChunks) {
    Created blob = create();
    send(blob, 0, chunks);
    return seal(blob, chunks);
  }
  void until_gone(BlobId id) {
    run_until(
        loop, [&] { return std::ranges::none_of(hosts, [&](Host& host) { return host.has(id); }); },
        "the end of all copies");
  }
  void until_copied(Host& at, BlobId id, std::string_view what) {
    run_until(
        loop,
        [&] {
          return at.chunks(id) == kReplicatedChunks &&
                 host(0).node.metrics().blobs_under_replicated == 0;
        },
        what);
  }
  void check_reads(Host& at, const rpc::BlobRefData& ref, uint32_t chunks = kReplicatedChunks) {
    auto opened = at.caller.open_ref(ref);
    REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().to_string()));
    for (uint32_t i = 0; i < chunks; i++) {
      CHECK(matches(read(loop, *opened, i), make_chunk(i)));
    }
  }

  rpc::UvLoop loop;
  const LeaseId lease = LeaseId::random();
  std::list<Host> hosts;
  bool durable = false;  // what is put
  uint8_t copies = 2;    // of it
};

// Hosts with a directory each, that can be restarted.
struct Disks {
  // For the host that starts next, on a port of its own: the same when it is started again.
  ReplicaCluster::Adjust next() {
    return [this](Config& config) { adjust(config, started++); };
  }
  void adjust(Config& config, size_t index) {
    config.memory_bytes = 8 * limits::kMiB;
    config.disk_path = directory.path("disk-" + std::to_string(index));
    config.disk_bytes = 64 * limits::kMiB;
    config.scrub_rate = limits::kGiB;
  }
  void stop(ReplicaCluster& cluster, size_t index) {
    auto& host = cluster.host(index);
    address = *host.node.core().advertised;
    cluster.hosts.erase(std::next(cluster.hosts.begin(), static_cast<ptrdiff_t>(index)));
  }
  // The one that was stopped last.
  Host& start(ReplicaCluster& cluster, size_t index, const ReplicaCluster::Adjust& adjust_more = {},
              std::unique_ptr<Disk> disk = make_disk()) {
    return *cluster.hosts.emplace(
        std::next(cluster.hosts.begin(), static_cast<ptrdiff_t>(index)), cluster.loop,
        cluster.lease,
        [&](Config& config) {
          adjust(config, index);
          config.listen = {address};
          if (adjust_more) adjust_more(config);
        },
        std::move(disk));
  }
  // A bit of each chunk's place on the host's disk.
  void damage(size_t index, uint32_t chunks) {
    const std::string extent =
        directory.path("disk-" + std::to_string(index)) + "/bigcast/extent-000001";
    const uint64_t size = std::filesystem::file_size(extent);  // as long as it has to be
    for (uint64_t at = 99; at < std::min(size, uint64_t{chunks} * kSmallChunk); at += kSmallChunk) {
      flip(extent, at, 1);
    }
  }

  TemporaryDirectory directory;
  size_t started = 0;
  rpc::Address address;
};

// Waits until all that is on the host's disk was looked at, and what was damaged is repaired.
void until_mended(ReplicaCluster& cluster, Host& host) {
  BlobStore& store = *host.node.core().store;
  const uint64_t cycles = store.usage().scrub_cycles;
  run_until(
      cluster.loop,
      [&] {
        const StoreUsage usage = store.usage();
        return usage.scrub_cycles >= cycles + 2 && usage.chunks_damaged == 0 &&
               host.node.metrics().chunks_mended == usage.chunks_quarantined;
      },
      "all chunks whole");
}

TEST_CASE("a replica has the chunks while they come, and all of them when the blob is sealed") {
  ReplicaCluster cluster(2);
  Created blob = cluster.create();
  cluster.send(blob, 0, kReplicatedChunks / 2);
  run_until(
      cluster.loop, [&] { return cluster.host(1).chunks(blob.ref.id) == kReplicatedChunks / 2; },
      "chunks");
  CHECK(cluster.host(1).caller.open_home(blob.ref.id).error().code == ErrorCode::kNotFound);
  cluster.send(blob, kReplicatedChunks / 2);
  const auto ref = cluster.seal(blob);
  CHECK(ref.homes.size() == 2);
  CHECK(ref.spares.empty());
  const auto copy = cluster.host(1).node.core().store->stat(ref.id);
  REQUIRE(copy);
  CHECK(copy->sealed);
  CHECK(copy->role == BlobRole::kHome);
  CHECK(copy->lease == cluster.lease);
  CHECK(copy->root_digest == root_of_chunks(kReplicatedChunks));
  CHECK(cluster.host(0).node.metrics().chunks_served() == kReplicatedChunks);  // once each
  CHECK(cluster.host(1).caller.stat("blob")->id == ref.id);
}

TEST_CASE("an upload that is given up leaves no copy") {
  ReplicaCluster cluster(2);
  BlobId id;
  {
    Created blob = cluster.create();
    id = blob.ref.id;
    cluster.send(blob, 0, kReplicatedChunks / 2);
  }
  cluster.until_gone(id);
}

// Hosts with a disk each, of which the second's fails as it is told.
struct FaultyReplica {
  explicit FaultyReplica(const ReplicaCluster::Adjust& adjust_more = [](Config&) {}) {
    cluster.durable = true;
    for (int i = 0; i < 3; i++) {
      cluster.hosts.emplace_back(
          cluster.loop, cluster.lease,
          [&](Config& config) {
            disks.next()(config);
            adjust_more(config);
          },
          i == 1 ? std::make_unique<FaultyDisk>(faults) : make_disk());
    }
  }
  rpc::Address address(size_t index) { return *cluster.host(index).node.core().advertised; }

  Disks disks;
  Faults faults;
  ReplicaCluster cluster{0};
};

TEST_CASE("a replica whose own disk fails gives up at once, and a spare takes its place") {
  FaultyReplica replica;
  ReplicaCluster& cluster = replica.cluster;
  Created blob = cluster.create();
  cluster.send(blob, 0, kReplicatedChunks / 2);
  run_until(
      cluster.loop, [&] { return cluster.host(1).chunks(blob.ref.id) == kReplicatedChunks / 2; },
      "chunks");
  replica.faults.write_io = true;
  cluster.send(blob, kReplicatedChunks / 2, kReplicatedChunks / 2 + 1);
  run_until(
      cluster.loop, [&] { return !cluster.host(1).has(blob.ref.id); }, "the copy's end");
  CHECK(cluster.host(0).node.metrics().chunks_served() ==
        kReplicatedChunks / 2 + 1);  // not once more
  cluster.send(blob, kReplicatedChunks / 2 + 1);
  const auto ref = cluster.seal(blob);
  CHECK(ref.homes == std::vector{replica.address(0), replica.address(2)});
  CHECK(cluster.host(1).node.metrics().peer_fetch_failures == 0);
  cluster.check_reads(cluster.host(2), ref);
}

TEST_CASE("a replica whose disk hangs at the seal does not keep the put") {
  FaultyReplica replica(
      [](Config& config) { config.session_timeout = std::chrono::milliseconds(6000); });
  ReplicaCluster& cluster = replica.cluster;
  std::latch done(1);
  std::atomic<bool> hangs = true;
  replica.faults.before_sync = [&] {
    if (hangs) done.wait();
  };
  Created blob = cluster.create();
  cluster.send(blob);
  std::optional<rpc::BlobRefData> sealed;
  auto sealing =
      start_seal(blob.upload, kReplicatedSize, kReplicatedChunks).then([&](auto response) {
        REQUIRE(response.getResult().isRef());
        sealed = *rpc::read(response.getResult().getRef());
      });
  auto running = sealing.eagerlyEvaluate(nullptr);
  run_until(
      cluster.loop,
      [&] {
        // The session must not be silent.
        cluster.host(0).client.session.renewRequest().send().ignoreResult().detach(
            [](kj::Exception&&) {});
        return sealed.has_value();
      },
      "the seal");
  hangs = false;
  done.count_down();
  CHECK(sealed->homes == std::vector{replica.address(0), replica.address(2)});
  run_until(
      cluster.loop, [&] { return !cluster.host(1).has(blob.ref.id); }, "the end of what hung");
}

TEST_CASE("a spare that has another blob of the name leaves the copy to the next") {
  ReplicaCluster cluster(4);
  const auto ref = cluster.put();
  const NewBlob other{};
  cluster.host(2).caller.put_blob(other, 1);
  cluster.hosts.erase(std::next(cluster.hosts.begin()));
  cluster.until_copied(cluster.host(2), ref.id, "a copy at the last spare");
  CHECK_FALSE(cluster.host(1).has(ref.id));
}

TEST_CASE("a put that failed leaves nothing at a home that had sealed its copy") {
  ReplicaCluster cluster(3);
  cluster.copies = 3;
  Created blob = cluster.create();
  cluster.send(blob);
  cluster.hosts.pop_back();
  const auto sealed = cluster.host(0).caller.seal(blob.upload, kReplicatedSize, kReplicatedChunks);
  REQUIRE_FALSE(sealed);
  CHECK(sealed.error().code == ErrorCode::kUnavailable);
  cluster.hosts.pop_front();  // nobody is left to say so later
  CHECK_FALSE(cluster.host(0).has(blob.ref.id));
  CHECK(cluster.host(0).caller.stat("blob").error().code == ErrorCode::kNotFound);
}

TEST_CASE("what is removed while its first home seals it is removed at all") {
  Disks disks;
  Faults faults;
  std::latch removed(1);
  std::atomic<bool> is_sealing = false;
  faults.before_sync = [&] {
    if (!is_sealing.exchange(true)) removed.wait();
  };
  ReplicaCluster cluster(0);
  cluster.durable = true;
  cluster.hosts.emplace_back(cluster.loop, cluster.lease, disks.next(),
                             std::make_unique<FaultyDisk>(faults));
  cluster.hosts.emplace_back(cluster.loop, cluster.lease, disks.next());
  Created blob = cluster.create();
  cluster.send(blob);
  auto sealing = start_seal(blob.upload, kReplicatedSize, kReplicatedChunks);
  run_until(
      cluster.loop, [&] { return is_sealing.load(); }, "the seal");
  CHECK(cluster.host(1).node.core().store->stat(blob.ref.id)->sealed);
  cluster.host(0).node.core().remove_blob(blob.ref.id, {ErrorCode::kNotFound, "it was removed"});
  removed.count_down();
  const auto answer = sealing.wait(cluster.loop.wait_scope());
  REQUIRE(answer.getResult().isError());
  CHECK(rpc::read(answer.getResult().getError()).code == ErrorCode::kNotFound);
  CHECK_FALSE(cluster.host(1).has(blob.ref.id));
  cluster.until_gone(blob.ref.id);
  run_for(cluster.loop, std::chrono::milliseconds(3 * limits::kReplicaBeatMs));
  for (Host& host : cluster.hosts) CHECK_FALSE(host.has(blob.ref.id));
}

TEST_CASE("what is removed at one home is removed at all, and a lease's end ends every copy") {
  for (const bool is_removed : {true, false}) {
    CAPTURE(is_removed);
    ReplicaCluster cluster(3);
    const auto ref = cluster.put();
    if (is_removed) {
      CHECK(cluster.host(1).caller.remove_name("blob"));
    } else {
      for (Host& host : cluster.hosts) host.client.connection = nullptr;
    }
    cluster.until_gone(ref.id);
    run_for(cluster.loop, std::chrono::milliseconds(3 * limits::kReplicaBeatMs));
    CHECK(std::ranges::none_of(cluster.hosts, [&](Host& host) { return host.has(ref.id); }));
    for (Host& host : cluster.hosts) CHECK(host.node.metrics().blobs_under_replicated == 0);
  }
}

TEST_CASE("a relay goes on at the other home when one is gone, and a spare takes its place") {
  ReplicaCluster cluster(3);
  const auto ref = cluster.put();
  Host relay(cluster.loop, cluster.lease, shorten_grace);
  auto opened = relay.caller.open_ref(ref);
  REQUIRE(opened);
  CHECK(matches(read(cluster.loop, *opened, 0), make_chunk(0)));
  cluster.hosts.pop_front();
  for (uint32_t i = 1; i < kReplicatedChunks; i++) {
    CHECK(matches(read(cluster.loop, *opened, i), make_chunk(i)));
  }
  CHECK(relay.node.metrics().chunks_refetched == 0);
  cluster.until_copied(cluster.host(1), ref.id, "a copy at the spare");
  const auto now = cluster.host(0).caller.stat("blob");
  REQUIRE(now);
  CHECK(now->homes.size() == 2);
  CHECK(now->homes.back() == *cluster.host(1).node.core().advertised);
}

TEST_CASE("what is damaged on a home's disk is repaired with what the other home has") {
  constexpr uint32_t kMany = 256;  // twice the memory
  Disks disks;
  ReplicaCluster cluster(2, disks.next());
  const auto ref = cluster.put(kMany);
  Host& host = cluster.host(0);
  BlobStore& store = *host.node.core().store;
  REQUIRE(store.usage().disk_used > 0);
  disks.damage(0, kMany);
  until_mended(cluster, host);
  CHECK(store.usage().chunks_quarantined > 0);
  CHECK(host.node.metrics().chunks_mended == store.usage().chunks_quarantined);
  CHECK(store.usage().chunks_repaired >= host.node.metrics().chunks_mended);
  cluster.check_reads(host, ref, kMany);
}

TEST_CASE("a durable home that is restarted knows the others, which repair what is damaged") {
  Disks disks;
  ReplicaCluster cluster(2, disks.next());
  cluster.durable = true;
  const auto ref = cluster.put();
  disks.stop(cluster, 0);
  disks.damage(0, kReplicatedChunks);
  disks.start(cluster, 0);
  Host& first = cluster.host(0);
  CHECK(first.caller.stat("blob")->homes == ref.homes);
  until_mended(cluster, first);
  CHECK(first.node.metrics().chunks_mended == kReplicatedChunks);
  cluster.check_reads(first, ref);
  CHECK(first.node.metrics().blobs_under_replicated == 0);
  CHECK(cluster.host(1).node.metrics().blobs_under_replicated == 0);
  CHECK(first.node.metrics().blobs_copied_again == 0);
  CHECK(cluster.host(1).node.metrics().blobs_copied_again == 0);

  // What is removed while a home is away is removed there, too.
  disks.stop(cluster, 0);
  CHECK(cluster.host(0).caller.remove_name("blob"));
  disks.start(cluster, 0);
  cluster.until_gone(ref.id);
}

TEST_CASE("damage that no home can repair stays a typed error, and ends with the other's return") {
  Disks disks;
  ReplicaCluster cluster(2, disks.next());
  cluster.durable = true;
  const auto ref = cluster.put();
  disks.stop(cluster, 0);
  disks.damage(0, kReplicatedChunks);
  const rpc::Address first_address = disks.address;
  disks.stop(cluster, 0);  // the second
  const rpc::Address second_address = std::exchange(disks.address, first_address);
  disks.start(cluster, 0);
  Host& first = cluster.host(0);
  BlobStore& store = *first.node.core().store;
  run_until(
      cluster.loop, [&] { return store.usage().chunks_damaged == kReplicatedChunks; },
      "all in quarantine");
  auto opened = first.caller.open_home(ref.id);
  REQUIRE(opened);
  const auto answer = read(cluster.loop, *opened, 3);
  REQUIRE(answer.error);
  CHECK(answer.error->code == ErrorCode::kCorrupt);
  disks.address = second_address;
  disks.start(cluster, 1);
  // Nobody has to wait for the repair.
  Host relay(cluster.loop, cluster.lease, shorten_grace);
  cluster.check_reads(relay, ref);
  until_mended(cluster, first);
  cluster.check_reads(first, ref);
}

// The first of three homes was started again, and all of its chunks are damaged and known to be.
struct DamagedHome {
  DamagedHome() {
    cluster.durable = true;
    cluster.copies = 3;
    ref = cluster.put();
    disks.stop(cluster, 0);
    disks.damage(0, kReplicatedChunks);
    const auto no_scrub = [](Config& config) { config.scrub_rate = 0; };
    Host& host = disks.start(cluster, 0, no_scrub, std::make_unique<FaultyDisk>(faults));
    store = host.node.core().store.get();
    metrics = &host.node.metrics();
    // Until the others have looked at it: nothing of this is about their copies.
    run_for(cluster.loop, std::chrono::milliseconds(3 * limits::kReplicaBeatMs));
  }
  // To be called before the loop runs on: the first round begins at its next tick.
  void find_damage() {
    std::vector<std::byte> buffer(kSmallChunk);
    for (uint32_t i = 0; i < kReplicatedChunks; i++)
      CHECK_FALSE(store->read_chunk(ref.id, i, buffer));
    REQUIRE(store->usage().chunks_damaged == kReplicatedChunks);
  }
  uint64_t served(size_t index) { return cluster.host(index).node.metrics().chunks_served(); }
  uint64_t served_by_others() { return served(1) + served(2); }

  Disks disks;
  Faults faults;  // of the first
  ReplicaCluster cluster{3, disks.next()};
  rpc::BlobRefData ref;
  BlobStore* store;
  Metrics* metrics;
};

TEST_CASE("a home whose disk takes no repair asks for one chunk, at one home") {
  DamagedHome home;
  const uint64_t before = home.served_by_others();
  home.faults.write_io = true;
  home.find_damage();
  run_until(
      home.cluster.loop, [&] { return !home.store->disk_failure().empty(); }, "a failed repair");
  run_for(home.cluster.loop, std::chrono::milliseconds(200));
  CHECK(home.served_by_others() == before + 1);
  CHECK(home.metrics->chunks_mended == 0);
}

TEST_CASE("a damaged chunk that is being moved keeps none of the others from their repair") {
  DamagedHome home;
  std::latch moving(1);
  std::latch moved(1);
  std::atomic<bool> is_first = true;
  home.faults.before_write = [&] {
    if (!is_first.exchange(false)) return;
    moving.count_down();
    moved.wait();
  };
  home.find_damage();
  const auto chunk = make_chunk(0);
  std::thread mover([&] {
    const auto bytes = std::as_bytes(std::span(chunk.bytes));
    CHECK(home.store->put_chunk(home.ref.id, chunk.meta, bytes));
  });
  moving.wait();
  run_until(
      home.cluster.loop, [&] { return home.metrics->chunks_mended == kReplicatedChunks - 1; },
      "the others' repair");
  CHECK(home.store->usage().chunks_damaged == 1);
  moved.count_down();
  mover.join();
  CHECK(home.store->usage().chunks_damaged == 0);
  home.cluster.check_reads(home.cluster.host(0), home.ref);
}

TEST_CASE("a blob that is removed while a chunk of it is repaired is asked for nowhere else") {
  DamagedHome home;
  const uint64_t before = home.served_by_others();
  home.faults.before_write = [&] { static_cast<void>(home.store->remove(home.ref.id)); };
  home.find_damage();
  run_until(
      home.cluster.loop, [&] { return !home.store->stat(home.ref.id); }, "its end");
  run_for(home.cluster.loop, std::chrono::milliseconds(200));
  CHECK(home.served_by_others() == before + 1);
}

// How many copies were begun at a host, as its audit log has it.
uint64_t copies_begun(const std::string& audit_log) {
  std::ifstream log(audit_log);
  std::string line;
  uint64_t count = 0;
  while (std::getline(log, line)) count += line.find("\"copy\"") != std::string::npos ? 1 : 0;
  return count;
}

TEST_CASE("a relay that dropped its chunks unheard does not end a copy that asks it for them") {
  ReplicaCluster cluster(2);
  const auto ref = cluster.put();
  Host relay(cluster.loop, cluster.lease, shorten_grace);
  auto opened = relay.caller.open_ref(ref);
  REQUIRE(opened);
  for (uint32_t i = 0; i < kReplicatedChunks; i++) {
    CHECK(matches(read(cluster.loop, *opened, i), make_chunk(i)));
  }
  const TemporaryDirectory directory;
  const rpc::Address address = *cluster.host(1).node.core().advertised;
  cluster.hosts.pop_back();
  REQUIRE(relay.node.core().store->drop_chunks(ref.id));
  Host& empty = cluster.hosts.emplace_back(cluster.loop, cluster.lease, [&](Config& config) {
    shorten_grace(config);
    config.listen = {address};
    config.audit_log = directory.path("audit");
  });
  run_until(
      cluster.loop, [&] { return empty.chunks(ref.id) == kReplicatedChunks; }, "the copy");
  run_until(
      cluster.loop, [&] { return cluster.host(0).node.metrics().blobs_under_replicated == 0; },
      "a home more");
  CHECK(empty.node.metrics().peer_fetch_failures > 0);
  CHECK(copies_begun(directory.path("audit")) == 1);
  cluster.check_reads(empty, ref);
}

TEST_CASE("bad plans are refused before anything is stored") {
  ReplicaCluster cluster(2);
  const auto refused = [&](const std::function<void(NewBlob&)>& change) {
    NewBlob blob = cluster.new_blob();
    change(blob);
    const auto created = cluster.host(0).caller.create(blob);
    return !created && created.error().code == ErrorCode::kInvalidArgument;
  };
  CHECK(refused([](NewBlob& blob) { blob.striped->copies = limits::kReplicasMax + 1; }));
  CHECK(refused([](NewBlob& blob) { blob.striped->copies = 0; }));
  CHECK(refused([](NewBlob& blob) { blob.striped->homes.pop_back(); }));
  CHECK(refused([](NewBlob& blob) { blob.striped->stripes = 2; }));
  CHECK(refused([](NewBlob& blob) { std::swap(blob.striped->homes[0], blob.striped->homes[1]); }));
  CHECK(cluster.host(0).node.core().store->usage().blobs == 0);

  auto request = cluster.host(0).client.session.copyRequest();  // by a client
  rpc::write(*cluster.new_blob().striped, request.initOptions().initPlaced());
  CHECK(request.send().wait(cluster.loop.wait_scope()).getResult().isError());
}

}  // namespace
}  // namespace bigcast::testing
