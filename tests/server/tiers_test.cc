#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <future>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "rpc/frame.h"
#include "tests/server/fixture.h"
#include "tests/support/faulty_disk.h"

// A home whose memory is smaller than its blobs, as its readers see it.
namespace bigcast::testing {
namespace {

constexpr uint64_t kMemory = 8 * limits::kMiB;
constexpr uint32_t kChunk = 1 * limits::kMiB;
constexpr uint32_t kTieredChunks = 24;

struct TieredHome {
  explicit TieredHome(rpc::UvLoop& loop, std::unique_ptr<Disk> disk = make_disk())
      : node(
            loop,
            [this](Config& config) {
              config.disk_path = directory.path();
              config.disk_bytes = 256 * limits::kMiB;
              config.memory_bytes = kMemory;
              config.socket = *rpc::Address::parse(unique_socket());
            },
            std::move(disk)) {}
  BlobStore& store() { return *node.core().store; }
  TemporaryDirectory directory;  // goes after the node
  TestNode node;
};

// What a read of a disk needs.
void wait_for_a_thread(rpc::UvLoop& loop, NodeCore& core) {
  bool was_read = false;
  auto reading = core.on_pool([] {}).then([&] { was_read = true; }).eagerlyEvaluate(nullptr);
  run_until(
      loop, [&] { return was_read; }, "a read beside them");
}

}  // namespace

TEST_CASE("reads have threads while every put waits for the disk") {
  rpc::UvLoop loop;
  TestNode node(loop);
  std::promise<void> disk;
  const std::shared_future<void> disk_is_free = disk.get_future().share();
  std::atomic<uint32_t> waiting{0};
  std::vector<kj::Promise<void>> puts;
  for (uint32_t i = 0; i < 2 * rpc::UvLoop::pool_threads(); ++i) {
    puts.push_back(node.core().put_on_pool([&waiting, disk_is_free] {
      ++waiting;
      disk_is_free.wait();
    }));
  }
  run_until(
      loop, [&] { return waiting >= rpc::UvLoop::pool_threads() / 2; }, "puts that wait");
  wait_for_a_thread(loop, node.core());
  disk.set_value();
  for (auto& put : puts) put.wait(loop.wait_scope());
  CHECK(waiting == 2 * rpc::UvLoop::pool_threads());
}

TEST_CASE("reads have threads while every seal waits for the disk") {
  Faults faults;
  std::latch disk_is_free(1);
  std::atomic<uint32_t> syncing{0};
  faults.before_sync = [&] {
    ++syncing;
    disk_is_free.wait();
  };
  rpc::UvLoop loop;
  TieredHome home(loop, std::make_unique<FaultyDisk>(faults));
  TestClient client = login(loop, home.node.tcp());
  Caller caller(loop, client.session);
  std::vector<kj::Promise<void>> seals;
  std::deque<rpc::Upload::Client> uploads;
  for (uint32_t i = 0; i < 2 * rpc::UvLoop::pool_threads(); ++i) {
    auto blob = caller.create({.name = "blob-" + std::to_string(i), .durable = true});
    REQUIRE(blob);
    REQUIRE(caller.send(blob->upload, make_chunk(0)));
    uploads.emplace_back(kj::mv(blob->upload));
    seals.push_back(start_seal(uploads.back(), kSmallChunk, 1)
                        .then([](auto response) { CHECK(response.getResult().isRef()); })
                        .eagerlyEvaluate(nullptr));
  }
  run_until(
      loop, [&] { return syncing > 0; }, "a seal that waits");
  wait_for_a_thread(loop, home.node.core());
  disk_is_free.count_down();
  for (auto& seal : seals) seal.wait(loop.wait_scope());
}

TEST_CASE("small blobs in memory are read though the disk keeps every other reader waiting") {
  rpc::UvLoop loop;
  TieredHome home(loop);
  TestClient client = login(loop, home.node.tcp());
  Caller caller(loop, client.session);
  const auto ref = caller.put_blob({.size = kSmallChunk}, 1);
  auto blob = caller.open_ref(ref);
  REQUIRE(blob);
  std::promise<void> disk;
  const std::shared_future<void> disk_is_free = disk.get_future().share();
  std::vector<kj::Promise<void>> loads;
  for (uint32_t i = 0; i < 2 * rpc::UvLoop::pool_threads(); ++i) {
    loads.push_back(home.node.core().on_pool([disk_is_free] { disk_is_free.wait(); }));
  }
  auto buffers = home.node.core().serve_buffers.acquire(limits::kServeReserve);
  CHECK(matches(read(loop, *blob, 0), make_chunk(0)));
  disk.set_value();
  for (auto& load : loads) load.wait(loop.wait_scope());
}

TEST_CASE("a chunk on disk is read once, however many ask, and is in memory then") {
  rpc::UvLoop loop;
  TieredHome home(loop);
  TestClient near = login(loop, home.node.local());
  TestClient far = login(loop, home.node.tcp());
  const auto ref =
      Caller(loop, far.session)
          .put_blob({.size = int64_t{kTieredChunks} * kChunk, .chunk_size = kChunk}, kTieredChunks);
  // Room is made ahead of need, without anybody's call.
  run_until(
      loop, [&] { return home.store().usage().memory_used <= kMemory * 90 / 100; }, "room");
  CHECK(home.store().resident_chunks(ref.id).size() >= 6);
  auto near_blob = Caller(loop, near.session).open_ref(ref);
  auto far_blob = Caller(loop, far.session).open_ref(ref);
  REQUIRE(near_blob);
  REQUIRE(far_blob);
  const StoreUsage before = home.store().usage();
  std::vector<kj::Promise<ReadAnswer>> answers;
  for (int i = 0; i < 6; ++i) {
    answers.push_back(start_read(*near_blob, 0, rpc::ReadMode::PREFER_LOCATED));
    answers.push_back(start_read(*far_blob, 0));
  }
  int located = 0;
  for (auto& answer : answers) {
    const ReadAnswer got = answer.wait(loop.wait_scope());
    if (got.is_located) {
      ++located;
    } else {
      CHECK(matches(got, make_chunk(0, kChunk)));
    }
  }
  CHECK(home.store().usage().chunks_read_disk == before.chunks_read_disk + 1);
  CHECK(home.store().usage().bytes_read_disk == before.bytes_read_disk + kChunk);
  CHECK(home.store().usage().chunks_promoted == 1);
  CHECK(located == 6);
  CHECK(read(loop, *near_blob, 0, rpc::ReadMode::PREFER_LOCATED).is_located);
  // All of it, by turns: what comes back makes way for the next.
  for (int round = 0; round < 2; ++round) {
    for (uint32_t i = 0; i < kTieredChunks; ++i) {
      CHECK(matches(read(loop, *far_blob, i), make_chunk(i, kChunk)));
    }
  }
  CHECK(home.store().usage().memory_used <= kMemory);
}

TEST_CASE("what a reader is past leaves memory before what it comes to") {
  rpc::UvLoop loop;
  TieredHome home(loop);
  TestClient client = login(loop, home.node.tcp());
  Caller caller(loop, client.session);
  const auto ref = caller.put_blob({.name = "read", .chunk_size = kChunk}, 6);
  auto blob = caller.open_ref(ref, rpc::ReadOrder::ASCENDING);
  REQUIRE(blob);
  for (uint32_t i = 0; i < 3; ++i) CHECK(matches(read(loop, *blob, i), make_chunk(i, kChunk)));
  caller.put_blob({.name = "pushes", .chunk_size = kChunk}, 5);
  // Of those it is past, which were read last, at least two had to go.
  auto here = home.store().resident_chunks(ref.id);
  std::ranges::sort(here);
  CHECK(here.size() <= 4);
  for (const uint32_t index : {3U, 4U, 5U}) CHECK(std::ranges::binary_search(here, index));
}

TEST_CASE("when all memory is pinned or awaited, what is on disk is served nevertheless") {
  rpc::UvLoop loop;
  TieredHome home(loop);
  TestClient client = login(loop, home.node.tcp());
  Caller caller(loop, client.session);
  const auto cold = caller.put_blob({.name = "cold", .chunk_size = kChunk}, 8);
  const auto pinned = caller.put_blob({.name = "pinned", .chunk_size = kChunk}, 3);
  REQUIRE(home.store().pin(pinned.id));
  // An open stream speaks for the rest.
  const auto needed = caller.put_blob({.name = "needed", .chunk_size = kChunk}, 8);
  const auto stream = home.store().open_stream(needed.id, ReadOrder::kAscending);
  REQUIRE(stream);
  auto blob = caller.open_ref(cold);
  REQUIRE(blob);
  std::vector<kj::Promise<ReadAnswer>> answers;
  for (uint32_t i = 0; i < 8; ++i) answers.push_back(start_read(*blob, i));
  for (uint32_t i = 0; i < 8; ++i) {
    CHECK(matches(answers[i].wait(loop.wait_scope()), make_chunk(i, kChunk)));
  }
  home.store().close_stream(*stream);
}

TEST_CASE("chunks that come and go use the same few buffers") {
  constexpr uint32_t kUsual = limits::kChunkSizeDefault;
  constexpr uint32_t kMany = 32;
  constexpr uint64_t kFew = 2 * limits::kDownloadWindowChunks;
  rpc::UvLoop loop;
  TieredHome home(loop);
  TestClient client = login(loop, home.node.tcp());
  Caller caller(loop, client.session);
  const auto& buffers = home.node.core().serve_buffers;
  const auto made = [&] { return rpc::FrameBuffers::made() + buffers.made(); };
  auto created = caller.create({.chunk_size = kUsual});
  REQUIRE(created);
  uint64_t before = made();
  for (uint32_t i = 0; i < kMany; ++i) {
    REQUIRE(caller.send(created->upload, make_chunk(i, kUsual)));
  }
  CHECK(made() - before <= kFew);
  REQUIRE(caller.seal(created->upload, uint64_t{kMany} * kUsual, kMany));

  // Most of it from disk, by a window as clients have it.
  auto blob = caller.open_ref(created->ref);
  REQUIRE(blob);
  std::deque<kj::Promise<ReadAnswer>> window;
  before = made();
  for (uint32_t i = 0; i < 3 * kMany; ++i) {
    if (window.size() == limits::kDownloadWindowChunks) {
      CHECK(window.front().wait(loop.wait_scope()).bytes.size() == kUsual);
      window.pop_front();
    }
    window.push_back(start_read(*blob, i % kMany));
  }
  CHECK(made() - before <= kFew);
  CHECK(buffers.made() > 0);
}

namespace {

// Readers that ask for chunks and take none: on a loop of their own, which stands still once all
// have asked, until this ends.
class Stalled {
 public:
  Stalled(rpc::UvLoop& loop, const rpc::Address& node, const rpc::BlobRefData& ref, int count)
      : thread_([this, node, ref, count] {
          rpc::UvLoop own;
          std::vector<TestClient> clients;
          std::vector<rpc::Blob::Client> blobs;
          std::vector<kj::Promise<ReadAnswer>> answers;
          for (int i = 0; i < count; ++i) {
            clients.push_back(login(own, node));
            blobs.push_back(*Caller(own, clients.back().session).open_ref(ref));
          }
          // Different chunks: one that several want at a time is loaded once for all of them.
          for (uint32_t reader = 0; reader < blobs.size(); ++reader) {
            for (uint32_t index = 0; index < kTieredChunks; ++index) {
              answers.push_back(start_read(blobs[reader], (index + 8 * reader) % kTieredChunks));
            }
          }
          answers.back().poll(own.wait_scope());  // sends them, and reads next to nothing
          have_asked_ = true;
          end_.get_future().wait();
        }) {
    run_until(
        loop, [this] { return have_asked_.load(); }, "stalled readers");
  }
  ~Stalled() {
    end_.set_value();
    thread_.join();
  }

