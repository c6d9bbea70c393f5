#include "tests/support/lying_node.h"

#include <capnp/any.h>
#include <kj/debug.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "codec/codec.h"
#include "rpc/address.h"
#include "rpc/convert.h"
#include "rpc/login.h"

namespace bigcast::test {
namespace {

using Context = capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer>;
constexpr uint16_t kOpen = 3;   // of Session
constexpr uint16_t kRead = 0;   // of Blob
constexpr uint16_t kHello = 0;  // of Bootstrap

struct Lies {
  std::atomic<bool>& wanted;
  std::atomic<uint64_t>& told;
};

template <typename T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  return std::move(*result);
}

// Passes on all calls but one.
class PassesOn : public capnp::Capability::Server {
 public:
  PassesOn(capnp::Capability::Client target, uint64_t interface, uint16_t method)
      : target_(kj::mv(target)), interface_(interface), method_(method) {}

  DispatchCallResult dispatchCall(uint64_t interface, uint16_t method, Context context) override {
    context.allowCancellation();
    if (interface == interface_ && method == method_) return {answer(context), false};
    auto request = target_.typelessRequest(interface, method, nullptr);
    request.set(context.getParams());
    return {context.tailCall(kj::mv(request)), false};
  }

 protected:
  virtual kj::Promise<void> answer(Context context) = 0;
  capnp::Capability::Client target_;

 private:
  const uint64_t interface_;
  const uint16_t method_;
};

class LyingBlob final : public PassesOn {
 public:
  LyingBlob(rpc::Blob::Client target, Lies lies)
      : PassesOn(kj::mv(target), capnp::typeId<rpc::Blob>(), kRead), lies_(lies) {}

 private:
  kj::Promise<void> answer(Context context) override {
    auto request = target_.castAs<rpc::Blob>().readRequest();
    request.setIndex(context.getParams().getAs<rpc::Blob::ReadParams>().getIndex());
    request.setMode(rpc::ReadMode::BYTES);
    return request.send().then([this, context](auto response) mutable {
      context.getResults().template setAs<rpc::Blob::ReadResults>(response);
      auto result = context.getResults().template getAs<rpc::Blob::ReadResults>().getResult();
      if (lies_.wanted && result.isChunk()) alter(result.getChunk());
    });
  }

  void alter(rpc::ReadResult::Chunk::Builder chunk) {
    auto meta = chunk.getMeta();
    auto bytes = chunk.getData().slice(0, meta.getStoredSize());
    bytes[bytes.size() / 2] ^= 1;
    const Digest128 digest =
        digest_of({reinterpret_cast<const std::byte*>(bytes.begin()), bytes.size()});
    meta.setDigestHi(digest.hi);
    meta.setDigestLo(digest.lo);
    ++lies_.told;
  }

  const Lies lies_;
};

class LyingSession final : public PassesOn {
 public:
  LyingSession(rpc::Session::Client target, Lies lies)
      : PassesOn(kj::mv(target), capnp::typeId<rpc::Session>(), kOpen), lies_(lies) {}

 private:
  kj::Promise<void> answer(Context context) override {
    auto request = target_.castAs<rpc::Session>().openRequest();
    const auto params = context.getParams().getAs<rpc::Session::OpenParams>();
    request.setTarget(params.getTarget());
    request.setOrder(params.getOrder());
    return request.send().then([this, context](auto response) mutable {
      context.getResults().template setAs<rpc::Session::OpenResults>(response);
      auto result = context.getResults().template getAs<rpc::Session::OpenResults>().getResult();
      if (!result.isOpened()) return;
      result.getOpened().setBlob(
          capnp::Capability::Client(kj::heap<LyingBlob>(result.getOpened().getBlob(), lies_))
              .castAs<rpc::Blob>());
    });
  }

