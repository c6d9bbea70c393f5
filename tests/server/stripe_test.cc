#include <doctest/doctest.h>
#include <kj/vector.h>

#include <list>
#include <string>
#include <vector>

#include "tests/server/fixture.h"

namespace bigcast::testing {
namespace {

constexpr uint32_t kStripedChunks = 48;
constexpr uint64_t kStripedSize = uint64_t{kStripedChunks} * kSmallChunk;

// A blob that is being written, a stripe at each home.
struct Striped {
  rpc::BlobRefData ref;
  kj::Vector<rpc::Upload::Client> uploads;
};

struct StripeCluster {
  explicit StripeCluster(uint32_t home_count) {
    for (uint32_t i = 0; i < home_count; i++) homes.emplace_back(loop, lease);
  }
  Host& home(size_t index) { return *std::next(homes.begin(), static_cast<ptrdiff_t>(index)); }
  Host& add_relay() { return relays.emplace_back(loop, lease); }

  rpc::BlobRefData new_ref(const std::string& name) {
    rpc::BlobRefData ref;
    ref.id = BlobId::random();
    ref.chunk_size = kSmallChunk;
    ref.name_space = "app";
    ref.name = name;
    ref.stripes = static_cast<uint32_t>(homes.size());
    for (Host& host : homes) ref.homes.push_back(*host.node.core().advertised);
    return ref;
  }
  NewBlob stripe_of(const rpc::BlobRefData& ref, uint32_t stripe) {
    return {.name = ref.name, .until_removed = false, .striped = ref, .stripe = stripe};
  }
  Striped create(const std::string& name = "blob", bool replace = false) {
    Striped blob{new_ref(name), {}};
    for (uint32_t i = 0; i < homes.size(); i++) {
      auto stripe = stripe_of(blob.ref, i);
      stripe.replace = replace;
      auto created = home(i).caller.create(stripe);
      REQUIRE_MESSAGE(created, (created ? "" : created.error().to_string()));
      CHECK(created->ref.id == rpc::stripe_id(blob.ref.id, i));
      blob.uploads.add(created->upload);
    }
    return blob;
  }
  void send(Striped& blob, uint32_t first = 0, uint32_t end = kStripedChunks) {
    for (uint32_t i = first; i < end; i++) {
      const size_t at = i % homes.size();
      REQUIRE(home(at).caller.send(blob.uploads[at], make_chunk(i)));
    }
  }
  void seal(Striped& blob) {
    for (size_t i = homes.size(); i-- > 0;) {
      const auto ref = home(i).caller.seal(blob.uploads[i], kStripedSize, kStripedChunks,
                                           root_of_chunks(kStripedChunks));
      REQUIRE_MESSAGE(ref, (ref ? "" : ref.error().to_string()));
      if (i == 0) blob.ref = *ref;
    }
  }
  Striped put(const std::string& name = "blob", bool replace = false) {
    Striped blob = create(name, replace);
    send(blob);
    seal(blob);
    return blob;
  }
  rpc::Blob::Client open(Host& host, const rpc::BlobRefData& stripe) {
    auto opened = host.caller.open_ref(stripe);
    REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().to_string()));
    return *opened;
  }
  // Opens all stripes at each host and reads them at once.
  void start(std::list<Host>& at, const rpc::BlobRefData& ref);
  void check_all_right() {
    for (auto& read : reads) CHECK(read.wait(loop.wait_scope()) == reads_right);
    reads.clear();
  }
  // Nothing of the blob is left anywhere.
  bool is_gone(const rpc::BlobRefData& ref) {
    for (auto* hosts : {&homes, &relays}) {
      for (Host& host : *hosts) {
        for (uint32_t i = 0; i < ref.stripes; i++) {
          if (host.has(rpc::stripe_id(ref.id, i))) return false;
        }
      }
    }
    return true;
  }
  void until_gone(const rpc::BlobRefData& ref) {
    run_until(
        loop, [&] { return is_gone(ref); }, "the end of all stripes");
  }

  rpc::UvLoop loop;
  const LeaseId lease = LeaseId::random();
  std::list<Host> homes;
  std::list<Host> relays;
  std::vector<kj::Promise<uint32_t>> reads;
  const uint32_t reads_right = kStripedChunks;
};

