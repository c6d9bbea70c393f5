#include "server/core.h"

#include <fmt/format.h>
#include <kj/debug.h>

#include <algorithm>

#include "base/log.h"
#include "server/announcements.h"
#include "server/mappings.h"
#include "server/relay.h"
#include "server/replicas.h"

namespace bigcast {
namespace {

uint64_t in_ms(Duration duration) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

// At least one chunk of any size.
kj::Promise<kj::Own<CreditPool::Credit>> acquire_share(CreditPool& pool, uint64_t bytes) {
  return pool.acquire(std::clamp<uint64_t>(bytes, 1, pool.bytes_max()));
}

}  // namespace

NodeCore::NodeCore(rpc::UvLoop& loop, const Config& config, const Clock& clock,
                   std::shared_ptr<BlobStore> store, std::shared_ptr<Metrics> metrics)
    : loop(loop),
      io_threads(rpc::IoThreads::default_count()),
      config(config),
      clock(clock),
      store(std::move(store)),
      metrics(std::move(metrics)),
      credits(kj::refcounted<CreditPool>(limits::kReceiveReserve)),
      serve_buffers(limits::kServeReserve),
      loads(*this),
      live(kj::refcounted<LiveBlobs>()),
      announcements(std::make_unique<Announcements>()),
      mappings(std::make_unique<Mappings>(*this)),
      leases(clock, config.lease_grace),
      started_at(clock.now()),
      put_turns_(kj::refcounted<CreditPool>(std::max(1U, rpc::UvLoop::pool_threads() / 2))),
      sync_turns_(kj::refcounted<CreditPool>(std::max(1U, rpc::UvLoop::pool_threads() / 4))),
      tasks_(kj::heap<kj::TaskSet>(log_errors_)) {}

NodeCore::~NodeCore() noexcept(false) = default;

void NodeCore::LogErrors::taskFailed(kj::Exception&& exception) {
  const Error error = rpc::to_error(exception);
  log().warn("background task: {}", error.to_string());
}

kj::Own<void> NodeCore::count_running() {
  struct Count {
    explicit Count(kj::Own<NodeCore> core) : core(kj::mv(core)) { this->core->running_++; }
    ~Count() noexcept(false) { core->running_--; }
    kj::Own<NodeCore> core;
  };
  return kj::heap<Count>(kj::addRef(*this));
}

kj::Own<void> NodeCore::count_in(Metrics::Number& gauge) {
  gauge++;
  return kj::heap(kj::defer([metrics = metrics, &gauge] { gauge--; }));
}

kj::Own<void> NodeCore::time(Histogram& histogram) {
  struct Timing {
    Timing(kj::Own<NodeCore> core, Histogram& histogram)
        : core(kj::mv(core)), histogram(histogram), began(this->core->clock.now()) {}
    ~Timing() noexcept(false) { histogram.observe(seconds_of(core->clock.now() - began)); }
    kj::Own<NodeCore> core;
    Histogram& histogram;
    const TimePoint began;
  };
  return kj::heap<Timing>(kj::addRef(*this), histogram);
}

void NodeCore::background(kj::Promise<void> task) {
  if (tasks_.get() != nullptr) tasks_->add(kj::mv(task));
}

std::string NodeCore::not_ready() const {
  if (draining) return "draining";
  const std::string failure = store->disk_failure();
  return failure.empty() ? failure : "disk read-only: " + failure;
}

void NodeCore::remove_blob(BlobId id, const Error& reason) {
  live->end(id, reason);
  announcements->withdraw(id);
  if (trace) trace->ended(id);
  if (replicas != nullptr) replicas->removed(id);
  if (is_removing(id)) return;
  auto removal = on_pool([store = store, id] {
                   return store->remove(id);
                 }).then([this, id](Result<void> removed) {
    removals_.erase(id);
    if (!removed && removed.error().code != ErrorCode::kNotFound) {
      log().warn("removing blob {}: {}", id.to_string(), removed.error().to_string());
    }
    return removed;
  });
  const auto entry = removals_.emplace(id, removal.fork()).first;
  background(entry->second.addBranch().ignoreResult());
}

void NodeCore::make_room_ahead() {
  if (making_room_ || is_stopping() || !store->wants_room_ahead()) return;
  making_room_ = true;
  background(make_room_turns());
}

kj::Promise<void> NodeCore::make_room_turns() {
  return on_pool([store = store] { return store->make_room_ahead(); })
      .then([this](bool more) -> kj::Promise<void> {
        if (more && !is_stopping()) return make_room_turns();
        making_room_ = false;
        return kj::READY_NOW;
      });
}

kj::Promise<Result<void>> NodeCore::removed(BlobId id) {
  const auto found = removals_.find(id);
  if (found == removals_.end()) return Result<void>();
  return found->second.addBranch();
}

Peer::Peer(rpc::Connection& connection)
    : connection_(connection.handle()),
      is_unix_(connection.is_unix()),
      serve_room_(kj::refcounted<CreditPool>(limits::kServeBytesPerPeer)),
      load_room_(kj::refcounted<CreditPool>(limits::kLoadBytesPerPeer)) {}

Peer::~Peer() noexcept(false) = default;

Result<kj::Own<MappingProcess>> Peer::process(NodeCore& core) {
  if (process_ == nullptr) {
    if (*connection_ == nullptr) return fail(ErrorCode::kUnavailable, "the reader has gone");
    BIGCAST_ASSIGN(const int fd, (*connection_)->open_peer_process());
    process_ = kj::refcounted<MappingProcess>(core, fd);
  }
  return kj::addRef(*KJ_ASSERT_NONNULL(process_));
}

kj::Promise<kj::Own<CreditPool::Credit>> Peer::acquire_serve_room(uint64_t bytes) {
  return acquire_share(*serve_room_, bytes);
}

kj::Promise<kj::Own<CreditPool::Credit>> Peer::acquire_load_room(uint64_t bytes) {
  return acquire_share(*load_room_, bytes);
}

SessionState::SessionState(kj::Own<NodeCore> core, kj::Own<Peer> peer,
                           const rpc::LoginRequest& login)
    : core(kj::mv(core)),
      peer(kj::mv(peer)),
      name_space(login.name_space),
      lease(login.is_peer ? LeaseId{} : login.lease),
      client_name(login.client_name),
      is_peer(login.is_peer),
      heard_at(this->core->clock.now()) {
  if (!lease.is_zero()) this->core->leases.attach(lease);
  if (!is_peer) this->core->attached++;
  if (this->core->relays != nullptr && !is_peer) {
    relay_use = this->core->relays->use(this->name_space, lease);
  }
  this->core->metrics->sessions++;
}

SessionState::~SessionState() noexcept(false) { detach(); }

Result<void> SessionState::pin(BlobId id) {
  if (!attached) return fail(ErrorCode::kUnavailable, "the session has ended");
  std::erase_if(pins, [&](BlobId pinned) { return !core->store->stat(pinned); });
  if (pins.contains(id)) return {};
  if (revoked_pins.erase(id) > 0) return fail(ErrorCode::kAborted, "another session unpinned it");
  if (pins.size() >= limits::kPinsPerSessionMax) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("pin: at most {} a session", limits::kPinsPerSessionMax));
  }
  BIGCAST_TRY(core->store->pin(id));
  pins.insert(id);
  core->pinners.insert(this);
  return {};
}

