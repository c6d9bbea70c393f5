#include "server/relay.h"

#include <fmt/format.h>
#include <kj/debug.h>

#include <algorithm>

#include "base/log.h"

namespace bigcast {

// ---- RelayBlob: where the blob's home is.

RelayBlob::RelayBlob(Relays& relays, const rpc::BlobRefData& ref, bool keeps)
    : relays_(relays),
      core_(kj::addRef(relays.core_)),
      id_(ref.id),
      ref_(ref),
      keeps_(keeps),
      live_(core_->live->get(ref.id)),
      last_held_(core_->clock.now()),
      created_(keeps),
      puller_(*core_, *this) {}

RelayBlob::~RelayBlob() noexcept(false) { watcher_ = nullptr; }

void RelayBlob::use_by(kj::Own<RelayGroup> group) {
  for (const auto& known : groups_) {
    if (known.get() == group.get()) return;
  }
  std::erase_if(groups_, [](const auto& known) { return !known->is_attached(); });
  groups_.push_back(kj::mv(group));
}

RelayGroup* RelayBlob::attached_group() {
  for (auto& group : groups_) {
    if (group->is_attached()) return group.get();
  }
  return nullptr;
}

RelayBlob::Home* RelayBlob::home() {
  KJ_IF_MAYBE (home, home_) {
    if (home->link->is_current(home->generation)) return home;
  }
  return nullptr;
}

void RelayBlob::home_gone(const Error& why) {
  // What its writer gave up is nowhere; and so is what its only home does not have.
  if (ref_.homes.size() == 1 || why.code == ErrorCode::kAborted) return end(why);
  home_ = nullptr;
  puller_.wake();
}

// Each was asked. Who could not be reached may have it.
void RelayBlob::no_home_found() {
  if (homes_gone_ > 0 && homes_gone_ == ref_.homes.size()) return end(home_error_);
  if (home_missed_) home_error_ = *home_missed_;
}

bool RelayBlob::is_home_current(uint64_t generation) {
  const Home* current = home();
  return current != nullptr && current->generation == generation;
}

void RelayBlob::home_lost(uint64_t generation) {
  if (is_home_current(generation)) home()->link->lost(generation);
}

kj::Maybe<kj::Own<PeerLink>> RelayBlob::bulk_link(const rpc::Address& address) {
  RelayGroup* group = attached_group();
  if (group == nullptr) return nullptr;
  return group->link(address, PeerLink::Kind::kBulk);
}

kj::Promise<kj::Own<FetchedChunk>> RelayBlob::fetch(uint32_t index) {
  if (live_->ended()) return failed_fetch(*live_->ended());
  return puller_.fetch(index).attach(kj::addRef(*this));
}

kj::Promise<Result<void>> RelayBlob::prepare() {
  if (live_->ended()) return Result<void>(tl::unexpected(*live_->ended()));
  if (created_) {
    start_watch();
    return Result<void>();
  }
  // A removal of the same blob may not have finished.
  return core_->removed(id_)
      .ignoreResult()
      .then([this] { return find_home(); })
      .then([this]() -> Result<void> {
        if (live_->ended()) return tl::unexpected(*live_->ended());
        if (!created_) return tl::unexpected(home_error_);
        start_watch();
        return {};
      });
}

kj::Promise<void> RelayBlob::find_home() {
  if (home() != nullptr) return kj::READY_NOW;
  if (!finding_) {
    finding_ = true;
    home_ = nullptr;
    homes_gone_ = 0;
    home_missed_.reset();
    find_attempt_ =
        try_home(0)
            .catch_([this](kj::Exception&& exception) { home_error_ = rpc::to_error(exception); })
            .then([this] { finding_ = false; })
            .fork();
  }
  return KJ_ASSERT_NONNULL(find_attempt_).addBranch();
}

kj::Promise<void> RelayBlob::try_home(size_t index) {
  RelayGroup* group = attached_group();
  if (group == nullptr) {
    home_error_ = {ErrorCode::kUnavailable, "the reader's session has ended"};
    return kj::READY_NOW;
  }
  if (index >= ref_.homes.size()) {
    no_home_found();
    return kj::READY_NOW;
  }
  auto link = group->link(ref_.homes[index], PeerLink::Kind::kControl);
  auto opened = link->open();
  return opened
      .then([this, link = kj::mv(link)](Result<PeerLink::Open> open) mutable -> kj::Promise<void> {
        if (!open) {
          home_error_ = open.error();
          home_missed_ = home_error_;
          return kj::READY_NOW;
        }
        return open_at(kj::mv(link), kj::mv(*open));
      })
      .then([this, index]() -> kj::Promise<void> {
        if (home() != nullptr || live_->ended()) return kj::READY_NOW;
        return try_home(index + 1);
      });
}

kj::Promise<void> RelayBlob::open_at(kj::Own<PeerLink> link, PeerLink::Open open) {
  auto request = open.session.openRequest();
  rpc::write(id_, request.initTarget().initHomeId());
  const uint64_t generation = open.generation;
  auto at_home = kj::addRef(*link);
  return request.send().then(
      [this, link = kj::mv(link), generation](
          capnp::Response<rpc::Session::OpenResults> response) mutable -> kj::Promise<void> {
        const auto result = response.getResult();
        if (!result.isOpened()) {
          home_error_ = result.isError()
                            ? rpc::read(result.getError())
                            : Error{ErrorCode::kUnsupported, "open: the home's answer is unknown"};
          if (is_gone(home_error_.code)) homes_gone_++;
          return kj::READY_NOW;
        }
        const auto opened = result.getOpened();
        auto blob = opened.getBlob();
        return learn(opened.getInfo())
            .then([this, blob = kj::mv(blob), link = kj::mv(link), generation]() mutable {
              if (created_) home_ = Home{kj::mv(blob), kj::mv(link), generation};
            })
            .attach(kj::mv(response));
      },
      [this, at_home = kj::mv(at_home), generation](kj::Exception&& exception) mutable {
        home_error_ = rpc::to_error(exception);
        at_home->lost(generation);
        return kj::Promise<void>(kj::READY_NOW);
      });
}

// Takes over what the home says of the blob.
kj::Promise<void> RelayBlob::learn(rpc::BlobInfo::Reader info) {
  if (ended()) return kj::READY_NOW;  // late: what the store had is freed, and must stay so
  auto ref = rpc::read(info.getRef());
  if (!ref || ref->id != id_ || ref->name_space != ref_.name_space ||
      ref->chunk_size != ref_.chunk_size) {
    home_error_ = {ErrorCode::kUnsupported, "open: the home answered with another blob"};
    return kj::READY_NOW;
  }
  if (!created_) {
    if (auto created = create_in_store(ref->chunk_size, info.getMappable()); !created) {
      home_error_ = created.error();
      return kj::READY_NOW;
    }
  }
  // Homes may have taken the place of others since our ref was made.
  for (const auto& home : ref->homes) {
    const bool is_new = std::ranges::find(ref_.homes, home) == ref_.homes.end();
    if (is_new && !core_->is_myself(home) && ref_.homes.size() < limits::kHomesMax) {
      ref_.homes.push_back(home);
    }
  }
  if (!info.getSealed() || sealed_end_ || !ref->size) return kj::READY_NOW;
  const FetchedChunk::End sealed_end{info.getChunkCount(), *ref->size};
  if (keeps_) {  // sealed once all of it is here
    sealed_end_ = sealed_end;
    return kj::READY_NOW;
  }
  return core_
      ->on_pool([store = core_->store, id = id_, size = *ref->size, count = info.getChunkCount(),
                 root = ref->root_digest] { return store->seal(id, size, count, root); })
      .then([this, sealed_end](Result<BlobStat> sealed) {
        if (!sealed) {
          home_error_ = sealed.error();
          return;
        }
        sealed_end_ = sealed_end;
        live_->sealed();
      });
}

Result<void> RelayBlob::create_in_store(uint32_t chunk_size, bool mappable) {
  CreateOptions options;
  options.id = id_;
  options.name_space = ref_.name_space;
  options.name = ref_.name;
  options.role = BlobRole::kRelay;
  options.chunk_size = chunk_size;
  options.stripe = stripe();
  options.mappable = mappable;
  BIGCAST_TRY(core_->store->create(options));
  created_ = true;
  core_->metrics->relayed_blobs++;
  return {};
}

// ---- RelayBlob: following its home, and its end.

void RelayBlob::start_watch() {
  if (watching_ || live_->ended()) return;
  watching_ = true;
  watcher_ = watch(limits::kReconnectBackoffMinMs)
                 .catch_([](kj::Exception&& exception) {
                   log().warn("watching a home: {}", rpc::to_error(exception).to_string());
                 })
                 .then([this] { watching_ = false; })
                 .eagerlyEvaluate(nullptr);
}

kj::Promise<void> RelayBlob::watch(uint32_t backoff_ms) {
  if (live_->ended() || attached_group() == nullptr) return kj::READY_NOW;
  return find_home().then([this, backoff_ms]() -> kj::Promise<void> {
    if (live_->ended()) return kj::READY_NOW;
    if (home() == nullptr) {
      const uint32_t next_ms = std::min(2 * backoff_ms, limits::kReconnectBackoffMaxMs);
      return core_->loop.timer().afterDelay(backoff_ms * kj::MILLISECONDS).then([this, next_ms] {
        return watch(next_ms);
      });
    }
    puller_.wake();
    auto& home = KJ_ASSERT_NONNULL(home_);
    return home.blob.watchRequest()
        .send()
        .then([this](auto response) { return on_event(response.getEvent()); },
              [link = kj::addRef(*home.link),
               generation = home.generation](kj::Exception&&) mutable -> kj::Promise<void> {
                link->lost(generation);
                return kj::READY_NOW;
              })
        .then([this] { return watch(limits::kReconnectBackoffMinMs); });
  });
}

kj::Promise<void> RelayBlob::on_event(rpc::BlobEvent event) {
  if (event == rpc::BlobEvent::REMOVED) {
    home_gone({ErrorCode::kNotFound, fmt::format("blob {} was removed", id_.to_string())});
    return kj::READY_NOW;
  }
  if (keeps_) return kj::READY_NOW;  // not meant for homes
  puller_.copies_dropped();
  return core_->on_pool([store = core_->store, id = id_] { return store->drop_chunks(id); })
      .then([](const Result<void>&) {});
}

bool RelayBlob::expired(TimePoint now) {
  if (keeps_) return false;                   // whoever wants it kept says when that ends
  const bool begins = finding_ && !created_;  // each home that is asked has its own time
  if (attached_group() != nullptr && (home() != nullptr || begins)) last_held_ = now;
  return now - last_held_ > core_->config.lease_grace;
}

// Its homes may have it still: who reads it may try again.
Error RelayBlob::expiry() {
  const std::string id = id_.to_string();
  if (attached_group() == nullptr) {
    return {ErrorCode::kNotFound, fmt::format("blob {}: its lease has ended", id)};
  }
  return {ErrorCode::kUnavailable,
          fmt::format("blob {}: its home is out of reach: {}", id, home_error_.message)};
}

void RelayBlob::end(const Error& reason) {
  if (live_->ended()) return;
  auto self = kj::addRef(*this);
  if (settled_) return puller_.fail_all(reason);  // the home lives on
  if (created_) {
    if (!keeps_) core_->metrics->relayed_blobs--;
    core_->remove_blob(id_, reason);
  } else {
    core_->live->end(id_, reason);
  }
  puller_.fail_all(reason);
  puller_.forget_unread();
  relays_.forget(id_);
}

// ---- RelayBlob: becoming a home.

kj::Promise<Result<void>> RelayBlob::until_whole(FetchedChunk::End end) {
  sealed_end_ = end;
  puller_.wake();
  return until_whole(stripe().index);
}

kj::Promise<Result<void>> RelayBlob::until_whole(uint32_t from) {
  if (live_->ended()) return Result<void>(tl::unexpected(*live_->ended()));
  const std::vector<bool>& held = puller_.held();
  while (from < sealed_end_->chunk_count && from < held.size() && held[from]) {
    from += stripe().count;
  }
  if (from >= sealed_end_->chunk_count) return Result<void>();
  return live_->chunk_event(from).then([this, from] { return until_whole(from); });
}

void RelayBlob::settle() {
  settled_ = true;
  puller_.settle();
  home_ = nullptr;
  live_->sealed();
  relays_.forget(id_);
}

// ---- Groups and the whole.

RelayGroup::~RelayGroup() noexcept(false) { relays_.groups_.erase({name_space, lease}); }

void RelayGroup::detach() {
  if (--sessions_ > 0) return;
  for (auto& [home, listener] : listeners_) relays_.core_.destroy_later(kj::mv(listener));
  listeners_.clear();
  for (auto& [key, link] : links_) link->close();
  links_.clear();
}

kj::Own<PeerLink> RelayGroup::link(const rpc::Address& address, PeerLink::Kind kind) {
  auto& link = links_[{kind, address.to_string()}];
  if (link.get() == nullptr) {
    link = kj::refcounted<PeerLink>(kj::addRef(relays_.core_), kind, address, name_space, lease);
  }
  return kj::addRef(*link);
}

Result<void> RelayGroup::follow_home(const rpc::Address& home) {
  const std::string name = home.to_string();
  if (listeners_.contains(name)) return {};
  if (listeners_.size() >= limits::kHomesFollowedMax) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("followHome: at most {} homes a lease", limits::kHomesFollowedMax));
  }
  listeners_[name] = kj::heap<HomeListener>(relays_, *this, home);
  return {};
}

