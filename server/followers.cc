#include "server/followers.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/log.h"

namespace bigcast {
namespace {

Swarm::Failure to_failure(rpc::FetchFailure why) {
  switch (why) {
    case rpc::FetchFailure::ABSENT:
      return Swarm::Failure::kAbsent;
    case rpc::FetchFailure::DECLINED:
      return Swarm::Failure::kDeclined;
    case rpc::FetchFailure::FAILED:
      break;
  }
  return Swarm::Failure::kFailed;
}

}  // namespace

// What a relay calls.
class FollowerService final : public rpc::Follower::Server {
 public:
  FollowerService(kj::Own<SessionState> session, kj::Own<LiveBlob> live, Swarm::Member member)
      : session_(kj::mv(session)), live_(kj::mv(live)), member_(member) {}
  ~FollowerService() noexcept(false) { followers().leave(member_); }

  kj::Promise<void> update(UpdateContext context) override;
  kj::Promise<void> next(NextContext context) override;

 private:
  Followers& followers() { return *live_->followers; }
  Followers::Follower& follower() { return followers().followers_.at(member_); }
  void reply(NextContext& context, const Followers::Tasks& tasks);

  kj::Own<SessionState> session_;
  kj::Own<LiveBlob> live_;
  const Swarm::Member member_;
};

kj::Promise<void> FollowerService::update(UpdateContext context) {
  session_->heard();
  const auto params = context.getParams();
  Swarm& swarm = followers().swarm_;
  const auto is_index = [](uint32_t index) { return index < limits::kChunksPerBlobMax; };
  for (const uint32_t index : params.getGained()) {
    if (is_index(index)) swarm.gained(member_, index);
  }
  for (const auto failed : params.getFailed()) {
    swarm.failed(member_, failed.getIndex(), to_failure(failed.getWhy()));
  }
  std::vector<uint32_t> wanted;
  for (const uint32_t index : params.getWanted()) {
    if (is_index(index) && wanted.size() < limits::kWantedMax) wanted.push_back(index);
  }
  swarm.want(member_, std::move(wanted));
  followers().heard(member_);
  followers().hand_out_soon();
  return kj::READY_NOW;
}

kj::Promise<void> FollowerService::next(NextContext context) {
  context.allowCancellation();
  session_->heard();
  const uint32_t room = context.getParams().getRoom();
  return followers()
      .next(member_, room)
      .then([this, context](const Followers::Tasks& tasks) mutable { reply(context, tasks); });
}

void FollowerService::reply(NextContext& context, const Followers::Tasks& tasks) {
  auto result = context.getResults().initResult();
  if (live_->ended()) {
    reply_error(result, *live_->ended());
    return;
  }
  std::optional<BlobStat> sealed;  // the figures, or why there are none
  if (!live_->has_writer) {
    const auto stat = session_->core->store->stat(live_->id);
    if (!stat) {
      reply_error(result, stat.error());
      return;
    }
    if (stat->sealed && !follower().knows_end) sealed = *stat;
  }
  auto ok = result.initOk();
  auto out = ok.initAssignments(static_cast<kj::uint>(tasks.size()));
  for (kj::uint i = 0; i < out.size(); i++) {
    out[i].setIndex(tasks[i].index);
    if (tasks[i].peer) {
      auto peer = out[i].initPeer();
      rpc::write(*tasks[i].peer, peer.initAt());
      rpc::write(tasks[i].meta, peer.initMeta());
    } else {
      out[i].setHome();
    }
  }
  if (!sealed) return;
  follower().knows_end = true;
  write_info(*session_->core, *sealed, ok.initSealed());
}

// ---- Who follows.

Followers::Followers(NodeCore& core, LiveBlob& blob, const BlobStat& stat)
    : core_(core),
      blob_(blob),
      swarm_(std::random_device()(), stat.chunk_size),
      watcher_(kj::READY_NOW),
      tasks_(*this) {
  for (const uint32_t index : core_.store->stored_chunks(stat.id)) swarm_.home_has(index);
}

Result<rpc::Follower::Client> Followers::join(kj::Own<SessionState> session,
                                              std::optional<rpc::Address> address,
                                              capnp::Data::Reader held) {
  if (followers_.size() >= limits::kFollowersPerBlobMax) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("follow: at most {} relays a blob", limits::kFollowersPerBlobMax));
  }
  const Swarm::Member member = swarm_.join(address.has_value());
  Follower& follower = followers_[member];
  follower.address = std::move(address);
  follower.heard_at = core_.clock.now();
  const size_t bits = std::min<size_t>(held.size() * 8, limits::kChunksPerBlobMax);
  for (uint32_t i = 0; i < bits; i++) {
    if ((held[i / 8] >> (i % 8) & 1) != 0) swarm_.gained(member, i);
  }
  if (followers_.size() == 1) watcher_ = watch_silence().eagerlyEvaluate(nullptr);
  hand_out_soon();
  return rpc::Follower::Client(
      kj::heap<FollowerService>(kj::mv(session), kj::addRef(blob_), member));
}

