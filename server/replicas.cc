#include "server/replicas.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "server/copy_maker.h"

namespace bigcast {
namespace {

constexpr auto kBeat = limits::kReplicaBeatMs * kj::MILLISECONDS;

}  // namespace

Replicas::Replicas(NodeCore& core)
    : core_(core),
      links_(core),
      tasks_(kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this))) {}

void Replicas::taskFailed(kj::Exception&& exception) {
  log().error("keeping replicas: {}", rpc::to_error(exception).to_string());
}

void Replicas::clear() {
  tasks_ = nullptr;
  others_.clear();
  blobs_.clear();
  links_.clear();
}

// ---- Which blobs, and where they are.

void Replicas::keep(const BlobStat& stat, const std::vector<rpc::Address>& made) {
  auto plan = whole_ref(stat);
  if (tasks_.get() == nullptr || !plan || plan->copies < 2 || blobs_.contains(stat.id)) return;
  Blob& blob = blobs_[stat.id];
  blob.plan = plan->of_stripe(stat.stripe.index);
  const auto planned = std::exchange(blob.plan.homes, {});
  blob.homes = {*core_.advertised};
  const Standing standing = made.empty() ? Standing::kUnknown : Standing::kHas;
  for (const auto& home : made.empty() ? planned : made) add_home(blob, home, standing);
  judge(blob);
  repair_some();
}

std::optional<Replicas::Standing> Replicas::standing_of(const Blob& blob,
                                                        const rpc::Address& address) {
  const auto found = blob.standings.find(address.to_string());
  if (found == blob.standings.end()) return std::nullopt;
  return found->second;
}

void Replicas::add_home(Blob& blob, const rpc::Address& address, Standing standing) {
  if (core_.is_myself(address)) return;
  const std::string name = address.to_string();
  if (std::ranges::find(blob.homes, address) == blob.homes.end()) blob.homes.push_back(address);
  blob.standings[name] = standing;
  auto& other = others_[{blob.plan.name_space, name}];
  if (other.get() == nullptr) {
    other = kj::heap<Other>();
    other->name_space = blob.plan.name_space;
    other->address = address;
    other->link = link(other->name_space, address);
    other->task = watch(*other).eagerlyEvaluate(
        [this](kj::Exception&& exception) { taskFailed(kj::mv(exception)); });
  }
  if (other->blobs.insert(blob.plan.id).second) other->compare_now = true;
}

std::vector<rpc::Address> Replicas::homes_of(BlobId id) const {
  std::vector<rpc::Address> homes;
  const auto found = blobs_.find(id);
  if (found == blobs_.end()) return homes;
  for (const auto& home : found->second.homes) {
    if (standing_of(found->second, home) != Standing::kLost) homes.push_back(home);
  }
  return homes;
}

// Counts the homes. Those not yet heard of have the benefit of the doubt.
void Replicas::judge(Blob& blob) {
  size_t have = 1;
  for (const auto& [address, standing] : blob.standings) {
    if (standing == Standing::kHas || standing == Standing::kUnknown) have++;
  }
  const bool lacking = have < blob.plan.copies;
  if (lacking) {
    lacking_.insert(blob.plan.id);
  } else {
    lacking_.erase(blob.plan.id);
  }
  core_.metrics->blobs_under_replicated = lacking_.size();
  if (lacking) return;
  // Enough others took the places of those that were lost.
  std::erase_if(blob.homes, [&](const rpc::Address& home) {
    const auto standing = standing_of(blob, home);
    if (standing != Standing::kLost && standing != Standing::kAway) return false;
    blob.standings.erase(home.to_string());
    if (std::ranges::find(blob.plan.spares, home) == blob.plan.spares.end()) {
      blob.plan.spares.push_back(home);
    }
    const auto node = others_.find({blob.plan.name_space, home.to_string()});
    if (node != others_.end()) node->second->blobs.erase(blob.plan.id);
    return true;
  });
}

void Replicas::removed(BlobId id) {
  if (!blobs_.contains(id) && !making_.contains(id)) return;
  given_up(id);
  forget(id, true);
}

void Replicas::given_up(BlobId id) {
  if (!removed_.insert(id).second) return;
  removed_order_.push_back(id);
  if (removed_order_.size() <= limits::kRemovedKnownMax) return;
  removed_.erase(removed_order_.front());
  removed_order_.pop_front();
}

void Replicas::drop_copies(BlobId id) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end()) return;
  for (const auto& home : found->second.homes) {
    if (standing_of(found->second, home) != Standing::kHas) continue;
    auto way = link(found->second.plan.name_space, home);
    auto opened = way->open();
    tasks_->add(opened
                    .then([id](Result<PeerLink::Open> open) -> kj::Promise<void> {
                      if (!open) return kj::READY_NOW;
                      auto request = open->session.dropCopiesRequest();
                      rpc::write(id, request.initId());
                      return request.send().ignoreResult();
                    })
                    .catch_([](kj::Exception&&) {})  // its relays keep what they have
                    .attach(kj::mv(way)));
  }
}

