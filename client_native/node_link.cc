#include "client_native/node_link.h"

#include <kj/debug.h>

#include <algorithm>

#include "base/limits.h"

namespace bigcast {

namespace {

struct Watch {
  uint64_t bytes_at_start;
  uint64_t bytes_at_mark;
  kj::TimePoint marked_at;
};

kj::Promise<Error> watch(rpc::UvLoop& loop, kj::Own<NodeSession> session, Watch state,
                         kj::Duration timeout) {
  const kj::Duration tick = std::min<kj::Duration>(timeout / 4, 1 * kj::SECONDS);
  return loop.timer().afterDelay(tick).then([&loop, session = kj::mv(session), state,
                                             timeout]() mutable -> kj::Promise<Error> {
    const uint64_t bytes = session->bytes_moved();
    const kj::TimePoint now = loop.timer().now();
    if (bytes - state.bytes_at_mark >= limits::kProgressBytesMin &&
        bytes - state.bytes_at_start <= limits::kOvertakenBytesMax) {
      state.bytes_at_mark = bytes;
      state.marked_at = now;
    } else if (now - state.marked_at >= timeout) {
      return Error{ErrorCode::kDeadlineExceeded, session->address + ": no progress for " +
                                                     std::to_string(timeout / kj::MILLISECONDS) +
                                                     " ms"};
    }
    return watch(loop, kj::mv(session), state, timeout);
  });
}

}  // namespace

kj::Promise<Error> stalled(rpc::UvLoop& loop, kj::Own<NodeSession> session, uint32_t timeout_ms) {
  const uint64_t bytes = session->bytes_moved();
  const Watch start{bytes, bytes, loop.timer().now()};
  return watch(loop, kj::mv(session), start, timeout_ms * kj::MILLISECONDS);
}

NodeLink::NodeLink(rpc::UvLoop& loop, rpc::Address address, const rpc::NamespaceKey& key,
                   LeaseId lease, std::string client_name, uint32_t timeout_ms)
    : loop_(loop),
      address_(std::move(address)),
      address_text_(address_.to_string()),
      key_(key),
      lease_(lease),
      client_name_(std::move(client_name)),
      timeout_ms_(timeout_ms) {}

kj::Promise<Result<kj::Own<NodeSession>>> NodeLink::session() {
  KJ_IF_MAYBE (current, current_) {
    return Result<kj::Own<NodeSession>>(kj::addRef(**current));
  }
  if (!attempt_running_) {
    attempt_running_ = true;
    connecting_ = connect().fork();
  }
  return KJ_ASSERT_NONNULL(connecting_)
      .addBranch()
      .then([this]() -> Result<kj::Own<NodeSession>> {
        KJ_IF_MAYBE (current, current_) {
          return kj::addRef(**current);
        }
        return tl::unexpected<Error>(last_error_);
      })
      .attach(kj::addRef(*this));
}

kj::Promise<void> NodeLink::connect() {
  last_error_ = Error{ErrorCode::kUnavailable, address_text_ + ": the connection was lost"};
  auto attempt =
      rpc::Connection::connect(loop_, address_)
          .then([this](Result<kj::Own<rpc::Connection>> connection) -> kj::Promise<Result<void>> {
            if (!connection) return Result<void>(tl::unexpected(connection.error()));
            auto& peer = **connection;
            return rpc::login(loop_, peer, key_, lease_, client_name_)
                .then([this, connection = kj::mv(*connection)](
                          Result<rpc::Session::Client> session) mutable -> Result<void> {
                  if (!session) return tl::unexpected(session.error());
                  adopt(kj::mv(connection), kj::mv(*session));
                  return {};
                });
          });
  return guarded<void>(address_text_, kj::mv(attempt)).then([this](Result<void> result) {
    attempt_running_ = false;
    if (result) return;
    last_error_ = result.error();
    if (last_error_.message.find(address_text_) == std::string::npos) {
      last_error_.message = address_text_ + ": " + last_error_.message;
    }
  });
}

void NodeLink::adopt(kj::Own<rpc::Connection> connection, rpc::Session::Client session) {
  auto adopted = kj::refcounted<NodeSession>(kj::mv(connection), kj::mv(session), address_text_);
  auto& peer = *adopted;
  current_ = kj::mv(adopted);
  disconnected_ = peer.connection->on_disconnect()
                      .catch_([](kj::Exception&&) {})
                      .then([this, &peer]() { forget(peer); })
                      .eagerlyEvaluate(nullptr);
}

void NodeLink::forget(NodeSession& dead) {
  KJ_IF_MAYBE (current, current_) {
    if (current->get() == &dead) current_ = nullptr;
  }
}

kj::Promise<void> NodeLink::keep_alive(bool reconnect) {
  if (renewing_) return kj::READY_NOW;
  renewing_ = true;
  return renew(reconnect)
      .attach(kj::defer([this]() { renewing_ = false; }))
      .attach(kj::addRef(*this));
}

kj::Promise<void> NodeLink::renew(bool reconnect) {
  KJ_IF_MAYBE (current, current_) {
    auto& peer = **current;
    auto renewed = peer.session.renewRequest().send().then(
        [](capnp::Response<rpc::Session::RenewResults>&&) { return Result<void>(); });
    return bounded<void>(loop_, peer, timeout_ms_, kj::mv(renewed))
        .then([this, peer = kj::addRef(peer)](const Result<void>& result) mutable {
          if (!result) forget(*peer);
        });
  }
  if (!reconnect) return kj::READY_NOW;
  return session().ignoreResult();
}

}  // namespace bigcast