// The chunks `index`, `index` + `step`, ..., one after the other; gives how many were right.
kj::Promise<uint32_t> read_from(rpc::Blob::Client blob, uint32_t index, uint32_t step) {
  if (index >= kStripedChunks) return uint32_t{0};
  return start_read(blob, index).then([blob, index, step](const ReadAnswer& answer) mutable {
    const uint32_t right = matches(answer, make_chunk(index)) ? 1 : 0;
    if (answer.error) MESSAGE("chunk " << index << ": " << answer.error->to_string());
    return read_from(kj::mv(blob), index + step, step).then([right](uint32_t more) {
      return right + more;
    });
  });
}

void StripeCluster::start(std::list<Host>& at, const rpc::BlobRefData& ref) {
  for (Host& host : at) {
    kj::Vector<kj::Promise<uint32_t>> stripes;
    for (uint32_t i = 0; i < ref.stripes; i++) {
      stripes.add(read_from(open(host, ref.of_stripe(i)), i, ref.stripes));
    }
    reads.push_back(
        kj::joinPromises(stripes.releaseAsArray()).then([](const kj::Array<uint32_t>& counts) {
          uint32_t right = 0;
          for (const uint32_t count : counts) right += count;
          return right;
        }));
  }
}

TEST_CASE("relays get a blob of several homes from them and from each other, each chunk once") {
  for (const uint32_t count : {2u, 3u}) {
    CAPTURE(count);
    StripeCluster cluster(count);
    for (int i = 0; i < 4; i++) cluster.add_relay();
    const Striped blob = cluster.put();
    CHECK(blob.ref.stripes == count);
    CHECK(blob.ref.homes.size() == count);
    CHECK(blob.ref.size == kStripedSize);
    CHECK(blob.ref.root_digest == root_of_chunks(kStripedChunks));
    cluster.start(cluster.relays, blob.ref);
    cluster.check_all_right();
    uint64_t from_homes = 0;
    for (Host& host : cluster.relays) {
      CHECK(host.fetched() == kStripedChunks);
      CHECK(host.node.metrics().chunks_refetched == 0);
      from_homes += host.node.metrics().chunks_fetched_home;
    }
    CHECK(from_homes <= 2 * kStripedChunks);  // of 4: the rest came from each other
    for (Host& home : cluster.homes)
      CHECK(home.node.metrics().chunks_served() >= kStripedChunks / count);
  }
}

TEST_CASE("relays spread a striped blob while it is written") {
  StripeCluster cluster(2);
  for (int i = 0; i < 3; i++) cluster.add_relay();
  Striped blob = cluster.create();
  cluster.start(cluster.relays, blob.ref);
  cluster.send(blob, 0, kStripedChunks / 2);
  run_until(
      cluster.loop, [&] { return cluster.relays.back().fetched() >= kStripedChunks / 4; },
      "chunks");
  cluster.send(blob, kStripedChunks / 2, kStripedChunks);
  cluster.seal(blob);
  cluster.check_all_right();
}

TEST_CASE(
    "an announcement of stripe 0 has a relay fetch all stripes, whatever is known of the size") {
  for (const int64_t size : {int64_t{-1}, int64_t{kStripedSize}}) {
    CAPTURE(size);
    StripeCluster cluster(2);
    Host& relay = cluster.add_relay();
    auto request = relay.client.session.followHomeRequest();
    rpc::write(*cluster.home(0).node.core().advertised, request.initHome());
    REQUIRE(request.send().wait(cluster.loop.wait_scope()).getResult().isOk());
    Striped blob{cluster.new_ref("blob"), {}};
    for (const uint32_t i : {0u, 1u}) {
      auto stripe = cluster.stripe_of(blob.ref, i);
      stripe.size = size;
      stripe.announce_from = 1;
      auto created = cluster.home(i).caller.create(stripe);
      REQUIRE(created);
      blob.uploads.add(created->upload);
    }
    cluster.send(blob);
    cluster.seal(blob);
    run_until(
        cluster.loop, [&] { return relay.fetched() >= kStripedChunks; }, "all chunks");
    cluster.start(cluster.relays, blob.ref);
    cluster.check_all_right();
    CHECK(relay.fetched() == kStripedChunks);
    CHECK(relay.node.metrics().bytes_prefetched == kStripedSize);
  }
}