void RelayGroup::close_idle_links(TimePoint now) {
  const auto idle = std::chrono::milliseconds(limits::kPeerLinkIdleMs);
  for (auto it = links_.begin(); it != links_.end();) {
    const bool is_idle = !it->second->isShared() && now - it->second->used_at() > idle;
    if (is_idle) it->second->close();
    it = is_idle ? links_.erase(it) : std::next(it);
  }
}

void RelayGroup::for_links(kj::FunctionParam<void(const PeerLink&)>& visit) const {
  for (const auto& [key, link] : links_) visit(*link);
}

Relays::~Relays() noexcept(false) {
  blobs_.clear();
  KJ_ASSERT(groups_.empty(), "a session outlives the relays");
}

kj::Own<void> Relays::use(const std::string& name_space, LeaseId lease) {
  struct Use {
    explicit Use(kj::Own<RelayGroup> group) : group(kj::mv(group)) { this->group->attach(); }
    ~Use() noexcept(false) { group->detach(); }
    kj::Own<RelayGroup> group;
  };
  const auto found = groups_.find({name_space, lease});
  if (found != groups_.end()) return kj::heap<Use>(kj::addRef(*found->second));
  auto group = kj::refcounted<RelayGroup>(*this, name_space, lease);
  groups_[{name_space, lease}] = group.get();
  return kj::heap<Use>(kj::mv(group));
}