  const Lies lies_;
};

// Has the real login hear the version before the one that the client speaks: all that differs
// between a node of the next version and one of this.
class NextVersion final : public PassesOn {
 public:
  explicit NextVersion(rpc::Bootstrap::Client target)
      : PassesOn(kj::mv(target), capnp::typeId<rpc::Bootstrap>(), kHello) {}

 private:
  kj::Promise<void> answer(Context context) override {
    auto request = target_.castAs<rpc::Bootstrap>().helloRequest();
    const auto params = context.getParams().getAs<rpc::Bootstrap::HelloParams>();
    request.setProtocolVersion(params.getProtocolVersion() - 1);
    request.setNameSpace(params.getNameSpace());
    request.setClientNonce(params.getClientNonce());
    return request.send().then([context](auto response) mutable {
      context.getResults().template setAs<rpc::Bootstrap::HelloResults>(response);
    });
  }
};

}  // namespace

struct LyingNode::State {
  State(rpc::UvLoop& loop_in, const rpc::Address& listen, rpc::Address target_in,
        const Secret& secret_in, Lies lies_in, Version version_in)
      : loop(loop_in),
        target(std::move(target_in)),
        secret(secret_in.clone()),
        lies(lies_in),
        version(version_in),
        listener(value_of(rpc::Listener::listen(loop, listen))),
        accepting(listener->accept_loop([this](int fd, bool is_unix) { accept(fd, is_unix); })
                      .eagerlyEvaluate(nullptr)) {}

  void accept(int fd, bool is_unix) {
    connections.push_back(
        rpc::Connection::serve(loop, fd, is_unix, [this](rpc::Connection& connection) {
          rpc::LoginOptions options;
          options.key_of = [this](std::string_view name_space) -> Result<rpc::NamespaceKey> {
            return rpc::NamespaceKey::derive(secret, name_space);
          };
          options.make_session = [this](const rpc::LoginRequest& request) {
            return Result<rpc::Session::Client>(rpc::Session::Client(session(request)));
          };
          auto bootstrap = rpc::make_bootstrap(connection, std::move(options));
          if (version == Version::kOurs) return bootstrap;
          return capnp::Capability::Client(
              kj::heap<NextVersion>(bootstrap.castAs<rpc::Bootstrap>()));
        }));
  }

  kj::Promise<rpc::Session::Client> session(const rpc::LoginRequest& request) {
    return rpc::Connection::connect(loop, target)
        .then([this, key = rpc::NamespaceKey::derive(secret, request.name_space),
               lease = request.lease,
               is_peer = request.is_peer](Result<kj::Own<rpc::Connection>> connection) {
          auto& upstream = *connections.emplace_back(value_of(std::move(connection)));
          return rpc::login(loop, upstream, key, lease, "liar", is_peer);
        })
        .then([this](Result<rpc::Session::Client> session) {
          return capnp::Capability::Client(
                     kj::heap<LyingSession>(value_of(std::move(session)), lies))
              .castAs<rpc::Session>();
        });
  }

  rpc::UvLoop& loop;
  const rpc::Address target;
  const Secret secret;
  const Lies lies;
  const Version version;
  std::vector<kj::Own<rpc::Connection>> connections;
  kj::Own<rpc::Listener> listener;
  kj::Promise<void> accepting;
};

LyingNode::LyingNode(const std::string& listen, const std::string& target, const Secret& secret,
                     Version version) {
  const auto from = value_of(rpc::Address::parse(listen));
  const auto to = value_of(rpc::Address::parse(target));
  std::string problem;
  io_.run([&]() {
    try {
      state_ = std::make_unique<State>(io_.loop(), from, to, secret, Lies{lies_, told_}, version);
      address_ = state_->listener->address().to_string();
    } catch (const std::runtime_error& error) {
      problem = error.what();
    }
  });
  if (!problem.empty()) throw std::runtime_error(problem);
}

LyingNode::~LyingNode() {
  io_.run([this]() { state_.reset(); });
}

}  // namespace bigcast::test
