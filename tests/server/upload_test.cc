#include "server/upload.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "server/credit.h"
#include "tests/server/fixture.h"

namespace bigcast::testing {
namespace {

TEST_CASE("a sealed blob reads back, by name, by ref and by id") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  const auto ref = caller.put_blob({.size = 3 * kSmallChunk}, 3);
  CHECK(ref.size == 3 * kSmallChunk);
  CHECK(ref.homes == std::vector<rpc::Address>{node.tcp()});
  CHECK_FALSE(ref.root_digest == Digest128{});
  for (int way = 0; way < 3; way++) {
    auto blob = way == 0   ? caller.open_name("blob")
                : way == 1 ? caller.open_ref(ref)
                           : caller.open_home(ref.id);
    REQUIRE(blob);
    for (uint32_t i = 0; i < 3; i++) CHECK(matches(read(loop, *blob, i), make_chunk(i)));
    CHECK(read(loop, *blob, 3).is_end);
    CHECK(read(loop, *blob, limits::kChunksPerBlobMax).error->code == ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("an empty blob and one with a short last chunk") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  caller.put_blob({.name = "empty"}, 0);
  CHECK(read(loop, *caller.open_name("empty"), 0).is_end);

  auto created = caller.create({.name = "short"});
  REQUIRE(created);
  const Chunk last = make_chunk(1, 13);
  CHECK(caller.send(created->upload, last));
  CHECK(caller.send(created->upload, make_chunk(0)));
  CHECK(caller.send(created->upload, make_chunk(0)));  // again: no harm
  CHECK(caller.send(created->upload, make_chunk(2)).error().code == ErrorCode::kInvalidArgument);
  CHECK(caller.seal(created->upload, kSmallChunk + 12, 2).error().code ==
        ErrorCode::kInvalidArgument);
  const auto sealed = caller.seal(created->upload, kSmallChunk + 13, 2);
  REQUIRE(sealed);
  CHECK(caller.seal(created->upload, kSmallChunk + 13, 2)->root_digest == sealed->root_digest);
  CHECK(matches(read(loop, *caller.open_name("short"), 1), last));
}

TEST_CASE("bad chunks are refused and do no harm") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  auto created = caller.create({.size = 2 * kSmallChunk});
  REQUIRE(created);
  const Chunk good = make_chunk(0);
  CHECK(caller.put(created->upload, good).error().code == ErrorCode::kInvalidArgument);  // credit

  Chunk damaged = good;
  damaged.bytes[17] ^= 1;
  CHECK(caller.send(created->upload, damaged).error().code == ErrorCode::kCorrupt);
  Chunk lying = good;
  lying.meta.stored_size = lying.meta.raw_size = kSmallChunk - 4096;
  CHECK(caller.send(created->upload, lying).error().code == ErrorCode::kInvalidArgument);
  Chunk beyond = make_chunk(2);
  CHECK(caller.send(created->upload, beyond).error().code == ErrorCode::kInvalidArgument);
  CHECK(caller.credit(created->upload, kSmallChunk + 1).error().code ==
        ErrorCode::kInvalidArgument);
  CHECK(caller.credit(created->upload, 0).error().code == ErrorCode::kInvalidArgument);

  CHECK(caller.send(created->upload, good));
  CHECK(caller.send(created->upload, make_chunk(1)));
  CHECK(caller.seal(created->upload, 2 * kSmallChunk, 2));
  CHECK(node.metrics().checksum_failures == 1);
}

TEST_CASE("readers follow the writer") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  auto created = caller.create({});
  REQUIRE(created);
  auto blob = caller.open_ref(created->ref);
  REQUIRE(blob);
  auto second = start_read(*blob, 1);
  auto first = start_read(*blob, 0);
  auto after_end = start_read(*blob, 2);
  run_for(loop, std::chrono::milliseconds(50));
  CHECK_FALSE(first.poll(loop.wait_scope()));
  REQUIRE(caller.send(created->upload, make_chunk(0)));
  CHECK(matches(first.wait(loop.wait_scope()), make_chunk(0)));
  run_for(loop, std::chrono::milliseconds(50));
  CHECK_FALSE(second.poll(loop.wait_scope()));
  REQUIRE(caller.send(created->upload, make_chunk(1)));
  CHECK(matches(second.wait(loop.wait_scope()), make_chunk(1)));
  CHECK_FALSE(after_end.poll(loop.wait_scope()));
  REQUIRE(caller.seal(created->upload, 2 * kSmallChunk, 2));
  CHECK(after_end.wait(loop.wait_scope()).is_end);
}

TEST_CASE("an upload that is given up frees everything; its readers get ABORTED") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient reader = login(loop, node.tcp());
  Caller caller(loop, reader.session);
  rpc::BlobRefData ref;
  kj::Promise<ReadAnswer> waiting = nullptr;
  {
    TestClient writer = login(loop, node.tcp());
    Caller writing(loop, writer.session);
    auto created = writing.create({.size = 4 * kSmallChunk});
    REQUIRE(created);
    ref = created->ref;
    REQUIRE(writing.send(created->upload, make_chunk(0)));
    REQUIRE(writing.credit(created->upload, kSmallChunk));  // and never used
    auto blob = caller.open_ref(ref);
    REQUIRE(blob);
    CHECK(matches(read(loop, *blob, 0), make_chunk(0)));
    waiting = start_read(*blob, 1);
    run_for(loop, std::chrono::milliseconds(50));
  }
  CHECK(waiting.wait(loop.wait_scope()).error->code == ErrorCode::kAborted);
  CHECK(caller.open_ref(ref).error().code == ErrorCode::kNotFound);
  CHECK(caller.open_name("blob").error().code == ErrorCode::kNotFound);
  run_until(
      loop, [&] { return node.core().store->usage().blobs == 0; }, "the blob's removal");
  const StoreUsage usage = node.core().store->usage();
  CHECK(usage.memory_used == 0);
  CHECK(usage.reserved == 0);
  CHECK(node.core().credits->bytes_used() == 0);
}

