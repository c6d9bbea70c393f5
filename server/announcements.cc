#include "server/announcements.h"

#include <algorithm>

#include "base/log.h"
#include "server/relay.h"

namespace bigcast {

// ---- At the home.

void Announcements::announce(const BlobStat& stat) {
  if (stat.lease.is_zero() || orders_.contains(stat.id)) return;
  if (announced_.size() >= limits::kAnnouncedMax) withdraw(announced_.begin()->second.id);
  announced_[++last_] = {stat.id, stat.name_space, stat.lease};
  orders_[stat.id] = last_;
  std::erase_if(waiters_, [](Waiter& waiter) { return !waiter.fulfiller->isWaiting(); });
  for (Waiter& waiter : waiters_) {
    if (waiter.lease == stat.lease && waiter.name_space == stat.name_space) {
      waiter.fulfiller->fulfill();
    }
  }
}

void Announcements::withdraw(BlobId id) {
  const auto found = orders_.find(id);
  if (found == orders_.end()) return;
  announced_.erase(found->second);
  orders_.erase(found);
}

kj::Promise<Announcements::News> Announcements::next(const std::string& name_space, LeaseId lease,
                                                     uint64_t seen) {
  News news;
  news.seen = last_;
  for (auto it = announced_.upper_bound(seen); it != announced_.end(); ++it) {
    const Announced& blob = it->second;
    if (blob.lease == lease && blob.name_space == name_space) news.blobs.push_back(blob.id);
  }
  if (!news.blobs.empty()) return news;
  std::erase_if(waiters_, [](Waiter& waiter) { return !waiter.fulfiller->isWaiting(); });
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiters_.push_back({name_space, lease, kj::mv(paf.fulfiller)});
  return paf.promise.then(
      [this, name_space, lease, seen = last_] { return next(name_space, lease, seen); });
}

// ---- At a relay.

HomeListener::HomeListener(Relays& relays, RelayGroup& group, rpc::Address home)
    : relays_(relays),
      group_(group),
      home_(std::move(home)),
      listening_(kj::evalLater([this] { return listen(); }).eagerlyEvaluate([](auto&& exception) {
        log().warn("listening to a home: {}", rpc::to_error(exception).to_string());
      })) {}

kj::Promise<void> HomeListener::listen() {
  auto link = group_.link(home_, PeerLink::Kind::kControl);
  auto opened = link->open();
  return opened
      .then([this, link = kj::mv(link)](Result<PeerLink::Open> open) mutable {
        return open ? ask(kj::mv(link), kj::mv(*open)) : pause();
      })
      .then([this] { return listen(); });
}

kj::Promise<void> HomeListener::ask(kj::Own<PeerLink> link, PeerLink::Open open) {
  if (open.generation != generation_) {
    generation_ = open.generation;
    seen_ = 0;  // it may be another process
  }
  auto request = open.session.announcementsRequest();
  request.setSeen(seen_);
  auto answer = request.send();
  return answer
      .then(
          [this](capnp::Response<rpc::Session::AnnouncementsResults> response) {
            backoff_ms_ = limits::kReconnectBackoffMinMs;
            seen_ = response.getSeen();
            for (const auto announced : response.getBlobs()) fetch(announced);
            return kj::Promise<void>(kj::READY_NOW);
          },
          [this, link = kj::addRef(*link), generation = open.generation](kj::Exception&&) mutable {
            link->lost(generation);
            return pause();
          })
      .attach(kj::mv(link));
}

kj::Promise<void> HomeListener::pause() {
  const uint32_t delay_ms = backoff_ms_;
  backoff_ms_ = std::min(2 * backoff_ms_, limits::kReconnectBackoffMaxMs);
  return relays_.core().loop.timer().afterDelay(delay_ms * kj::MILLISECONDS);
}

void HomeListener::fetch(rpc::BlobRef::Reader announced) {
  const auto ref = rpc::read(announced);
  if (!ref) {
    log().warn("an announced blob: {}", ref.error().to_string());
    return;
  }
  for (uint32_t i = 0; i < ref->stripes; i++) fetch(ref->of_stripe(i));
}

void HomeListener::fetch(const rpc::BlobRefData& ref) {
  relays_.core().background(relays_.open(ref, group_.name_space, group_.lease)
                                .then([id = ref.id](Result<kj::Own<RelayBlob>> blob) {
                                  if (blob) return (*blob)->prefetch();
                                  log().info("blob {} is not fetched before it is read: {}",
                                             id.to_string(), blob.error().to_string());
                                }));
}

}  // namespace bigcast
