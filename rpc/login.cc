#include "rpc/login.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>

#include "base/limits.h"
#include "rpc/convert.h"
#include "rpc/socket.h"

namespace bigcast::rpc {
namespace {

std::span<const uint8_t> to_span(capnp::Data::Reader data) { return {data.begin(), data.size()}; }

capnp::Data::Reader to_data(const std::array<uint8_t, 32>& bytes) {
  return {bytes.data(), bytes.size()};
}

std::optional<Nonce> to_nonce(capnp::Data::Reader data) {
  Nonce nonce{};
  if (data.size() != nonce.size()) return {};
  std::copy(data.begin(), data.end(), nonce.begin());
  return nonce;
}

// ---- The server's half.

constexpr capnp::MessageSize kAnswerSize = {64, 1};

struct Challenge {
  NamespaceKey key;
  Nonce client;
  Nonce server;
};

class LoginServer final : public Login::Server {
 public:
  LoginServer(Connection::Handle connection, std::shared_ptr<const LoginOptions> options,
              Challenge challenge)
      : connection_(std::move(connection)),
        options_(std::move(options)),
        challenge_(std::move(challenge)) {}

  kj::Promise<void> prove(ProveContext context) override {
    if (*connection_ == nullptr) return disconnected("login: disconnected");
    auto session = attempt(context.getParams());
    auto result = context.getResults(kAnswerSize).initResult();
    if (session) {
      result.setSession(kj::mv(*session));
    } else {
      options_->on_refused(session.error());
      write(session.error(), result.initError());
    }
    return kj::READY_NOW;
  }

 private:
  Result<Session::Client> attempt(ProveParams::Reader params) {
    if (std::exchange(attempted_, true)) {
      return fail(ErrorCode::kUnauthenticated, "login: one attempt a connection");
    }
    const LeaseId lease = read(params.getLease());
    const Proof expected = challenge_.key.client_proof(challenge_.client, challenge_.server, lease);
    if (!equal_in_constant_time(to_span(params.getClientProof()), expected)) {
      return fail(ErrorCode::kUnauthenticated,
                  fmt::format("login: wrong secret for namespace {}", challenge_.key.name_space()));
    }
    std::string name = to_std(params.getClientName());
    if (name.size() > limits::kClientNameSizeMax) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("client name: at most {} bytes", limits::kClientNameSizeMax));
    }
    std::ranges::replace_if(
        name, [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
    Connection& connection = **connection_;
    auto session = options_->make_session(
        {challenge_.key.name_space(), lease, std::move(name), params.getPeer(), connection});
    if (session) connection.allow_bulk();
    return session;
  }

  Connection::Handle connection_;
  std::shared_ptr<const LoginOptions> options_;
  Challenge challenge_;
  bool attempted_ = false;
};

class BootstrapServer final : public Bootstrap::Server {
 public:
  BootstrapServer(Connection::Handle connection, LoginOptions options)
      : connection_(std::move(connection)),
        options_(std::make_shared<const LoginOptions>(std::move(options))) {}

  kj::Promise<void> hello(HelloContext context) override {
    if (*connection_ == nullptr) return disconnected("login: disconnected");
    auto challenge = attempt(context.getParams());
    auto result = context.getResults(kAnswerSize).initResult();
    if (!challenge) {
      options_->on_refused(challenge.error());
      write(challenge.error(), result.initError());
      return kj::READY_NOW;
    }
    auto out = result.initChallenge();
    out.setServerNonce(to_data(challenge->server));
    out.setServerProof(to_data(challenge->key.server_proof(challenge->client, challenge->server)));
    out.setLogin(kj::heap<LoginServer>(connection_, options_, std::move(*challenge)));
    return kj::READY_NOW;
  }