TEST_CASE("a home reads the others' stripes as a relay and never drops its own") {
  StripeCluster cluster(2);
  const Striped blob = cluster.put();
  cluster.start(cluster.homes, blob.ref);
  cluster.check_all_right();
  for (Host& home : cluster.homes) CHECK(home.fetched() == kStripedChunks / 2);

  REQUIRE(cluster.home(0).caller.drop_copies(blob.ref.id));
  // Each drops what it has of the other's stripe.
  run_until(
      cluster.loop,
      [&] {
        return cluster.home(0)
                       .node.core()
                       .store->stat(rpc::stripe_id(blob.ref.id, 1))
                       ->chunk_count == 0 &&
               cluster.home(1).node.core().store->stat(blob.ref.id)->chunk_count == 0;
      },
      "the drop of copies");
  CHECK(cluster.home(0).node.core().store->stat(blob.ref.id)->chunk_count == kStripedChunks / 2);
  CHECK(cluster.home(1).node.core().store->stat(rpc::stripe_id(blob.ref.id, 1))->chunk_count ==
        kStripedChunks / 2);
  cluster.start(cluster.homes, blob.ref);
  cluster.check_all_right();
}

TEST_CASE("whoever reads at the end of a stripe learns where the whole ends") {
  StripeCluster cluster(2);
  cluster.add_relay();
  const Striped blob = cluster.put();
  for (const uint32_t stripe : {0u, 1u}) {
    for (Host* host : {&cluster.home(stripe), &cluster.relays.front()}) {
      auto opened = cluster.open(*host, blob.ref.of_stripe(stripe));
      CHECK(read(cluster.loop, opened, kStripedChunks + stripe).is_end);
      const auto other = read(cluster.loop, opened, 1 - stripe);
      REQUIRE(other.error);
      CHECK(other.error->code == ErrorCode::kInvalidArgument);
    }
  }
}

TEST_CASE("only stripe 0 has the name, and what ends it ends the others") {
  StripeCluster cluster(3);
  cluster.add_relay();
  Striped blob = cluster.put("name");
  const auto by_name = cluster.home(0).caller.stat("name");
  REQUIRE(by_name);
  CHECK(by_name->to_bytes() == blob.ref.to_bytes());
  CHECK(cluster.home(1).caller.list().empty());
  CHECK(cluster.home(1).caller.open_name("name").error().code == ErrorCode::kNotFound);
  cluster.start(cluster.relays, blob.ref);
  cluster.check_all_right();

  SUBCASE("its removal by name") {
    REQUIRE(cluster.home(0).caller.remove_name("name"));
    cluster.until_gone(blob.ref);
  }
  SUBCASE("its replacement") {
    const Striped next = cluster.put("name", true);
    cluster.until_gone(blob.ref);
    cluster.start(cluster.relays, next.ref);
    cluster.check_all_right();
  }
  SUBCASE("the end of its lease") {
    cluster.home(0).node.core().store->remove_lease(cluster.lease);
    cluster.home(0).node.core().live->end(blob.ref.id, {ErrorCode::kNotFound, "its lease ended"});
    cluster.until_gone(blob.ref);
  }
}

TEST_CASE("a writer that gives up leaves nothing at any home, sealed stripes or not") {
  StripeCluster cluster(2);
  Striped blob = cluster.create();
  cluster.send(blob);
  REQUIRE(cluster.home(1).caller.seal(blob.uploads[1], kStripedSize, kStripedChunks,
                                      root_of_chunks(kStripedChunks)));
  blob.uploads.clear();
  cluster.until_gone(blob.ref);
  CHECK(cluster.home(0).node.core().store->usage().reserved == 0);
}

TEST_CASE("stripes wait for a home of stripe 0 that is away, and end if it has forgotten it") {
  StripeCluster cluster(2);
  const Striped blob = cluster.put();
  const auto stripe = rpc::stripe_id(blob.ref.id, 1);
  Host& other = cluster.home(1);
  const rpc::Address first = cluster.home(0).node.tcp();
  cluster.homes.pop_front();
  CHECK(matches(read(cluster.loop, cluster.open(other, blob.ref.of_stripe(1)), 1), make_chunk(1)));
  const TestNode back(cluster.loop, [&](Config& config) { config.listen = {first}; });
  run_until(
      cluster.loop, [&] { return !other.has(stripe); }, "the end of the stripe");
}