 private:
  std::atomic<bool> have_asked_{false};
  std::promise<void> end_;
  std::thread thread_;  // the last
};

}  // namespace

TEST_CASE("three readers that take nothing, and all else held: a fourth is served from disk") {
  constexpr uint32_t kUsual = limits::kChunkSizeDefault;
  constexpr uint32_t kMany = 32;
  rpc::UvLoop loop;
  TieredHome home(loop);
  TestClient client = login(loop, home.node.tcp());
  Caller caller(loop, client.session);
  const auto cold = caller.put_blob({.name = "cold", .chunk_size = kUsual}, kMany);
  const auto pinned = caller.put_blob({.name = "pinned", .chunk_size = kChunk}, 3);
  REQUIRE(home.store().pin(pinned.id));
  auto writer = caller.create({.name = "writer", .chunk_size = kUsual});
  REQUIRE(writer);
  for (uint64_t i = 0; i < limits::kReceiveReserve / kUsual; ++i) {
    REQUIRE(caller.credit(writer->upload, kUsual));
  }
  const Stalled stalled(loop, home.node.tcp(), cold, 3);
  auto& buffers = home.node.core().serve_buffers;
  // What is in the sockets' queues has left the node: so much is asked for that they are full.
  run_until(
      loop,
      [&] {
        return buffers.bytes_used() >= uint64_t{3} * kUsual &&
               home.node.metrics().serves_waiting >= 3 * (kTieredChunks - 8);
      },
      "readers that hold what they may");

  auto blob = caller.open_ref(cold);
  REQUIRE(blob);
  std::vector<kj::Promise<ReadAnswer>> answers;
  for (uint32_t i = 0; i < 8; ++i) answers.push_back(start_read(*blob, i));
  run_until(
      loop,
      [&] {
        CHECK(buffers.bytes_used() <= limits::kServeReserve);
        return std::ranges::all_of(answers,
                                   [&](auto& answer) { return answer.poll(loop.wait_scope()); });
      },
      "eight chunks for the fourth");
  for (uint32_t i = 0; i < 8; ++i) {
    CHECK(matches(answers[i].wait(loop.wait_scope()), make_chunk(i, kUsual)));
  }
  CHECK(home.node.metrics().connections == 4);  // nobody was sent away for it
}

}  // namespace bigcast::testing
