#include "rpc/login.h"

#include <doctest/doctest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <optional>
#include <string>
#include <vector>

#include "base/hkdf.h"
#include "base/limits.h"
#include "tests/rpc/support.h"

using namespace bigcast;
using namespace bigcast::rpc;
using namespace bigcast::rpc::testing;

namespace {

class EmptySession final : public Session::Server {
 public:
  kj::Promise<void> renew(RenewContext) override { return kj::READY_NOW; }
};

struct Seen {
  std::string name_space;
  LeaseId lease;
  std::string client_name;
};

struct Node {
  explicit Node(const Address& address, char secret = 's')
      : server(loop, address, [this, secret](Connection& connection) {
          return make_bootstrap(connection, options(secret));
        }) {}

  LoginOptions options(char secret) {
    return {[secret](std::string_view name_space) -> Result<NamespaceKey> {
              return NamespaceKey::derive(secret_of(secret), name_space);
            },
            [this](const LoginRequest& request) -> Result<Session::Client> {
              seen = Seen{request.name_space, request.lease, request.client_name};
              if (request.name_space == "full") {
                return fail(ErrorCode::kResourceExhausted, "too many sessions");
              }
              return Session::Client(kj::heap<EmptySession>());
            }};
  }

  Result<Session::Client> log_in(const NamespaceKey& key, LeaseId lease = {}) {
    connection = server.connect();
    return login(loop, *connection, key, lease, "test\nclient").wait(loop.wait_scope());
  }

  UvLoop loop;
  std::optional<Seen> seen;
  TestServer server;
  kj::Own<Connection> connection;
};

ErrorCode code_of(const Result<Session::Client>& result) {
  return result ? ErrorCode::kOk : result.error().code;
}

}  // namespace

TEST_CASE("who knows the secret gets a session") {
  for (const Address& address : {tcp(), Address::unix_socket(abstract_name("login"))}) {
    Node node(address);
    auto session = node.log_in(NamespaceKey::derive(secret_of('s'), "app"), LeaseId{1, 2});
    REQUIRE(session);
    session->renewRequest().send().wait(node.loop.wait_scope());
    REQUIRE(node.seen);
    CHECK(node.seen->name_space == "app");
    CHECK(node.seen->lease == LeaseId{1, 2});
    CHECK(node.seen->client_name == "test client");
  }
}

TEST_CASE("who does not know it gets nothing") {
  Node node(tcp());
  CHECK(code_of(node.log_in(NamespaceKey::derive(secret_of('x'), "app"))) ==
        ErrorCode::kUnauthenticated);
  CHECK(code_of(node.log_in(NamespaceKey::derive(Secret(), "app"))) == ErrorCode::kUnauthenticated);
  CHECK(code_of(node.log_in(NamespaceKey::derive(secret_of('s'), "../x"))) ==
        ErrorCode::kInvalidArgument);
  CHECK_FALSE(node.seen);
  const auto full = node.log_in(NamespaceKey::derive(secret_of('s'), "full"));
  CHECK(code_of(full) == ErrorCode::kResourceExhausted);
  CHECK(full.error().message == "too many sessions");
}

TEST_CASE("a call that runs after its connection has gone reaches nobody") {
  Node node(tcp());
  const auto connection = node.server.connect();
  REQUIRE(run_until(node.loop, [&] { return !node.server.connections().empty(); }));
  LoginOptions nobodys;
  nobodys.key_of = [](std::string_view) -> Result<NamespaceKey> {
    throw std::logic_error("a key was asked for");
  };
  nobodys.on_hello = [](std::string_view) { throw std::logic_error("hello"); };
  auto bootstrap = make_bootstrap(*node.server.connections().front(), nobodys).castAs<Bootstrap>();
  node.server.connections().clear();
  const auto gone = kj::runCatchingExceptions(
      [&] { bootstrap.helloRequest().send().wait(node.loop.wait_scope()); });
  KJ_IF_MAYBE (why, gone) {
    CHECK(why->getType() == kj::Exception::Type::DISCONNECTED);
  } else {
    FAIL("it was answered");
  }
}

namespace {

// Speaks the protocol by hand: what login() would never send.
struct Hello {
  Node& node;
  kj::Own<Connection> connection = node.server.connect();
  Nonce nonce = random_nonce();
  uint32_t version = limits::kProtocolVersion;
  size_t nonce_size = 32;
  const char* name_space = "app";