 private:
  Result<Challenge> attempt(HelloParams::Reader params) {
    if (std::exchange(attempted_, true)) {
      return fail(ErrorCode::kUnauthenticated, "login: one attempt a connection");
    }
    const std::string name_space = to_std(params.getNameSpace());
    options_->on_hello(name_space);
    if (params.getProtocolVersion() != limits::kProtocolVersion) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("protocol version: the client speaks {}, the node {}",
                              params.getProtocolVersion(), limits::kProtocolVersion));
    }
    BIGCAST_TRY(check_namespace(name_space));
    const auto nonce = to_nonce(params.getClientNonce());
    if (!nonce) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("client nonce: must have {} bytes", limits::kNonceSize));
    }
    BIGCAST_ASSIGN(NamespaceKey key, options_->key_of(name_space));
    return Challenge{key, *nonce, random_nonce()};
  }

  Connection::Handle connection_;
  std::shared_ptr<const LoginOptions> options_;
  bool attempted_ = false;
};

// ---- The client's half.

class LoginClient {
 public:
  LoginClient(Connection& connection, const NamespaceKey& key, LeaseId lease, std::string name,
              bool is_peer)
      : connection_(connection.handle()),
        bootstrap_(connection.bootstrap().castAs<Bootstrap>()),
        key_(key),
        lease_(lease),
        name_(std::move(name)),
        is_peer_(is_peer) {}

  kj::Promise<Result<Session::Client>> run() {
    auto request = bootstrap_.helloRequest();
    request.setProtocolVersion(limits::kProtocolVersion);
    request.setNameSpace(key_.name_space().c_str());
    request.setClientNonce(to_data(nonce_));
    return request.send().then([this](auto response) { return prove(response.getResult()); });
  }

 private:
  kj::Promise<Result<Session::Client>> prove(HelloResult::Reader hello) {
    if (hello.isError()) return failed(read(hello.getError()));
    if (!hello.isChallenge()) return failed({ErrorCode::kUnsupported, "login: unknown answer"});
    const auto challenge = hello.getChallenge();
    const auto server_nonce = to_nonce(challenge.getServerNonce());
    if (!server_nonce || !equal_in_constant_time(to_span(challenge.getServerProof()),
                                                 key_.server_proof(nonce_, *server_nonce))) {
      return failed({ErrorCode::kUnauthenticated,
                     fmt::format("login: the node does not know the secret of namespace {}",
                                 key_.name_space())});
    }
    auto request = challenge.getLogin().proveRequest();
    request.setClientProof(to_data(key_.client_proof(nonce_, *server_nonce, lease_)));
    write(lease_, request.initLease());
    request.setClientName(name_.c_str());
    request.setPeer(is_peer_);
    return request.send().then([this](auto response) { return finish(response.getResult()); });
  }

  Result<Session::Client> finish(LoginResult::Reader result) {
    if (result.isError()) return tl::unexpected(read(result.getError()));
    if (!result.isSession()) return fail(ErrorCode::kUnsupported, "login: unknown answer");
    if (*connection_ == nullptr) return fail(ErrorCode::kUnavailable, "login: disconnected");
    (*connection_)->allow_bulk();
    return result.getSession();
  }

  static kj::Promise<Result<Session::Client>> failed(bigcast::Error error) {
    return Result<Session::Client>(tl::unexpected(std::move(error)));
  }

  Connection::Handle connection_;
  Bootstrap::Client bootstrap_;
  NamespaceKey key_;
  LeaseId lease_;
  std::string name_;
  bool is_peer_;
  Nonce nonce_ = random_nonce();
};

}  // namespace

kj::Promise<Result<Session::Client>> login(UvLoop& loop, Connection& connection,
                                           const NamespaceKey& key, LeaseId lease,
                                           std::string client_name, bool is_peer) {
  auto client = kj::heap<LoginClient>(connection, key, lease, std::move(client_name), is_peer);
  auto attempt = client->run().attach(kj::mv(client));
  auto timeout =
      loop.timer()
          .afterDelay(limits::kLoginTimeoutMs * kj::MILLISECONDS)
          .then([]() -> Result<Session::Client> {
            return fail(ErrorCode::kDeadlineExceeded,
                        fmt::format("login: no answer within {} ms", limits::kLoginTimeoutMs));
          });
  return attempt.exclusiveJoin(kj::mv(timeout))
      .catch_([](kj::Exception&& exception) -> Result<Session::Client> {
        return tl::unexpected(to_error(exception));
      });
}

capnp::Capability::Client make_bootstrap(Connection& connection, LoginOptions options) {
  return kj::heap<BootstrapServer>(connection.handle(), std::move(options));
}

}  // namespace bigcast::rpc