TEST_CASE("a home that forgot its stripe is a typed error for readers, through a relay, too") {
  StripeCluster cluster(2);
  Host& relay = cluster.add_relay();
  const Striped blob = cluster.put();
  const auto stripe = blob.ref.of_stripe(1);
  cluster.home(1).node.core().remove_blob(stripe.id, {ErrorCode::kNotFound, "lost"});
  for (Host* host : {&cluster.home(1), &relay}) {
    CHECK(host->caller.open_ref(stripe).error().code == ErrorCode::kNotFound);
  }
  CHECK(matches(read(cluster.loop, cluster.open(relay, blob.ref.of_stripe(0)), 0), make_chunk(0)));
}

TEST_CASE("a stripe is sealed when all of its chunks came, with the root digest of the whole") {
  StripeCluster cluster(2);
  Striped blob = cluster.create();
  cluster.send(blob, 0, kStripedChunks - 1);
  const auto seal = [&](uint32_t stripe, Digest128 root) {
    return cluster.home(stripe).caller.seal(blob.uploads[stripe], kStripedSize, kStripedChunks,
                                            root);
  };
  CHECK(seal(1, root_of_chunks(kStripedChunks)).error().code == ErrorCode::kInvalidArgument);
  CHECK(seal(0, {}).error().code == ErrorCode::kInvalidArgument);
  cluster.send(blob, kStripedChunks - 1, kStripedChunks);
  CHECK(seal(1, root_of_chunks(kStripedChunks)));
  CHECK(seal(1, root_of_chunks(1)).error().code == ErrorCode::kAlreadyExists);
}

TEST_CASE("bad stripes are refused before anything is stored") {
  StripeCluster cluster(2);
  const auto ref = cluster.new_ref("blob");
  const auto refused = [&](const std::function<void(NewBlob&)>& change) {
    NewBlob stripe = cluster.stripe_of(ref, 0);
    change(stripe);
    const auto created = cluster.home(0).caller.create(stripe);
    return !created && created.error().code == ErrorCode::kInvalidArgument;
  };
  CHECK(refused([](NewBlob& blob) { blob.stripe = 1; }));  // whose home is another node
  CHECK(refused([](NewBlob& blob) { blob.stripe = 2; }));
  CHECK(refused([](NewBlob& blob) { blob.name = "another"; }));
  CHECK(refused([](NewBlob& blob) { blob.chunk_size *= 2; }));
  CHECK(refused([](NewBlob& blob) { blob.striped->name_space = "other"; }));
  CHECK(refused([](NewBlob& blob) { blob.striped->id = {}; }));
  CHECK(refused([](NewBlob& blob) { blob.striped->stripe = 0; }));
  CHECK(refused([](NewBlob& blob) { blob.striped->homes.pop_back(); }));
  CHECK(refused([](NewBlob& blob) {
    blob.striped->stripes = 1;
    blob.striped->homes.pop_back();
  }));
  CHECK(cluster.home(0).node.core().store->usage().blobs == 0);
}

TEST_CASE("an id that is in use is refused, and a foreign namespace reaches no stripe by it") {
  StripeCluster cluster(2);
  Striped blob = cluster.create();
  auto again = cluster.stripe_of(blob.ref, 0);
  again.name = again.striped->name = "another";
  CHECK(cluster.home(0).caller.create(again).error().code == ErrorCode::kAlreadyExists);
  cluster.send(blob);
  cluster.seal(blob);

  TestClient stranger = login(cluster.loop, cluster.home(1).node.tcp(), {.name_space = "other"});
  Caller caller(cluster.loop, stranger.session);
  CHECK(caller.open_home(rpc::stripe_id(blob.ref.id, 1)).error().code == ErrorCode::kNotFound);
  auto foreign = cluster.stripe_of(blob.ref, 1);
  foreign.striped->name_space = "other";
  foreign.until_removed = true;
  CHECK(caller.create(foreign).error().code == ErrorCode::kAlreadyExists);
  cluster.start(cluster.homes, blob.ref);
  cluster.check_all_right();
}

TEST_CASE("chunks of another stripe are refused and do no harm") {
  StripeCluster cluster(2);
  Striped blob = cluster.create();
  const auto sent = cluster.home(0).caller.send(blob.uploads[0], make_chunk(1));
  CHECK(sent.error().code == ErrorCode::kInvalidArgument);
  CHECK(sent.error().message.find("stripe 0 of 2") != std::string::npos);
  cluster.send(blob);
  cluster.seal(blob);
}

}  // namespace
}  // namespace bigcast::testing