void Replicas::lost(BlobId id) { forget(id, false); }

void Replicas::forget(BlobId id, bool tell) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end()) return;
  const Blob blob = std::move(found->second);
  blobs_.erase(found);
  lacking_.erase(id);
  core_.metrics->blobs_under_replicated = lacking_.size();
  for (const auto& [address, standing] : blob.standings) {
    const auto other = others_.find({blob.plan.name_space, address});
    if (other == others_.end()) continue;
    other->second->blobs.erase(id);
    // Who is out of reach asks when it is back.
    if (tell && !other->second->away_since) other->second->untold.push_back(id);
  }
}

// ---- Looking at the other homes.

kj::Promise<void> Replicas::watch(Other& other) {
  return look(other)
      .catch_([this, &other](kj::Exception&& exception) {
        log().info("home {}: {}", other.address.to_string(), rpc::to_error(exception).to_string());
        other.link->lost(other.generation);
        unreachable(other);
      })
      .then([this] { return core_.loop.timer().afterDelay(kBeat); })
      .then([this, &other]() -> kj::Promise<void> {
        repair_some();
        if (other.blobs.empty() && other.untold.empty()) {
          const auto node = others_.find({other.name_space, other.address.to_string()});
          other.link = nullptr;
          core_.destroy_later(kj::mv(node->second));  // this is its task
          others_.erase(node);
          links_.close_unused();
          return kj::READY_NOW;
        }
        return watch(other);
      });
}

kj::Promise<void> Replicas::look(Other& other) {
  const bool is_recent =
      core_.clock.now() - other.compared_at < std::chrono::milliseconds(limits::kCompareMs);
  const bool is_known = other.link->is_current(other.generation) && is_recent;
  if (is_known && !other.compare_now && other.untold.empty()) return kj::READY_NOW;
  const bool was_lost = other.generation != 0 && !other.link->is_current(other.generation);
  if (was_lost && !other.away_since) other.away_since = core_.clock.now();
  return other.link->open().then([this, &other](Result<PeerLink::Open> open) -> kj::Promise<void> {
    if (!open) {
      unreachable(other);
      return kj::READY_NOW;
    }
    other.generation = open->generation;
    other.compare_now = false;
    other.compared_at = core_.clock.now();
    return compare_with(other, kj::mv(*open), {other.blobs.begin(), other.blobs.end()});
  });
}

kj::Promise<void> Replicas::compare_with(Other& other, PeerLink::Open open,
                                         std::vector<BlobId> blobs) {
  std::vector<BlobId> rest;
  if (blobs.size() > limits::kComparedMax) {
    rest.assign(blobs.begin() + limits::kComparedMax, blobs.end());
    blobs.resize(limits::kComparedMax);
  }
  const size_t untold = std::min(other.untold.size(), limits::kComparedMax);
  auto request = open.session.compareBlobsRequest();
  rpc::write(*core_.advertised, request.initAt());
  auto here = request.initBlobs(static_cast<kj::uint>(blobs.size()));
  for (kj::uint i = 0; i < here.size(); i++) rpc::write(blobs[i], here[i]);
  auto gone = request.initRemoved(static_cast<kj::uint>(untold));
  for (kj::uint i = 0; i < gone.size(); i++) rpc::write(other.untold[i], gone[i]);
  return request.send().then([this, &other, untold, open = kj::mv(open), blobs = std::move(blobs),
                              rest = std::move(rest)](auto response) mutable -> kj::Promise<void> {
    const auto states = response.getStates();
    other.away_since.reset();
    other.untold.erase(other.untold.begin(),
                       other.untold.begin() + static_cast<std::ptrdiff_t>(untold));
    const bool is_me = rpc::read(response.getEpoch()) == core_.epoch;  // by another name
    for (size_t i = 0; i < blobs.size() && i < states.size(); i++) {
      learn(other, blobs[i], is_me ? rpc::BlobState::UNKNOWN : states[static_cast<kj::uint>(i)]);
    }
    repair_some();
    if (rest.empty() && other.untold.empty()) return kj::READY_NOW;
    return compare_with(other, kj::mv(open), std::move(rest));
  });
}

void Replicas::learn(Other& other, BlobId id, rpc::BlobState state) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end() || !found->second.standings.contains(other.address.to_string())) return;
  if (state == rpc::BlobState::REMOVED) {
    core_.remove_blob(
        id, {ErrorCode::kNotFound,
             fmt::format("blob {} was removed at {}", id.to_string(), other.address.to_string())});
    return;
  }
  found->second.standings[other.address.to_string()] =
      state == rpc::BlobState::HOME ? Standing::kHas : Standing::kLost;
  judge(found->second);
}

void Replicas::unreachable(Other& other) {
  const TimePoint now = core_.clock.now();
  if (!other.away_since) other.away_since = now;
  other.untold.clear();
  if (now - *other.away_since < std::chrono::milliseconds(limits::kReplicaAwayMs)) return;
  const std::string address = other.address.to_string();
  const auto blobs = other.blobs;  // judging may let go of some
  for (const BlobId id : blobs) {
    Blob& blob = blobs_.at(id);
    if (std::exchange(blob.standings[address], Standing::kAway) != Standing::kAway) judge(blob);
  }
  repair_some();
}