void Followers::leave(Swarm::Member member) {
  followers_.erase(member);
  swarm_.leave(member);
  hand_out_soon();
}

void Followers::heard(Swarm::Member member) {
  followers_.at(member).heard_at = core_.clock.now();
  swarm_.set_silent(member, false);
}

// A relay that was given chunks and stops speaking must not keep them from others.
kj::Promise<void> Followers::watch_silence() {
  return core_.loop.timer()
      .afterDelay(limits::kFollowerBeatMs * kj::MILLISECONDS)
      .then([this]() -> kj::Promise<void> {
        if (followers_.empty()) return kj::READY_NOW;
        swarm_.beat();
        const TimePoint since =
            core_.clock.now() - std::chrono::milliseconds(limits::kFollowerSilentMs);
        for (const auto& [member, follower] : followers_) {
          const bool silent = follower.heard_at < since && swarm_.is_receiving(member);
          if (silent) swarm_.set_silent(member, true);
        }
        hand_out_soon();
        return watch_silence();
      });
}

void Followers::for_some(size_t limit, kj::FunctionParam<void(const Standing&)> visit) const {
  for (const auto& [member, follower] : followers_) {
    if (limit-- == 0) return;
    visit({follower.address, swarm_.held(member), swarm_.coming(member)});
  }
}

// ---- Handing out.

void Followers::chunk_came(uint32_t index) {
  swarm_.home_has(index);
  hand_out_soon();
}

void Followers::changed() { hand_out_soon(); }

bool Followers::has_news(const Follower& follower) const {
  return blob_.ended() || (!blob_.has_writer && !follower.knows_end);
}

kj::Promise<Followers::Tasks> Followers::next(Swarm::Member member, uint32_t room) {
  Follower& follower = followers_.at(member);
  auto paf = kj::newPromiseAndFulfiller<Tasks>();
  // An earlier call that still waits is broken off.
  follower.waiting = Waiting{std::min(room, limits::kAssignmentsMax), {}, kj::mv(paf.fulfiller)};
  hand_out_soon();
  return kj::mv(paf.promise);
}

Followers::Task Followers::task_of(const Swarm::Assignment& assignment) {
  if (!assignment.holder) return {assignment.index, {}, {}};
  const auto location = core_.store->peek(blob_.id, assignment.index);
  // Only whoever has it here can say what it must be. The home itself answers with an error.
  if (!location || !location->is_here()) return {assignment.index, {}, {}};
  return {assignment.index, followers_.at(*assignment.holder).address, location->meta};
}

bool Followers::give_one(Swarm::Member member, Follower& follower) {
  KJ_IF_MAYBE (waiting, follower.waiting) {
    if (!waiting->fulfiller->isWaiting()) {  // the call was given up
      follower.waiting = nullptr;
      return false;
    }
    if (waiting->tasks.size() >= waiting->room) return false;
    if (const auto assignment = swarm_.assign(member)) {
      waiting->tasks.push_back(task_of(*assignment));
      turn_ = member;
      return true;
    }
  }
  return false;
}

void Followers::hand_out_soon() {
  if (handing_out_ || core_.is_stopping()) return;
  handing_out_ = true;
  tasks_.add(kj::evalLater([this] {
    handing_out_ = false;
    hand_out();
  }));
}

void Followers::taskFailed(kj::Exception&& exception) {
  log().error("handing out chunks: {}", rpc::to_error(exception).to_string());
}

// One chunk to each in turn, until there is nothing to give.
void Followers::hand_out() {
  for (bool any = true; any;) {
    any = false;
    const auto first = followers_.upper_bound(turn_);
    for (auto it = first; it != followers_.end(); ++it) any |= give_one(it->first, it->second);
    for (auto it = followers_.begin(); it != first; ++it) any |= give_one(it->first, it->second);
  }
  for (auto& [member, follower] : followers_) {
    KJ_IF_MAYBE (waiting, follower.waiting) {
      if (waiting->tasks.empty() && !has_news(follower)) continue;
      auto answered = kj::mv(*waiting);
      follower.waiting = nullptr;
      answered.fulfiller->fulfill(kj::mv(answered.tasks));
    }
  }
}

}  // namespace bigcast