TEST_CASE("credit of all uploads together stays within the reserve, first come, first served") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  constexpr uint32_t kLarge = limits::kChunkSizeDefault;
  constexpr size_t kFit = limits::kReceiveReserve / kLarge;
  std::vector<Created> uploads;
  for (size_t i = 0; i < kFit + 2; i++) {
    auto created = caller.create({.name = "b" + std::to_string(i), .chunk_size = kLarge});
    REQUIRE(created);
    uploads.push_back(kj::mv(*created));
  }
  for (size_t i = 0; i < kFit; i++) REQUIRE(caller.credit(uploads[i].upload, kLarge));
  const auto ask = [&](size_t i) {
    auto request = uploads[i].upload.creditRequest();
    request.setBytes(kLarge);
    return request.send().ignoreResult();
  };
  auto first = ask(kFit);
  auto second = ask(kFit + 1);
  run_for(loop, std::chrono::milliseconds(50));
  CHECK_FALSE(first.poll(loop.wait_scope()));
  CHECK(node.core().credits->bytes_used() == limits::kReceiveReserve);
  REQUIRE(caller.put(uploads[0].upload, make_chunk(0, kLarge)));  // gives its credit back
  first.wait(loop.wait_scope());
  CHECK_FALSE(second.poll(loop.wait_scope()));
  uploads[1].upload = nullptr;  // dropping an upload gives back what it holds
  second.wait(loop.wait_scope());
  CHECK(node.core().credits->bytes_used() <= limits::kReceiveReserve);
}

