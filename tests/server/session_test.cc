#include <doctest/doctest.h>

#include <string>

#include "tests/server/fixture.h"

namespace bigcast::testing {
namespace {

const std::string kSecret(32, 'a');
const std::string kOtherSecret(32, 'b');

Secret secret_of(const std::string& text) { return *Secret::from_text(text, "test"); }

TEST_CASE("a session needs the node's secret") {
  rpc::UvLoop loop;
  TestNode node(loop, [](Config& config) { config.secret = secret_of(kSecret); });
  CHECK(try_login(loop, node.tcp(), {.secret = kSecret}));
  for (const std::string& wrong : {kOtherSecret, std::string()}) {
    const auto refused = try_login(loop, node.tcp(), {.secret = wrong});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::kUnauthenticated);
  }
  run_until(
      loop, [&] { return node.metrics().login_failures == 2; }, "two counted failures");
  run_until(
      loop, [&] { return node.metrics().sessions == 0; }, "the end of all sessions");
}

TEST_CASE("a foreign blob looks absent by name and by id") {
  rpc::UvLoop loop;
  TestNode node(loop, [](Config& config) { config.secret = secret_of(kSecret); });
  // Neither has the node's secret: each has the key of its namespace.
  const auto as = [](const char* name_space) {
    const auto key = rpc::NamespaceKey::derive(secret_of(kSecret), name_space);
    return LoginAs{.name_space = name_space, .secret = key.to_text()};
  };
  TestClient owner = login(loop, node.tcp(), as("owner"));
  TestClient other = login(loop, node.tcp(), as("other"));
  Caller mine(loop, owner.session);
  Caller theirs(loop, other.session);
  const auto ref = mine.put_blob({.name = "a/b"}, 1);

  const auto absent = theirs.open_home(Id128::random());
  const auto foreign = theirs.open_home(ref.id);
  REQUIRE_FALSE(absent);
  REQUIRE_FALSE(foreign);
  CHECK(absent.error().code == ErrorCode::kNotFound);
  CHECK(foreign.error().code == ErrorCode::kNotFound);
  CHECK(theirs.open_name("a/b").error().code == ErrorCode::kNotFound);
  CHECK(theirs.open_ref(ref).error().code == ErrorCode::kNotFound);
  rpc::BlobRefData forged = ref;
  forged.name_space = "other";
  CHECK(theirs.open_ref(forged).error().code == ErrorCode::kNotFound);
  CHECK(theirs.stat("a/b").error().code == ErrorCode::kNotFound);
  CHECK(theirs.remove_name("a/b").error().code == ErrorCode::kNotFound);
  CHECK(theirs.drop_copies(ref.id).error().code == ErrorCode::kNotFound);
  CHECK(theirs.list().empty());
  CHECK(mine.open_ref(ref));
  CHECK(mine.list() == std::vector<std::string>{"a/b"});
}

TEST_CASE("lists come in order of name, in pages, by prefix") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  for (const char* name : {"x/3", "x/1", "y/1", "x/2"}) caller.put_blob({.name = name}, 1);
  CHECK(caller.list() == std::vector<std::string>{"x/1", "x/2", "x/3", "y/1"});
  CHECK(caller.list("x/") == std::vector<std::string>{"x/1", "x/2", "x/3"});
}

TEST_CASE("bad creates are refused before anything is stored") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  Caller caller(loop, client.session);
  const std::vector<NewBlob> bad = {
      {.name = ""},
      {.name = std::string(4096, 'n')},
      {.name = "../up"},
      {.name = "bad\xff"},
      {.size = -2},
      {.size = static_cast<int64_t>(limits::kBlobSizeMax) + 1},
      {.chunk_size = 1},
      {.chunk_size = limits::kChunkSizeMin + 1},
      {.chunk_size = 2 * limits::kChunkSizeMax},
      {.until_removed = false},  // and no lease
  };
  for (const NewBlob& blob : bad) {
    const auto created = caller.create(blob);
    REQUIRE_FALSE_MESSAGE(created, blob.name << " " << blob.size << " " << blob.chunk_size);
    CHECK(created.error().code == ErrorCode::kInvalidArgument);
  }
  const auto large = caller.create({.size = static_cast<int64_t>(limits::kGiB)});
  REQUIRE_FALSE(large);
  CHECK(large.error().code == ErrorCode::kResourceExhausted);
  CHECK(node.core().store->usage().blobs == 0);

  caller.put_blob({.name = "taken"}, 1);
  CHECK(caller.create({.name = "taken"}).error().code == ErrorCode::kAlreadyExists);
}

TEST_CASE("a blob lives as long as its lease, and for the grace after that") {
  rpc::UvLoop loop;
  TestNode node(loop, [](Config& config) { config.lease_grace = std::chrono::milliseconds(300); });
  const LeaseId lease = LeaseId::random();
  TestClient watcher = login(loop, node.tcp());
  Caller caller(loop, watcher.session);
  {
    TestClient driver = login(loop, node.tcp(), {.lease = lease});
    TestClient executor = login(loop, node.tcp(), {.lease = lease});
    Caller(loop, driver.session).put_blob({.name = "leased", .until_removed = false}, 2);
    Caller(loop, driver.session).put_blob({.name = "kept"}, 1);
    { const TestClient gone = kj::mv(driver); }
    run_for(loop, std::chrono::milliseconds(700));
    CHECK(caller.stat("leased"));  // the other session holds the lease
  }
  run_until(
      loop, [&] { return !caller.stat("leased"); }, "the end of the lease");
  CHECK(caller.stat("kept"));
  CHECK(node.core().leases.size() == 0);
}

TEST_CASE("a silent session ends, whatever its connection does") {
  rpc::UvLoop loop;
  TestNode node(loop,
                [](Config& config) { config.session_timeout = std::chrono::milliseconds(1500); });
  TestClient silent = login(loop, node.tcp());
  TestClient renewing = login(loop, node.tcp());
  // Often, since a busy machine must not silence the one that speaks.
  for (int i = 0; node.metrics().sessions == 2 && i < 2000; i++) {
    run_for(loop, std::chrono::milliseconds(20));
    renewing.session.renewRequest().send().wait(loop.wait_scope());
  }
  CHECK(node.metrics().sessions == 1);
  silent.connection->on_disconnect().wait(loop.wait_scope());
  renewing.session.renewRequest().send().wait(loop.wait_scope());
}

TEST_CASE("info tells budgets and the advertised address") {
  rpc::UvLoop loop;
  TestNode node(loop);
  TestClient client = login(loop, node.tcp());
  auto response = client.session.infoRequest().send().wait(loop.wait_scope());
  const auto info = response.getInfo();
  CHECK(info.getMemoryBudget() == node.config.memory_bytes);
  CHECK(info.getAdvertised().getPort() == node.tcp().port);
  CHECK_FALSE(info.getDraining());
  CHECK_FALSE(rpc::read(info.getEpoch()).is_zero());
}

}  // namespace
}  // namespace bigcast::testing