std::vector<BlobId> Relays::some(size_t limit) const {
  std::vector<BlobId> ids;
  for (const auto& [id, blob] : blobs_) {
    if (ids.size() >= limit) break;
    ids.push_back(id);
  }
  return ids;
}

void Relays::for_links(kj::FunctionParam<void(const PeerLink&)> visit) const {
  for (const auto& [key, group] : groups_) group->for_links(visit);
}

Result<void> Relays::follow_home(const rpc::Address& home, const std::string& name_space,
                                 LeaseId lease) {
  if (core_.is_myself(home)) return {};  // what is written here is here
  return groups_.at({name_space, lease})->follow_home(home);
}

kj::Promise<Result<kj::Own<RelayBlob>>> Relays::open(const rpc::BlobRefData& ref,
                                                     const std::string& name_space, LeaseId lease) {
  using Opened = Result<kj::Own<RelayBlob>>;
  rpc::BlobRefData wanted = ref.stripe ? ref : ref.of_stripe(0);
  std::erase_if(wanted.homes, [this](const auto& address) { return core_.is_myself(address); });
  if (wanted.name_space != name_space || wanted.homes.empty()) {
    return Opened(
        fail(ErrorCode::kNotFound, fmt::format("no blob {} here", wanted.id.to_string())));
  }
  auto& entry = blobs_[wanted.id];
  if (entry.get() == nullptr) entry = kj::refcounted<RelayBlob>(*this, wanted, false);
  if (entry->name_space() != name_space) {
    return Opened(
        fail(ErrorCode::kNotFound, fmt::format("no blob {} here", wanted.id.to_string())));
  }
  auto blob = kj::addRef(*entry);
  blob->use_by(kj::addRef(*groups_.at({name_space, lease})));
  auto prepared = blob->prepare();
  return prepared.then([this, blob = kj::mv(blob)](Result<void> ready) mutable -> Opened {
    if (ready) return kj::mv(blob);
    blob->end(ready.error());
    return fail(ready.error().code, ready.error().message);
  });
}