TEST_CASE("whoever stops waiting for credit lets those behind it through") {
  rpc::UvLoop loop;
  auto pool = kj::refcounted<CreditPool>(10);
  auto held = pool->acquire(6).wait(loop.wait_scope());
  auto large = pool->acquire(10);
  auto small = pool->acquire(4);
  auto smallest = pool->acquire(1);
  CHECK_FALSE(small.poll(loop.wait_scope()));  // first come, first served
  large = nullptr;
  CHECK(small.poll(loop.wait_scope()));
  CHECK_FALSE(smallest.poll(loop.wait_scope()));
  CHECK(pool->bytes_used() == 10);
  held = nullptr;
  CHECK(smallest.poll(loop.wait_scope()));
  CHECK(pool->bytes_used() == 5);
}

TEST_CASE("a writer that sits on its credit is ended, one whose bytes still come is not") {
  constexpr auto kTimeout = std::chrono::milliseconds(limits::kProgressTimeoutMs);
  constexpr auto kSecond = std::chrono::seconds(1);
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  auto created = caller.create({.name = "slow"});
  REQUIRE(created);
  const auto send_something = [&] {  // as much as a part of a chunk
    CHECK_FALSE(caller.put(created->upload, make_chunk(9, kSmallChunk / 2)));
  };
  const auto check_at = [&](TimePoint now) {
    for (UploadService* upload :
         std::vector(node.core().uploads.begin(), node.core().uploads.end()))
      upload->check_progress(now);
    return static_cast<bool>(caller.credit(created->upload, 1));
  };
  TimePoint now = node.core().clock.now();
  CHECK(check_at(now + 10 * kTimeout));  // it has no credit: nobody waits for it
  now += 10 * kTimeout;
  SUBCASE("nothing comes") {
    CHECK_FALSE(check_at(now + kTimeout + kSecond));
    CHECK(caller.put(created->upload, make_chunk(0)).error().code == ErrorCode::kAborted);
  }
  SUBCASE("bytes come, but for too long without the chunk") {
    for (int i = 0; i < 4; i++) {
      send_something();
      CHECK(check_at(now += kTimeout - kSecond));
    }
    CHECK_FALSE(check_at(now + kTimeout + kSecond));
  }
}

TEST_CASE("an upload of unknown size is refused when a step can't be reserved") {
  rpc::UvLoop loop;
  TestNode node(loop, [](Config& config) { config.memory_bytes = 16 * limits::kMiB; });
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  auto created = caller.create({.chunk_size = limits::kChunkSizeDefault});
  REQUIRE(created);
  Result<void> result;
  uint32_t stored = 0;
  for (; stored < 8 && result; stored++) {
    result = caller.send(created->upload, make_chunk(stored, limits::kChunkSizeDefault));
  }
  REQUIRE_FALSE(result);
  CHECK(result.error().code == ErrorCode::kResourceExhausted);
  CHECK(stored > 2);  // it got most of what there was
  CHECK(node.core().store->usage().memory_used <= node.config.memory_bytes);
}

TEST_CASE("a name is replaced when its successor is sealed, not before") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  const auto old = caller.put_blob({}, 1);
  auto created = caller.create({.replace = true});
  REQUIRE(created);
  CHECK(caller.stat("blob")->id == old.id);
  REQUIRE(caller.send(created->upload, make_chunk(0)));
  REQUIRE(caller.seal(created->upload, kSmallChunk, 1));
  CHECK(caller.stat("blob")->id == created->ref.id);
  run_until(
      loop, [&] { return !caller.open_home(old.id); }, "the old blob's removal");
  run_until(
      loop, [&] { return node.core().store->usage().blobs == 1; }, "its memory's release");
}

