#include "client_native/node_link.h"

#include <kj/debug.h>

#include <algorithm>

#include "base/limits.h"

namespace bigcast {

namespace {

// The progress of one call.
class Watch {
 public:
  Watch(rpc::UvLoop& loop, kj::Own<NodeSession> session, kj::Duration timeout, WaitsFor waits_for)
      : loop_(loop),
        session_(kj::mv(session)),
        timeout_(timeout),
        waits_for_(waits_for),
        bytes_at_start_(session_->bytes_moved()) {
    mark();
  }

  kj::Promise<Error> run() {
    const kj::Duration tick = std::min<kj::Duration>(timeout_ / 4, 1 * kj::SECONDS);
    return loop_.timer().afterDelay(tick).then([this, tick]() -> kj::Promise<Error> {
      const uint64_t bytes = session_->bytes_moved();
      idle_ += tick;
      if (bytes - bytes_at_mark_ >= limits::kProgressBytesMin &&
          bytes - bytes_at_start_ <= limits::kOvertakenBytesMax) {
        mark();
      } else if (idle_ >= timeout_) {
        return Error{ErrorCode::kDeadlineExceeded, session_->address + ": no progress for " +
                                                       std::to_string(timeout_ / kj::MILLISECONDS) +
                                                       " ms"};
      } else if (waits_for_ == WaitsFor::kWriter && idle_ >= timeout_ / 2 && !asking_runs_) {
        asking_ = ask();
      }
      return run();
    });
  }

 private:
  void mark() {
    bytes_at_mark_ = session_->bytes_moved();
    idle_ = 0 * kj::SECONDS;
  }

  kj::Promise<void> ask() {
    asking_runs_ = true;
    return session_->session.renewRequest()
        .send()
        .then([this](auto&&) {
          asking_runs_ = false;
          mark();
        })
        .eagerlyEvaluate([](kj::Exception&&) {});  // the call itself fails, too
  }

  rpc::UvLoop& loop_;
  kj::Own<NodeSession> session_;
  const kj::Duration timeout_;
  const WaitsFor waits_for_;
  const uint64_t bytes_at_start_;
  uint64_t bytes_at_mark_ = 0;
  // Since the mark, by ticks: who was stopped meanwhile could not have seen any progress.
  kj::Duration idle_ = 0 * kj::SECONDS;
  bool asking_runs_ = false;
  kj::Promise<void> asking_ = nullptr;
};

}  // namespace

kj::Promise<Error> stalled(rpc::UvLoop& loop, kj::Own<NodeSession> session, uint32_t timeout_ms,
                           WaitsFor waits_for) {
  auto watch = kj::heap<Watch>(loop, kj::mv(session), timeout_ms * kj::MILLISECONDS, waits_for);
  auto running = watch->run();
  return running.attach(kj::mv(watch));
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

bool NodeLink::is_silent() const {
  const auto now = loop_.timer().now();
  const auto waits = now - asked_at_;
  if (attempt_running_ && waits >= limits::kNextServerMs * kj::MILLISECONDS) return true;
  if (renewing_ && waits >= limits::kSessionRenewMs * kj::MILLISECONDS) return true;
  KJ_IF_MAYBE (at, silent_at_) {
    return now - *at < limits::kSilentServerMs * kj::MILLISECONDS;
  }
  return false;
}

kj::Promise<void> NodeLink::connect() {
  asked_at_ = loop_.timer().now();
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
    asked_in_vain();
    last_error_ = result.error();
    if (last_error_.message.find(address_text_) == std::string::npos) {
      last_error_.message = address_text_ + ": " + last_error_.message;
    }
  });
}

// A node that says no at once can be asked again at no cost.
void NodeLink::asked_in_vain() {
  const auto now = loop_.timer().now();
  if (now - asked_at_ >= limits::kNextServerMs * kj::MILLISECONDS) silent_at_ = now;
}

void NodeLink::adopt(kj::Own<rpc::Connection> connection, rpc::Session::Client session) {
  auto adopted = kj::refcounted<NodeSession>(kj::mv(connection), kj::mv(session), address_text_);
  auto& peer = *adopted;
  current_ = kj::mv(adopted);
  silent_at_ = nullptr;
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
    asked_at_ = loop_.timer().now();
    auto& peer = **current;
    auto renewed = peer.session.renewRequest().send().then(
        [](capnp::Response<rpc::Session::RenewResults>&&) { return Result<void>(); });
    return bounded<void>(loop_, peer, timeout_ms_, kj::mv(renewed))
        .then([this, peer = kj::addRef(peer)](const Result<void>& result) mutable {
          if (result) return;
          asked_in_vain();
          forget(*peer);
        });
  }
  if (!reconnect) return kj::READY_NOW;
  return session().ignoreResult();
}

}  // namespace bigcast