Result<kj::Own<RelayBlob>> Relays::keep(const rpc::BlobRefData& ref) {
  rpc::BlobRefData source = ref;
  std::erase_if(source.homes, [this](const auto& address) { return core_.is_myself(address); });
  auto& entry = blobs_[source.id];
  if (entry.get() != nullptr) {
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("blob {} is being fetched here", ref.id.to_string()));
  }
  entry = kj::refcounted<RelayBlob>(*this, source, true);
  entry->use_by(kj::addRef(*groups_.at({source.name_space, LeaseId{}})));
  entry->prefetch();
  return kj::addRef(*entry);
}

kj::Promise<void> Relays::make_way(BlobId id) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end() || found->second->keeps()) return kj::READY_NOW;
  found->second->end({ErrorCode::kUnavailable, "this node is about to be a home of the blob"});
  return core_.removed(id).ignoreResult();
}

void Relays::tick(TimePoint now) {
  for (auto& [key, group] : groups_) group->close_idle_links(now);
  std::vector<kj::Own<RelayBlob>> gone;
  for (auto& [id, blob] : blobs_) {
    if (blob->expired(now)) gone.push_back(kj::addRef(*blob));
  }
  for (auto& blob : gone) blob->end(blob->expiry());
}

void Relays::forget(BlobId id) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end()) return;
  core_.destroy_later(kj::mv(found->second));  // one of its tasks may be what runs now
  blobs_.erase(found);
}

}  // namespace bigcast