TEST_CASE("of two blobs that take a name at once the one sealed first ends, too") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  caller.put_blob({}, 1);
  auto first = caller.create({.replace = true});
  auto second = caller.create({.replace = true});
  REQUIRE(first);
  REQUIRE(second);
  for (auto* created : {&*first, &*second}) REQUIRE(caller.send(created->upload, make_chunk(0)));
  auto watching = caller.open_ref(first->ref)->watchRequest().send();
  auto seal_first = start_seal(first->upload, kSmallChunk, 1);
  auto seal_second = start_seal(second->upload, kSmallChunk, 1);
  seal_first.wait(loop.wait_scope());
  seal_second.wait(loop.wait_scope());
  const BlobId last = caller.stat("blob")->id;
  const auto& loser = last == first->ref.id ? second->ref : first->ref;
  run_until(
      loop, [&] { return !caller.open_home(loser.id); }, "the end of the one replaced");
  if (last == second->ref.id) {
    CHECK(watching.wait(loop.wait_scope()).getEvent() == rpc::BlobEvent::REMOVED);
  }
  run_until(
      loop, [&] { return node.core().store->usage().blobs == 1; }, "its memory's release");
}

TEST_CASE("a removed blob is gone for its writer and its readers") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  auto created = caller.create({});
  REQUIRE(created);
  auto blob = caller.open_name("blob");
  REQUIRE(blob);
  auto waiting = start_read(*blob, 0);
  auto watching = blob->watchRequest().send();
  REQUIRE(caller.remove_name("blob"));
  CHECK(waiting.wait(loop.wait_scope()).error->code == ErrorCode::kNotFound);
  CHECK(watching.wait(loop.wait_scope()).getEvent() == rpc::BlobEvent::REMOVED);
  CHECK(caller.send(created->upload, make_chunk(0)).error().code == ErrorCode::kNotFound);
  CHECK(caller.seal(created->upload, 0, 0).error().code == ErrorCode::kNotFound);
  CHECK(caller.remove_name("blob").error().code == ErrorCode::kNotFound);
}

TEST_CASE("readers on the same host read through a descriptor") {
  rpc::UvLoop loop;
  TestNode node(loop,
                [](Config& config) { config.socket = *rpc::Address::parse(unique_socket()); });
  TestClient writer = login(loop, node.tcp());
  constexpr uint32_t kChunk = 2 * limits::kMiB;
  const auto ref =
      Caller(loop, writer.session).put_blob({.size = 2 * kChunk, .chunk_size = kChunk}, 2);
  TestClient near = login(loop, node.local());
  auto blob = Caller(loop, near.session).open_ref(ref);
  REQUIRE(blob);
  const ReadAnswer located = read(loop, *blob, 1, rpc::ReadMode::PREFER_LOCATED);
  REQUIRE(located.is_located);
  auto memory = blob->memoryRequest().send().wait(loop.wait_scope());
  REQUIRE(memory.hasFile());
  auto file = memory.getFile();
  const auto maybe_fd = file.getFd().wait(loop.wait_scope());
  int fd = -1;
  KJ_IF_MAYBE (found, maybe_fd) fd = *found;
  REQUIRE(fd >= 0);
  std::string bytes(kChunk, '\0');
  REQUIRE(pread(fd, bytes.data(), kChunk, kChunk) == kChunk);
  CHECK(bytes == make_chunk(1, kChunk).bytes);
  CHECK(write(fd, "x", 1) < 0);

  auto far = Caller(loop, writer.session).open_ref(ref);
  REQUIRE(far);
  CHECK(matches(read(loop, *far, 1, rpc::ReadMode::PREFER_LOCATED), make_chunk(1, kChunk)));
  CHECK_FALSE(far->memoryRequest().send().wait(loop.wait_scope()).hasFile());
}

TEST_CASE("a draining node refuses new uploads and lets running ones end") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  auto created = caller.create({});
  REQUIRE(created);
  auto drained = node.node->drain();
  CHECK(caller.create({.name = "late"}).error().code == ErrorCode::kUnavailable);
  run_for(loop, std::chrono::milliseconds(2 * limits::kDrainQuietMs));
  CHECK_FALSE(drained.poll(loop.wait_scope()));
  REQUIRE(caller.send(created->upload, make_chunk(0)));
  REQUIRE(caller.seal(created->upload, kSmallChunk, 1));
  drained.wait(loop.wait_scope());
}

}  // namespace
}  // namespace bigcast::testing