void SessionState::unpin(BlobId id) {
  revoked_pins.erase(id);
  if (pins.erase(id) == 0) return;
  core->store->unpin(id);
  if (pins.empty()) core->pinners.erase(this);
}

void SessionState::revoke_pin(BlobId id) {
  if (!pins.contains(id)) return;
  unpin(id);
  // Those of blobs that are gone would never be asked for again.
  std::erase_if(revoked_pins, [&](BlobId revoked) { return !core->store->stat(revoked); });
  revoked_pins.insert(id);
}

void SessionState::hear_bytes() {
  const uint64_t bytes = peer->bytes_received();
  if (bytes < bytes_heard + limits::kProgressBytesMin) return;
  bytes_heard = bytes;
  heard();
}

void SessionState::audit(const char* operation, const std::string& name, BlobId id,
                         std::optional<uint64_t> bytes, const std::string& outcome) {
  core->audit.record({.client = client_name,
                      .peer = peer_name,
                      .name_space = name_space,
                      .operation = operation,
                      .name = name,
                      .id = id.to_string(),
                      .bytes = bytes,
                      .outcome = outcome});
}

void SessionState::detach() {
  if (!attached) return;
  attached = false;
  while (!pins.empty()) unpin(*pins.begin());
  core->pinners.erase(this);
  if (!lease.is_zero()) core->leases.detach(lease);
  relay_use = nullptr;
  if (!is_peer) core->attached--;
  core->metrics->sessions--;
}

