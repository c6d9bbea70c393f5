#include "server/relay.h"

#include <fmt/format.h>
#include <kj/debug.h>

#include <algorithm>

#include "base/log.h"

namespace bigcast {
namespace {

kj::Own<FetchedChunk> failed(Error error) {
  auto fetched = kj::refcounted<FetchedChunk>();
  fetched->error = std::move(error);
  return fetched;
}

bool is_gone(ErrorCode code) { return code == ErrorCode::kNotFound || code == ErrorCode::kAborted; }

// Worth another attempt: the home may come back.
bool is_passing(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kDeadlineExceeded;
}

}  // namespace

// ---- RelayBlob: where the blob's home is.

RelayBlob::RelayBlob(Relays& relays, const rpc::BlobRefData& ref)
    : relays_(relays),
      core_(kj::addRef(relays.core_)),
      id_(ref.id),
      ref_(ref),
      live_(core_->live->get(ref.id)),
      last_held_(core_->clock.now()) {}

RelayBlob::~RelayBlob() noexcept(false) {
  watcher_ = nullptr;
  fetches_.clear();
}

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

bool RelayBlob::home_is_current() const {
  KJ_IF_MAYBE (home, home_) return home->link->is_current(home->generation);
  return false;
}

kj::Promise<Result<void>> RelayBlob::prepare() {
  if (live_->ended()) return Result<void>(tl::unexpected(*live_->ended()));
  if (created_) {
    start_watch();
    return Result<void>();
  }
  return find_home().then([this]() -> Result<void> {
    if (live_->ended()) return tl::unexpected(*live_->ended());
    if (!created_) return tl::unexpected(home_error_);
    start_watch();
    return {};
  });
}

kj::Promise<void> RelayBlob::find_home() {
  if (home_is_current()) return kj::READY_NOW;
  if (!finding_) {
    finding_ = true;
    home_ = nullptr;
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
  if (group == nullptr || index >= ref_.homes.size()) {
    if (index == 0) home_error_ = {ErrorCode::kUnavailable, "the reader's session has ended"};
    return kj::READY_NOW;
  }
  auto link = group->link(ref_.homes[index]);
  auto opened = link->open();
  return opened
      .then([this, link = kj::mv(link)](Result<HomeLink::Open> open) mutable -> kj::Promise<void> {
        if (!open) {
          home_error_ = open.error();
          return kj::READY_NOW;
        }
        return open_at(kj::mv(link), kj::mv(*open));
      })
      .then([this, index]() -> kj::Promise<void> {
        if (home_is_current() || live_->ended()) return kj::READY_NOW;
        return try_home(index + 1);
      });
}

kj::Promise<void> RelayBlob::open_at(kj::Own<HomeLink> link, HomeLink::Open open) {
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
          if (is_gone(home_error_.code)) end(home_error_);
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
  auto ref = rpc::read(info.getRef());
  if (!ref || ref->id != id_ || ref->name_space != ref_.name_space) {
    home_error_ = {ErrorCode::kUnsupported, "open: the home answered with another blob"};
    return kj::READY_NOW;
  }
  if (!created_) {
    if (auto created = create_in_store(ref->chunk_size); !created) {
      home_error_ = created.error();
      return kj::READY_NOW;
    }
  }
  if (!info.getSealed() || sealed_ || !ref->size) return kj::READY_NOW;
  return core_
      ->on_pool([store = core_->store, id = id_, size = *ref->size, count = info.getChunkCount(),
                 root = ref->root_digest] { return store->seal(id, size, count, root); })
      .then([this](Result<BlobStat> sealed) {
        if (!sealed) {
          home_error_ = sealed.error();
          return;
        }
        sealed_ = true;
        live_->sealed();
      });
}

Result<void> RelayBlob::create_in_store(uint32_t chunk_size) {
  CreateOptions options;
  options.id = id_;
  options.name_space = ref_.name_space;
  options.name = ref_.name;
  options.role = BlobRole::kRelay;
  options.chunk_size = chunk_size;
  BIGCAST_TRY(core_->store->create(options));
  created_ = true;
  core_->metrics->relayed_blobs++;
  return {};
}

// ---- RelayBlob: fetching chunks.

kj::Promise<kj::Own<FetchedChunk>> RelayBlob::fetch(uint32_t index) {
  auto paf = kj::newPromiseAndFulfiller<kj::Own<FetchedChunk>>();
  auto& fetch = fetches_[index];
  const bool is_first = fetch.get() == nullptr;
  if (is_first) fetch = kj::heap<Fetch>();
  std::erase_if(fetch->waiters, [](auto& waiter) { return !waiter->isWaiting(); });
  fetch->waiters.push_back(kj::mv(paf.fulfiller));
  if (is_first) fetch->task = run_fetch(index).eagerlyEvaluate(nullptr);
  return paf.promise.attach(kj::addRef(*this));
}

kj::Promise<void> RelayBlob::run_fetch(uint32_t index) {
  return kj::evalLater([this, index] { return pull(index); })
      .catch_([](kj::Exception&& exception) { return failed(rpc::to_error(exception)); })
      .then([this, index](kj::Own<FetchedChunk> fetched) {
        return after_pull(index, kj::mv(fetched));
      });
}

kj::Promise<kj::Own<FetchedChunk>> RelayBlob::pull(uint32_t index) {
  return find_home().then([this, index]() -> kj::Promise<kj::Own<FetchedChunk>> {
    if (live_->ended()) return failed(*live_->ended());
    if (!home_is_current()) return failed(home_error_);
    if (sealed_) return pull_bytes(index);
    auto request = KJ_ASSERT_NONNULL(home_).blob.readRequest();
    request.setIndex(index);
    request.setMode(rpc::ReadMode::AWAIT);
    return request.send().then([this, index](auto response) {
      const auto result = response.getResult();
      if (result.isError()) {
        return kj::Promise<kj::Own<FetchedChunk>>(failed(rpc::read(result.getError())));
      }
      if (result.isEnd())
        return pull_end({result.getEnd().getChunkCount(), result.getEnd().getSize()});
      return pull_bytes(index);
    });
  });
}

kj::Promise<kj::Own<FetchedChunk>> RelayBlob::pull_bytes(uint32_t index) {
  const auto stat = core_->store->stat(id_);
  if (!stat) return failed(stat.error());
  return core_->credits->acquire(stat->chunk_size)
      .then([this,
             index](kj::Own<CreditPool::Credit> credit) -> kj::Promise<kj::Own<FetchedChunk>> {
        if (live_->ended()) return failed(*live_->ended());
        if (!home_is_current()) return failed(home_error_);
        auto request = KJ_ASSERT_NONNULL(home_).blob.readRequest();
        request.setIndex(index);
        request.setMode(rpc::ReadMode::BYTES);
        return request.send().then([this, index, credit = kj::mv(credit)](auto response) mutable {
          return keep(index, kj::mv(response), kj::mv(credit));
        });
      });
}

kj::Promise<kj::Own<FetchedChunk>> RelayBlob::keep(uint32_t index,
                                                   capnp::Response<rpc::Blob::ReadResults> response,
                                                   kj::Own<CreditPool::Credit> credit) {
  const auto result = response.getResult();
  if (result.isError()) return failed(rpc::read(result.getError()));
  if (result.isEnd()) return pull_end({result.getEnd().getChunkCount(), result.getEnd().getSize()});
  const auto stat = core_->store->stat(id_);
  if (!stat) return failed(stat.error());
  const auto lies = [](const std::string& what) {
    return failed({ErrorCode::kCorrupt, "the home's answer: " + what});
  };
  if (!result.isChunk()) return lies("not a chunk");
  const auto meta = rpc::read(result.getChunk().getMeta(), stat->chunk_size);
  if (!meta) return lies(meta.error().message);
  const auto data = result.getChunk().getData();
  if (meta->index != index || data.size() < meta->stored_size) return lies("another chunk");

  auto fetched = kj::refcounted<FetchedChunk>();
  fetched->meta = *meta;
  fetched->bytes = {reinterpret_cast<const std::byte*>(data.begin()), meta->stored_size};
  fetched->credit = kj::mv(credit);
  fetched->response = kj::mv(response);
  return core_
      ->on_pool([store = core_->store, id = id_, meta = *meta, bytes = fetched->bytes,
                 held = kj::addRef(*fetched)]() -> Result<void> {
        BIGCAST_TRY(verify_chunk(meta, bytes));
        auto stored = store->put_chunk(id, meta, bytes);
        // Not kept, for want of room, a failing disk or because copies were just asked to go: those
        // who wait get the bytes all the same.
        if (!stored && stored.error().code == ErrorCode::kInvalidArgument) return stored;
        return {};
      })
      .then([this, index, fetched = kj::mv(fetched)](Result<void> stored) mutable {
        if (!stored) return failed(stored.error());
        core_->metrics->chunks_fetched++;
        core_->metrics->bytes_fetched += fetched->meta.stored_size;
        if (!fetched_before_.insert(index).second) core_->metrics->chunks_refetched++;
        return kj::mv(fetched);
      });
}

// The home has no such chunk and never will: the blob was sealed since it was opened.
kj::Promise<kj::Own<FetchedChunk>> RelayBlob::pull_end(const FetchedChunk::End& end) {
  auto fetched = kj::refcounted<FetchedChunk>();
  fetched->end = end;
  if (sealed_) return kj::mv(fetched);
  home_ = nullptr;  // opening it again gives the sealed figures
  return find_home().then([fetched = kj::mv(fetched)]() mutable { return kj::mv(fetched); });
}

kj::Promise<void> RelayBlob::after_pull(uint32_t index, kj::Own<FetchedChunk> fetched) {
  if (!fetches_.contains(index)) return kj::READY_NOW;  // ended meanwhile
  if (fetched->error && !live_->ended()) {
    Fetch& fetch = *fetches_.at(index);
    const ErrorCode code = fetched->error->code;
    if (is_gone(code)) {
      end(*fetched->error);
      return kj::READY_NOW;
    }
    if (code == ErrorCode::kCorrupt) {
      core_->metrics->checksum_failures++;
      log().warn("chunk {} of blob {}: {}", index, id_.to_string(), fetched->error->message);
      if (++fetch.corrupt < limits::kCorruptFetchesMax) return fetch_again(index, 0);
    }
    if (is_passing(code)) {
      const TimePoint now = core_->clock.now();
      if (!fetch.failing_since) fetch.failing_since = now;
      const auto timeout = std::chrono::milliseconds(limits::kProgressTimeoutMs);
      if (attached_group() != nullptr && now - *fetch.failing_since < timeout) {
        const uint32_t delay_ms = fetch.backoff_ms;
        fetch.backoff_ms = std::min(2 * delay_ms, limits::kReconnectBackoffMaxMs);
        return fetch_again(index, delay_ms);
      }
    }
  }
  finish_fetch(index, kj::mv(fetched));
  return kj::READY_NOW;
}

kj::Promise<void> RelayBlob::fetch_again(uint32_t index, uint32_t delay_ms) {
  return core_->loop.timer().afterDelay(delay_ms * kj::MILLISECONDS).then([this, index] {
    return run_fetch(index);
  });
}

void RelayBlob::finish_fetch(uint32_t index, kj::Own<FetchedChunk> fetched) {
  const auto found = fetches_.find(index);
  if (found == fetches_.end()) return;
  auto fetch = kj::mv(found->second);
  fetches_.erase(found);
  for (auto& waiter : fetch->waiters) waiter->fulfill(kj::addRef(*fetched));
  core_->destroy_later(kj::mv(fetch));  // its task may be what runs now
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
    if (!home_is_current()) {
      const uint32_t next_ms = std::min(2 * backoff_ms, limits::kReconnectBackoffMaxMs);
      return core_->loop.timer().afterDelay(backoff_ms * kj::MILLISECONDS).then([this, next_ms] {
        return watch(next_ms);
      });
    }
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
    end({ErrorCode::kNotFound, fmt::format("blob {} was removed", id_.to_string())});
    return kj::READY_NOW;
  }
  fetched_before_.clear();  // what is fetched after this was asked to go
  return core_->on_pool([store = core_->store, id = id_] { return store->drop_chunks(id); })
      .then([](const Result<void>&) {});
}

bool RelayBlob::expired(TimePoint now) {
  if (attached_group() != nullptr && home_is_current()) last_held_ = now;
  return now - last_held_ > core_->config.lease_grace;
}

void RelayBlob::end(const Error& reason) {
  if (live_->ended()) return;
  auto self = kj::addRef(*this);
  if (created_) {
    core_->metrics->relayed_blobs--;
    core_->remove_blob(id_, reason);
  } else {
    core_->live->end(id_, reason);
  }
  while (!fetches_.empty()) finish_fetch(fetches_.begin()->first, failed(reason));
  relays_.forget(id_);
}

// ---- Groups and the whole.

RelayGroup::~RelayGroup() noexcept(false) { relays_.groups_.erase({name_space, lease}); }

void RelayGroup::detach() {
  if (--sessions_ > 0) return;
  for (auto& [address, link] : links_) link->close();
  links_.clear();
}

kj::Own<HomeLink> RelayGroup::link(const rpc::Address& address) {
  auto& link = links_[address.to_string()];
  if (link.get() == nullptr) {
    link = kj::refcounted<HomeLink>(kj::addRef(relays_.core_), address, name_space, lease);
  }
  return kj::addRef(*link);
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

bool Relays::is_myself(const rpc::Address& address) const {
  return core_.advertised && *core_.advertised == address;
}

kj::Promise<Result<kj::Own<RelayBlob>>> Relays::open(const rpc::BlobRefData& ref,
                                                     const std::string& name_space, LeaseId lease) {
  using Opened = Result<kj::Own<RelayBlob>>;
  rpc::BlobRefData wanted = ref;
  std::erase_if(wanted.homes, [this](const auto& address) { return is_myself(address); });
  if (wanted.name_space != name_space || wanted.homes.empty()) {
    return Opened(fail(ErrorCode::kNotFound, fmt::format("no blob {} here", ref.id.to_string())));
  }
  auto& entry = blobs_[ref.id];
  if (entry.get() == nullptr) entry = kj::refcounted<RelayBlob>(*this, wanted);
  auto blob = kj::addRef(*entry);
  blob->use_by(kj::addRef(*groups_.at({name_space, lease})));
  auto prepared = blob->prepare();
  return prepared.then([this, blob = kj::mv(blob)](Result<void> ready) mutable -> Opened {
    if (ready) return kj::mv(blob);
    blob->end(ready.error());
    return fail(ready.error().code, ready.error().message);
  });
}

void Relays::tick(TimePoint now) {
  std::vector<kj::Own<RelayBlob>> gone;
  for (auto& [id, blob] : blobs_) {
    if (blob->expired(now)) gone.push_back(kj::addRef(*blob));
  }
  for (auto& blob : gone) {
    blob->end({ErrorCode::kNotFound,
               fmt::format("blob {}: its lease or its home has gone", blob->id().to_string())});
  }
}

void Relays::forget(BlobId id) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end()) return;
  core_.destroy_later(kj::mv(found->second));  // one of its tasks may be what runs now
  blobs_.erase(found);
}

}  // namespace bigcast
