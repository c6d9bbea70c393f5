#include "server/stripe_keeper.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "server/puller.h"

namespace bigcast {

void StripeKeeper::taskFailed(kj::Exception&& exception) {
  log().error("keeping a stripe: {}", rpc::to_error(exception).to_string());
}

void StripeKeeper::clear() {
  tasks_ = nullptr;
  links_.clear();
}

void StripeKeeper::keep(BlobId id, const rpc::BlobRefData& whole) {
  if (tasks_.get() == nullptr) return;
  auto tie = kj::heap<Tie>();
  tie->head = whole.id;
  tie->live = core_.live->get(id);
  tie->link = links_.get(whole.name_space, whole.homes.front());
  auto followed = follow(*tie).exclusiveJoin(ended(*tie));
  tasks_->add(followed.attach(kj::mv(tie)).then([this] { links_.close_unused(); }));
}

// The stripe went by itself: with its lease, or its writer gave up.
kj::Promise<void> StripeKeeper::ended(Tie& tie) {
  if (tie.live->ended()) return kj::READY_NOW;
  return tie.live->watch_event().then([this, &tie] { return ended(tie); });
}

kj::Promise<void> StripeKeeper::follow(Tie& tie) {
  if (tie.live->ended()) return kj::READY_NOW;
  return open(tie).catch_([this, &tie](kj::Exception&& exception) {
    log().info("stripe {}: {}", tie.live->id.to_string(), rpc::to_error(exception).to_string());
    tie.link->lost(tie.generation);
    return follow_later(tie);
  });
}

kj::Promise<void> StripeKeeper::follow_later(Tie& tie) {
  const uint32_t delay_ms = tie.backoff_ms;
  tie.backoff_ms = std::min(2 * tie.backoff_ms, limits::kReconnectBackoffMaxMs);
  return core_.loop.timer().afterDelay(delay_ms * kj::MILLISECONDS).then([this, &tie] {
    return follow(tie);
  });
}

kj::Promise<void> StripeKeeper::open(Tie& tie) {
  return tie.link->open().then([this, &tie](Result<PeerLink::Open> open) -> kj::Promise<void> {
    if (!open) return follow_later(tie);
    tie.generation = open->generation;
    auto request = open->session.openRequest();
    rpc::write(tie.head, request.initTarget().initHomeId());
    return request.send().then(
        [this, &tie](capnp::Response<rpc::Session::OpenResults> response) -> kj::Promise<void> {
          const auto result = response.getResult();
          if (result.isOpened()) {
            tie.backoff_ms = limits::kReconnectBackoffMinMs;
            return watch(tie, result.getOpened().getBlob());
          }
          const Error error = rpc::read(result.getError());
          if (!is_gone(error.code)) return follow_later(tie);
          remove(tie, error);
          return kj::READY_NOW;
        });
  });
}

kj::Promise<void> StripeKeeper::watch(Tie& tie, rpc::Blob::Client head) {
  return head.watchRequest().send().then([this, &tie,
                                          head](auto response) mutable -> kj::Promise<void> {
    if (response.getEvent() == rpc::BlobEvent::REMOVED) {
      remove(tie, {ErrorCode::kNotFound, fmt::format("blob {} was removed", tie.head.to_string())});
      return kj::READY_NOW;
    }
    tie.live->drop_copies();
    return watch(tie, kj::mv(head));
  });
}

void StripeKeeper::remove(Tie& tie, const Error& reason) {
  if (!tie.live->ended()) core_.remove_blob(tie.live->id, reason);
}

}  // namespace bigcast