void Replicas::compare(SessionState& session, rpc::Session::CompareBlobsParams::Reader params,
                       rpc::Session::CompareBlobsResults::Builder out) {
  rpc::write(core_.epoch, out.initEpoch());
  const auto at = rpc::read(params.getAt());
  for (const auto gone : params.getRemoved()) {
    const BlobId id = rpc::read(gone);
    const auto stat = stat_in(core_, session.name_space, id);
    if (!stat || stat->role != BlobRole::kHome) continue;
    given_up(id);  // also if it is still being copied here
    core_.remove_blob(id, {ErrorCode::kNotFound, fmt::format("'{}' was removed", stat->name)});
    session.audit("remove", stat->name, id, stat->size);
  }
  const auto blobs = params.getBlobs();
  auto states = out.initStates(static_cast<kj::uint>(blobs.size()));
  for (kj::uint i = 0; i < blobs.size(); i++) {
    const BlobId id = rpc::read(blobs[i]);
    const auto stat = stat_in(core_, session.name_space, id);
    const bool is_home = stat && stat->role == BlobRole::kHome;
    const bool is_removed = !is_home && removed_.contains(id);
    states.set(i, is_home      ? rpc::BlobState::HOME
                  : is_removed ? rpc::BlobState::REMOVED
                               : rpc::BlobState::UNKNOWN);
    const auto found = blobs_.find(id);
    if (!is_home || found == blobs_.end() || !at || core_.is_myself(*at)) continue;
    add_home(found->second, *at, Standing::kHas);
    judge(found->second);
  }
  repair_some();
}

// ---- Making copies again.

void Replicas::repair_some() {
  if (lacking_.empty()) return;
  const TimePoint now = core_.clock.now();
  const std::string myself = core_.advertised->to_string();
  const auto is_anothers = [&](const auto& other) {
    return other.second == Standing::kHas && other.first < myself;
  };
  for (const BlobId id : lacking_) {
    if (copying_ >= limits::kCopiesAtOnceMax) return;
    Blob& blob = blobs_.at(id);
    if (blob.copying || now < blob.retry_at) continue;
    if (std::ranges::any_of(blob.standings, is_anothers)) continue;
    blob.copying = true;
    copying_++;
    tasks_->add(repair(id));
  }
}

// Homes that came back without it, then the spares, then homes that may come back.
std::vector<rpc::Address> Replicas::candidates(const Blob& blob) const {
  std::vector<rpc::Address> candidates;
  const auto add = [&](const rpc::Address& address) {
    const bool has_it = standing_of(blob, address) == Standing::kHas;
    const bool known = std::ranges::find(candidates, address) != candidates.end();
    if (!core_.is_myself(address) && !has_it && !known) candidates.push_back(address);
  };
  for (const auto& home : blob.homes) {
    if (standing_of(blob, home) == Standing::kLost) add(home);
  }
  for (const auto& spare : blob.plan.spares) add(spare);
  for (const auto& home : blob.homes) add(home);
  return candidates;
}

kj::Promise<void> Replicas::repair(BlobId id) {
  Blob& blob = blobs_.at(id);
  const auto stat = core_.store->stat(id);
  auto ref = blob.plan;
  ref.homes = {*core_.advertised};
  for (const auto& home : blob.homes) {
    if (standing_of(blob, home) == Standing::kHas) ref.homes.push_back(home);
  }
  const auto others = candidates(blob);
  ref.spares = others;
  auto maker = kj::heap<CopyMaker>(core_, stat.value_or(BlobStat{}), ref, others, 1,
                                   CopyMaker::For::kRepair);
  auto made = stat ? maker->start() : kj::Promise<Result<void>>(Result<void>());
  return made
      .then([&maker = *maker, stat](Result<void> started) -> kj::Promise<Result<void>> {
        if (!started) return kj::mv(started);
        if (!stat) return Result<void>(tl::unexpected<Error>(stat.error()));
        const uint64_t size = stat->size.value_or(0);
        const auto count = static_cast<uint32_t>(chunks_in(size, stat->chunk_size));
        return maker.seal({size, count, stat->root_digest});
      })
      .then([this, id, &maker = *maker](const Result<void>& sealed) {
        copying_--;
        const auto found = blobs_.find(id);
        if (found == blobs_.end()) return;
        found->second.copying = false;
        found->second.retry_at =
            core_.clock.now() + std::chrono::milliseconds(limits::kReplicaAwayMs);
        if (!sealed) {
          log().info("blob {} has too few homes: {}", id.to_string(), sealed.error().to_string());
          return;
        }
        core_.metrics->blobs_copied_again++;
        for (const auto& home : maker.homes()) add_home(found->second, home, Standing::kHas);
        judge(found->second);
        repair_some();
      })
      .attach(kj::mv(maker));
}

}  // namespace bigcast