  auto send() {
    auto request = connection->bootstrap().castAs<Bootstrap>().helloRequest();
    request.setProtocolVersion(version);
    request.setNameSpace(name_space);
    request.setClientNonce({nonce.data(), nonce_size});
    return request.send().wait(node.loop.wait_scope());
  }
};

uint16_t prove(Node& node, Login::Client login, const Proof& proof, LeaseId lease) {
  auto request = login.proveRequest();
  request.setClientProof({proof.data(), proof.size()});
  request.initLease().setHi(lease.hi);
  request.getLease().setLo(lease.lo);
  request.setClientName("by hand");
  auto response = request.send().wait(node.loop.wait_scope());
  const auto result = response.getResult();
  return result.isError() ? result.getError().getCode() : 0;
}

// The client's proof as docs/PROTOCOL.md has it, of any key, without a lease.
Proof proof_by_hand(const Key256& key, const Nonce& client, const Nonce& server,
                    std::string_view name_space) {
  std::vector<uint8_t> transcript;
  const auto number = [&](uint64_t n) {
    for (int shift = 0; shift < 64; shift += 8) transcript.push_back(uint8_t(n >> shift));
  };
  const auto part = [&](const auto& bytes) {
    number(bytes.size());
    transcript.insert(transcript.end(), bytes.begin(), bytes.end());
  };
  part(std::string_view("client"));
  number(limits::kProtocolVersion);
  part(client);
  part(server);
  part(name_space);
  number(0);
  number(0);
  Proof proof{};
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), transcript.data(), transcript.size(),
       proof.data(), nullptr);
  return proof;
}

Nonce server_nonce_of(HelloResult::Reader hello) {
  Nonce nonce{};
  const auto data = hello.getChallenge().getServerNonce();
  REQUIRE(data.size() == nonce.size());
  std::copy(data.begin(), data.end(), nonce.begin());
  return nonce;
}

constexpr auto kUnauthenticated = static_cast<uint16_t>(ErrorCode::kUnauthenticated);

}  // namespace

TEST_CASE("a proof is good for one login, one lease and one namespace") {
  Node node(tcp());
  const auto key = NamespaceKey::derive(secret_of('s'), "app");
  const auto attempt = [&](auto make_proof, LeaseId lease) {
    Hello hello{node};
    auto answer = hello.send();
    const Nonce server = server_nonce_of(answer.getResult());
    return prove(node, answer.getResult().getChallenge().getLogin(),
                 make_proof(hello.nonce, server), lease);
  };
  std::optional<Proof> recorded;
  CHECK(attempt(
            [&](const Nonce& client, const Nonce& server) {
              return *(recorded = key.client_proof(client, server, {}));
            },
            {}) == 0);
  CHECK(attempt([&](auto&, auto&) { return *recorded; }, {}) == kUnauthenticated);
  CHECK(attempt([&](auto& client, auto& server) { return key.client_proof(client, server, {}); },
                LeaseId{5, 5}) == kUnauthenticated);
  CHECK(attempt([&](auto& client, auto& server) { return key.server_proof(client, server); }, {}) ==
        kUnauthenticated);
  CHECK(attempt(
            [&](auto& client, auto& server) {
              return NamespaceKey::derive(secret_of('s'), "other").client_proof(client, server, {});
            },
            {}) == kUnauthenticated);
  CHECK(attempt([&](auto&, auto&) { return Proof{}; }, {}) == kUnauthenticated);
}

// What who has A's key and nothing else can do: say that it is B, with proofs made of A's key.
TEST_CASE("the key of one namespace opens no other, whatever is proven with it") {
  Node node(tcp());
  const auto a = NamespaceKey::derive(secret_of('s'), "a");
  const auto attempt = [&](const char* name_space, const Key256& key, const char* proven) {
    Hello hello{node};
    hello.name_space = name_space;
    auto answer = hello.send();
    const Nonce server = server_nonce_of(answer.getResult());
    const Proof proof = proof_by_hand(key, hello.nonce, server, proven);
    return prove(node, answer.getResult().getChallenge().getLogin(), proof, {});
  };
  const Key256 key = hkdf_sha256(secret_of('s').bytes(), "bigcast login 1", "a");
  CHECK(attempt("a", key, "a") == 0);  // so the login by hand is a right one
  REQUIRE(node.seen);
  node.seen.reset();
  CHECK(attempt("b", key, "b") == kUnauthenticated);
  CHECK(attempt("b", key, "a") == kUnauthenticated);
  CHECK(attempt("a", key, "b") == kUnauthenticated);
  // A key made of the key, as if that were the secret; and its text as one.
  const Key256 of_key =
      hkdf_sha256({reinterpret_cast<const char*>(key.data()), key.size()}, "bigcast login 1", "b");
  CHECK(attempt("b", of_key, "b") == kUnauthenticated);
  CHECK(attempt("b", hkdf_sha256(a.to_text(), "bigcast login 1", "b"), "b") == kUnauthenticated);
  CHECK_FALSE(node.seen);
}