Result<BlobStat> stat_in(const NodeCore& core, std::string_view name_space, BlobId id) {
  auto stat = core.store->stat(id);
  if (!stat || stat->name_space != name_space || core.is_removing(id)) {
    if (!stat && stat.error().code != ErrorCode::kNotFound) return stat;
    return fail(ErrorCode::kNotFound, fmt::format("no blob {} here", id.to_string()));
  }
  return stat;
}

std::optional<rpc::BlobRefData> whole_ref(const BlobStat& stat) {
  if (stat.note.empty()) return std::nullopt;
  auto ref = rpc::BlobRefData::from_bytes(stat.note);
  if (!ref) return std::nullopt;
  return std::move(*ref);
}

void write_ref(const NodeCore& core, const BlobStat& stat, rpc::BlobRef::Builder out) {
  rpc::BlobRefData ref;
  if (auto whole = whole_ref(stat)) {
    ref = stat.stripe.index == 0 ? std::move(*whole) : whole->of_stripe(stat.stripe.index);
    ref.spares.clear();
    auto homes = core.replicas->homes_of(stat.id);
    if (!homes.empty()) ref.homes = std::move(homes);
  } else {
    if (stat.role == BlobRole::kHome && core.advertised) ref.homes.push_back(*core.advertised);
    ref.stripes = stat.stripe.count;
    if (stat.stripe.count > 1) ref.stripe = stat.stripe.index;
  }
  ref.id = stat.id;
  ref.size = stat.size;
  ref.chunk_size = stat.chunk_size;
  ref.root_digest = stat.root_digest;
  ref.name_space = stat.name_space;
  ref.name = stat.name;
  rpc::write(ref, out);
}

void write_info(const NodeCore& core, const BlobStat& stat, rpc::BlobInfo::Builder out) {
  write_ref(core, stat, out.initRef());
  out.setSealed(stat.sealed);
  const uint64_t size = stat.size.value_or(0);
  const uint64_t chunks = chunks_in(size, stat.chunk_size);
  out.setChunkCount(stat.sealed ? static_cast<uint32_t>(chunks) : stat.chunk_count);
  out.setStoredSize(stat.stored_size);
  out.setMemoryBytes(stat.memory_bytes);
  out.setDiskBytes(stat.disk_bytes);
  out.setRelay(stat.role == BlobRole::kRelay);
  out.setDurability(stat.durability == Durability::kDisk ? rpc::Durability::DISK
                                                         : rpc::Durability::MEMORY);
  out.setMappable(stat.mappable);
  const TimePoint now = core.clock.now();
  out.setAgeMs(in_ms(now - stat.created_at));
  out.setTtlMs(in_ms(stat.ttl));
  if (stat.expires_at && *stat.expires_at > now) out.setExpiresInMs(in_ms(*stat.expires_at - now));
  out.setPins(stat.pins);
}

void reply_void(rpc::VoidResult::Builder out, const Result<void>& result) {
  if (result) {
    out.setOk();
  } else {
    reply_error(out, result.error());
  }
}

}  // namespace bigcast
