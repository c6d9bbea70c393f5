#include "server/home_follower.h"

#include <kj/debug.h>

#include <algorithm>

#include "base/log.h"
#include "server/puller.h"
#include "server/relay.h"

namespace bigcast {
namespace {

std::vector<kj::byte> to_bitmap(const std::vector<bool>& bits) {
  std::vector<kj::byte> bytes((bits.size() + 7) / 8);
  for (size_t i = 0; i < bits.size(); i++) {
    if (bits[i]) bytes[i / 8] |= static_cast<kj::byte>(1u << (i % 8));
  }
  return bytes;
}

}  // namespace

void HomeFollower::taskFailed(kj::Exception&& exception) {
  const Error error = rpc::to_error(exception);
  log().warn("following blob {}: {}", blob_.id().to_string(), error.to_string());
}

void HomeFollower::step(std::vector<uint32_t> wanted) {
  if (!is_following()) {
    if (follower_ != nullptr) leave();
    const bool can_give = puller_.has_copies() && blob_.home() != nullptr;
    if (!wanted.empty() || can_give) join();
    return;
  }
  const bool wants = !wanted.empty();
  const bool has_news = !gained_.empty() || !failed_.empty() || beat_due_;
  if (has_news || wanted != told_wanted_) send_update(std::move(wanted));
  if (wants && poll_ == nullptr && puller_.room() > 0) poll();
}

bool HomeFollower::is_following() const {
  return follower_ != nullptr && blob_.is_home_current(generation_);
}

void HomeFollower::join() {
  if (joining_) return;
  joining_ = true;
  if (follower_ != nullptr) leave();
  tasks_.add(follow()
                 .catch_([](kj::Exception&& exception) {
                   const Error error = rpc::to_error(exception);
                   log().info("following a blob: {}", error.to_string());
                 })
                 .then([this] {
                   joining_ = false;
                   if (is_following()) {
                     no_home_since_.reset();
                     backoff_ms_ = limits::kReconnectBackoffMinMs;
                     puller_.wake();
                   } else {
                     on_no_home();
                   }
                 }));
}

kj::Promise<void> HomeFollower::follow() {
  return blob_.find_home().then([this]() -> kj::Promise<void> {
    auto* home = blob_.home();
    if (blob_.ended() || home == nullptr) return kj::READY_NOW;
    auto request = home->blob.followRequest();
    if (core_.advertised) rpc::write(*core_.advertised, request.initAt());
    told_wanted_.clear();
    gained_.clear();  // `held` has them
    failed_.clear();
    const auto held = to_bitmap(puller_.held());
    request.setHeld(capnp::Data::Reader(held.data(), held.size()));
    return request.send().then([this, generation = home->generation](auto response) {
      const auto result = response.getResult();
      if (!result.isFollower()) {
        blob_.set_home_error(rpc::read(result.getError()));
        return;
      }
      follower_ = result.getFollower();
      generation_ = generation;
    });
  });
}

void HomeFollower::on_no_home() {
  if (blob_.ended()) return;
  const Error error = blob_.home_error();
  if (is_gone(error.code)) {
    blob_.home_gone(error);
    return;
  }
  const TimePoint now = core_.clock.now();
  if (!no_home_since_) no_home_since_ = now;
  const auto timeout = std::chrono::milliseconds(limits::kProgressTimeoutMs);
  if (!is_passing(error.code) || !blob_.is_attached() || now - *no_home_since_ >= timeout) {
    no_home_since_.reset();
    if (blob_.keeps()) return blob_.end(error);
    puller_.fail_all(error);
  }
  if (!puller_.is_awaited() && !blob_.keeps())
    return;  // nobody to hurry for; the blob's watch goes on looking
  puller_.wake_in(backoff_ms_);
  backoff_ms_ = std::min(2 * backoff_ms_, limits::kReconnectBackoffMaxMs);
}

void HomeFollower::leave() {
  follower_ = nullptr;
  // It may be what runs now; and as long as the call lives, so does our part at the home.
  KJ_IF_MAYBE (running, poll_) core_.destroy_later(kj::mv(*running));
  poll_ = nullptr;
}

void HomeFollower::send_update(std::vector<uint32_t> wanted) {
  auto request = KJ_ASSERT_NONNULL(follower_).updateRequest();
  auto out = request.initWanted(static_cast<kj::uint>(wanted.size()));
  for (kj::uint i = 0; i < out.size(); i++) out.set(i, wanted[i]);
  auto gained = request.initGained(static_cast<kj::uint>(gained_.size()));
  for (kj::uint i = 0; i < gained.size(); i++) gained.set(i, gained_[i]);
  auto failed = request.initFailed(static_cast<kj::uint>(failed_.size()));
  for (kj::uint i = 0; i < failed.size(); i++) {
    failed[i].setIndex(failed_[i].first);
    failed[i].setWhy(failed_[i].second);
  }
  told_wanted_ = std::move(wanted);
  gained_.clear();
  failed_.clear();
  beat_due_ = false;
  // If it fails so does the poll, or the next update.
  tasks_.add(request.send().ignoreResult().catch_(
      [this, generation = generation_](kj::Exception&&) { blob_.home_lost(generation); }));
}

void HomeFollower::poll() {
  auto request = KJ_ASSERT_NONNULL(follower_).nextRequest();
  request.setRoom(puller_.room());
  poll_ =
      request.send()
          .then(
              [this](capnp::Response<rpc::Follower::NextResults> response) {
                on_next(response.getResult());
              },
              [this, generation = generation_](kj::Exception&&) { blob_.home_lost(generation); })
          .then([this] {
            KJ_IF_MAYBE (running, poll_) core_.destroy_later(kj::mv(*running));
            poll_ = nullptr;
            puller_.wake();
          })
          .eagerlyEvaluate([this](kj::Exception&& exception) { taskFailed(kj::mv(exception)); });
}

void HomeFollower::on_next(rpc::NextResult::Reader result) {
  if (!result.isOk()) {
    const Error error = rpc::read(result.getError());
    if (is_gone(error.code)) {
      blob_.home_gone(error);
      return leave();
    }
    log().warn("following blob {}: {}", blob_.id().to_string(), error.to_string());
    return leave();
  }
  const auto ok = result.getOk();
  if (ok.hasSealed()) tasks_.add(blob_.learn(ok.getSealed()).then([this] { puller_.wake(); }));
  for (const auto assignment : ok.getAssignments()) puller_.start(assignment);
  if (puller_.is_fetching() && !beating_) {
    beating_ = true;
    tasks_.add(beat());
  }
}

// The home gives what a silent relay was given to others.
kj::Promise<void> HomeFollower::beat() {
  return core_.loop.timer()
      .afterDelay(limits::kFollowerBeatMs * kj::MILLISECONDS)
      .then([this]() -> kj::Promise<void> {
        if (!puller_.is_fetching()) {
          beating_ = false;
          return kj::READY_NOW;
        }
        beat_due_ = true;
        puller_.wake();
        return beat();
      });
}

}  // namespace bigcast