TEST_CASE("there is one attempt a connection") {
  Node node(tcp());
  const auto key = NamespaceKey::derive(secret_of('s'), "app");
  Hello hello{node};
  auto answer = hello.send();
  const Proof good = key.client_proof(hello.nonce, server_nonce_of(answer.getResult()), {});
  auto login = answer.getResult().getChallenge().getLogin();
  CHECK(prove(node, login, Proof{}, {}) == kUnauthenticated);
  CHECK(prove(node, login, good, {}) == kUnauthenticated);
  auto again = hello.send();
  REQUIRE(again.getResult().isError());
  CHECK(again.getResult().getError().getCode() == kUnauthenticated);
}

TEST_CASE("another version and a short nonce are refused with a reason") {
  Node node(tcp());
  for (const uint32_t version : {0u, limits::kProtocolVersion + 1, 0xFFFFFFFFu}) {
    Hello hello{node};
    hello.version = version;
    auto answer = hello.send();
    REQUIRE(answer.getResult().isError());
    CHECK(answer.getResult().getError().getCode() ==
          static_cast<uint16_t>(ErrorCode::kUnsupported));
  }
  Hello hello{node};
  hello.nonce_size = 31;
  auto answer = hello.send();
  REQUIRE(answer.getResult().isError());
  CHECK(answer.getResult().getError().getCode() ==
        static_cast<uint16_t>(ErrorCode::kInvalidArgument));
}

namespace {

// A squatter: answers a client's hello with what it has, and would accept anything.
class Impostor final : public Bootstrap::Server {
 public:
  kj::Promise<void> hello(HelloContext context) override {
    auto challenge = context.getResults(capnp::MessageSize{64, 1}).initResult().initChallenge();
    const auto nonce = context.getParams().getClientNonce();
    challenge.setServerNonce(nonce);
    challenge.setServerProof(nonce);
    challenge.setLogin(kj::heap<Yes>(proofs_seen));
    return kj::READY_NOW;
  }
  static inline int proofs_seen = 0;

 private:
  class Yes final : public Login::Server {
   public:
    explicit Yes(int& seen) : seen_(seen) {}
    kj::Promise<void> prove(ProveContext context) override {
      ++seen_;
      context.getResults(capnp::MessageSize{64, 1})
          .initResult()
          .setSession(kj::heap<EmptySession>());
      return kj::READY_NOW;
    }

   private:
    int& seen_;
  };
};

class Silent final : public Bootstrap::Server {
  kj::Promise<void> hello(HelloContext) override { return kj::NEVER_DONE; }
};

}  // namespace

TEST_CASE("a client proves nothing to a server that does not know the secret") {
  UvLoop loop;
  TestServer server(loop, tcp(),
                    [](Connection&) -> capnp::Capability::Client { return kj::heap<Impostor>(); });
  auto connection = server.connect();
  const auto key = NamespaceKey::derive(secret_of('s'), "app");
  const auto session = login(loop, *connection, key, {}, "test").wait(loop.wait_scope());
  CHECK(code_of(session) == ErrorCode::kUnauthenticated);
  CHECK(Impostor::proofs_seen == 0);
}

TEST_CASE("a connection that goes during the login is UNAVAILABLE") {
  UvLoop loop;
  TestServer server(loop, tcp(),
                    [](Connection&) -> capnp::Capability::Client { return kj::heap<Silent>(); });
  auto connection = server.connect();
  auto result = login(loop, *connection, NamespaceKey::derive(secret_of('s'), "app"), {}, "test");
  REQUIRE(run_until(loop, [&]() { return !server.connections().empty(); }));
  server.connections().clear();
  CHECK(code_of(result.wait(loop.wait_scope())) == ErrorCode::kUnavailable);
}

// These wait for real deadlines, all at once.
TEST_CASE("deadlines: silence before and during login") {
  Node node(tcp());
  UvLoop& loop = node.loop;
  TestServer silent(loop, tcp(),
                    [](Connection&) -> capnp::Capability::Client { return kj::heap<Silent>(); });
  auto connection = silent.connect();
  auto unanswered = login(loop, *connection, NamespaceKey::derive(secret_of('s'), "a"), {}, "test");
  RawSocket mute(node.server.address());  // never says a word
  RawSocket dribbling(node.server.address());
  dribbling.send({0, 16, 0});
  auto ok = node.log_in(NamespaceKey::derive(secret_of('s'), "app"));
  REQUIRE(ok);
  CHECK(node.server.disconnected() == 0);
  CHECK(run_until(
      loop, [&]() { return node.server.disconnected() == 2; }, 60'000));
  CHECK(code_of(unanswered.wait(loop.wait_scope())) == ErrorCode::kDeadlineExceeded);
  loop.timer().afterDelay(500 * kj::MILLISECONDS).wait(loop.wait_scope());
  CHECK(node.server.disconnected() == 2);
  ok->renewRequest().send().wait(loop.wait_scope());  // who has logged in stays
}
