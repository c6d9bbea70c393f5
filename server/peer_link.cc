#include "server/peer_link.h"

#include <fmt/format.h>
#include <kj/debug.h>

#include <algorithm>

#include "base/log.h"
#include "rpc/auth.h"
#include "rpc/login.h"
#include "rpc/progress.h"

namespace bigcast {

PeerLink::PeerLink(kj::Own<NodeCore> core, Kind kind, rpc::Address address, std::string name_space,
                   LeaseId lease)
    : core_(kj::mv(core)),
      kind_(kind),
      address_(std::move(address)),
      name_space_(std::move(name_space)),
      lease_(kind == Kind::kControl ? lease : LeaseId{}),
      used_at_(core_->clock.now()) {}

PeerLink::~PeerLink() noexcept(false) {
  keeper_ = nullptr;
  session_ = nullptr;
}

kj::Promise<Result<PeerLink::Open>> PeerLink::open() {
  used_at_ = core_->clock.now();
  KJ_IF_MAYBE (session, session_) {
    return Result<Open>(Open{*session, generation_, connection_->handle()});
  }
  if (!connecting_) {
    connecting_ = true;
    attempt_ = connect().fork();
  }
  return KJ_ASSERT_NONNULL(attempt_).addBranch().then(
      [this, self = kj::addRef(*this)]() -> Result<Open> {
        KJ_IF_MAYBE (session, session_) return Open{*session, generation_, connection_->handle()};
        return fail(error_.code, error_.message);
      });
}

kj::Promise<void> PeerLink::connect() {
  return rpc::Connection::connect(core_->loop, address_, &core_->io_threads)
      .then([this](Result<kj::Own<rpc::Connection>> connected) -> kj::Promise<void> {
        if (!connected) {
          error_ = connected.error();
          return kj::READY_NOW;
        }
        return log_in(kj::mv(*connected));
      })
      .catch_([this](kj::Exception&& exception) { error_ = rpc::to_error(exception); })
      .then([this] {
        connecting_ = false;
        attempt_failed_ = session_ == nullptr;
      });
}

kj::Promise<void> PeerLink::log_in(kj::Own<rpc::Connection> connection) {
  const auto key = rpc::NamespaceKey::derive(core_->config.secret, name_space_);
  auto promise = rpc::login(core_->loop, *connection, key, lease_, "relay " + core_->config.name,
                            kind_ == Kind::kBulk);
  return promise.then(
      [this, connection = kj::mv(connection)](Result<rpc::Session::Client> session) mutable {
        if (!session) {
          error_ = {session.error().code,
                    fmt::format("node {}: {}", address_.to_string(), session.error().message)};
          core_->destroy_later(kj::mv(connection));
          return;
        }
        generation_ = ++core_->link_generations;
        connection_ = kj::mv(connection);
        session_ = kj::mv(*session);
        keeper_ = keep_alive(generation_)
                      .exclusiveJoin(connection_->on_disconnect())
                      .catch_([](kj::Exception&&) {})
                      .then([this, generation = generation_] { lost(generation); })
                      .eagerlyEvaluate(nullptr);
      });
}

// Ends (or throws) when the node neither answers nor sends anything else: behind chunks on a slow
// link an answer may take long.
kj::Promise<void> PeerLink::keep_alive(uint64_t generation) {
  const auto interval = std::min<Duration>(std::chrono::milliseconds(limits::kSessionRenewMs),
                                           core_->config.session_timeout / 3);
  return core_->loop.timer()
      .afterDelay(to_kj(interval))
      .then([this] {
        auto renewed = KJ_ASSERT_NONNULL(session_).renewRequest().send().ignoreResult();
        auto silent = rpc::stalled(core_->loop, connection_->handle(), limits::kHomeStallTimeoutMs)
                          .then([]() -> kj::Promise<void> {
                            return KJ_EXCEPTION(DISCONNECTED, "no answer");
                          });
        return renewed.exclusiveJoin(kj::mv(silent));
      })
      .then([this, generation] { return keep_alive(generation); });
}

void PeerLink::lost(uint64_t generation) {
  if (!is_current(generation)) return;
  log().info("node {}: the connection is gone", address_.to_string());
  error_ = {ErrorCode::kUnavailable,
            fmt::format("node {}: the connection is gone", address_.to_string())};
  session_ = nullptr;
  // Both may be what is calling us.
  KJ_IF_MAYBE (keeper, keeper_) core_->destroy_later(keeper->attach(kj::addRef(*this)));
  keeper_ = nullptr;
  core_->destroy_later(kj::mv(connection_));
}

// ---- Shared ones.

kj::Own<PeerLink> PeerLinks::get(const std::string& name_space, const rpc::Address& address) {
  auto& link = links_[{name_space, address.to_string()}];
  if (link.get() == nullptr) {
    link = kj::refcounted<PeerLink>(kj::addRef(core_), PeerLink::Kind::kBulk, address, name_space,
                                    LeaseId{});
  }
  return kj::addRef(*link);
}

void PeerLinks::close_unused() {
  for (auto it = links_.begin(); it != links_.end();) {
    const bool unused = !it->second->isShared();
    if (unused) it->second->close();
    it = unused ? links_.erase(it) : std::next(it);
  }
}

void PeerLinks::clear() {
  for (auto& [key, link] : links_) link->close();
  links_.clear();
}

}  // namespace bigcast
