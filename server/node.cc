#include "server/node.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "blobstore/store.h"
#include "rpc/login.h"
#include "rpc/socket.h"
#include "server/mappings.h"
#include "server/status.h"
#include "server/upload.h"

namespace bigcast {
namespace {

// Not a node's own: what its loop destroys last, after the node, looks at it.
const SteadyClock kClock;

constexpr auto kTickMax = std::chrono::milliseconds(1000);
constexpr auto kTickMin = std::chrono::milliseconds(10);

// Often enough for the shortest of the deadlines that the tick watches over.
Duration tick_interval(const Config& config) {
  Duration shortest = std::min({config.lease_grace, config.session_timeout, config.mapped_warning});
  if (config.exit_when_idle) shortest = std::min(shortest, *config.exit_when_idle);
  return std::clamp<Duration>(shortest / 4, kTickMin, kTickMax);
}

tl::unexpected<StartFailure> failure(const char* setting, const Error& error) {
  return tl::unexpected(
      StartFailure{setting, {error.code, fmt::format("{}: {}", setting, error.message)}});
}

}  // namespace

tl::expected<std::unique_ptr<Node>, StartFailure> Node::start(rpc::UvLoop& loop,
                                                              const Config& config) {
  return start(loop, config, make_disk());
}

tl::expected<std::unique_ptr<Node>, StartFailure> Node::start(rpc::UvLoop& loop,
                                                              const Config& config,
                                                              std::unique_ptr<Disk> disk) {
  Listeners listeners;
  if (config.socket) {
    auto listener = rpc::Listener::listen(loop, *config.socket);
    if (!listener) return failure("socket", listener.error());
    listeners.push_back(kj::mv(*listener));
  }
  for (size_t i = 0; i < config.listen.size(); i++) {
    auto listener = rpc::Listener::listen(loop, config.listen[i]);
    if (!listener) return failure("listen", listener.error());
    listeners.insert(listeners.begin() + static_cast<std::ptrdiff_t>(i), kj::mv(*listener));
  }
  BlobStore::Options options;
  options.memory_budget = config.memory_bytes;
  options.disk_path = config.disk_path;
  options.disk_budget = config.disk_bytes;
  options.keep = !config.exit_when_idle;  // an application's own node ends with all it has
  options.memory_high = config.memory_high;
  options.memory_low = config.memory_low;
  options.policy = config.policy;
  options.quotas = config.quota;
  options.default_quota = config.default_quota;
  options.clock = &kClock;
  auto store = open_store(options, std::move(disk));
  if (!store) return failure(config.disk_path.empty() ? "memory" : "disk", store.error());
  std::unique_ptr<Node> node(new Node(loop, config, std::move(*store)));
  if (!config.record_trace.empty()) {
    auto trace = TraceRecorder::open(config.record_trace, node->core_->epoch, kClock);
    if (!trace) return failure("record_trace", trace.error());
    node->core_->trace = std::move(*trace);
  }
  if (auto audit = node->core_->audit.open(config.audit_log); !audit) {
    return failure("audit_log", audit.error());
  }
  if (auto http = node->start_http(); !http) return failure("http", http.error());
  node->listen(std::move(listeners));
  node->tasks_.push_back(node->tick_forever(tick_interval(config)).eagerlyEvaluate(nullptr));
  return node;
}

Node::Node(rpc::UvLoop& loop, const Config& config, std::shared_ptr<BlobStore> store)
    : loop_(loop),
      config_(config),
      core_(kj::refcounted<NodeCore>(loop, config, kClock, std::move(store),
                                     std::make_shared<Metrics>())),
      relays_(*core_),
      stripes_(*core_),
      replicas_(*core_),
      mender_(*core_),
      idle_since_(kClock.now()),
      scrub_told_(idle_since_) {
  core_->relays = &relays_;
  core_->stripes = &stripes_;
  core_->replicas = &replicas_;
  // Blobs from before the start live as if their sessions had ended now.
  for (const LeaseId lease : core_->store->leases()) {
    core_->leases.attach(lease);
    core_->leases.detach(lease);
  }
}

Node::~Node() noexcept(false) {
  http_.reset();
  tasks_.clear();
  listeners_.clear();
  accepted_.clear();
  mender_.clear();
  relays_.clear();
  stripes_.clear();
  replicas_.clear();
  // Calls that can't be cancelled (a put that the pool works on) hold on to their session, and
  // those that can take a turn of the loop to let go of what they read.
  auto& timer = loop_.timer();
  const TimePoint deadline = kClock.now() + std::chrono::milliseconds(limits::kDrainTimeoutMs);
  while ((!core_->pool_is_idle() || core_->metrics->sessions > 0 || relays_.in_use()) &&
         kClock.now() < deadline) {
    timer.afterDelay(1 * kj::MILLISECONDS).wait(loop_.wait_scope());
  }
  core_->stop_background();
}

void Node::listen(Listeners listeners) {
  listeners_ = std::move(listeners);
  for (const auto& listener : listeners_) addresses_.push_back(listener->address());
  if (!config_.listen.empty()) {
    core_->advertised = config_.advertise.value_or(addresses_.front());
    if (core_->advertised->port == 0) core_->advertised->port = addresses_.front().port;
  }
  if (core_->advertised) take_up_placed();
  for (auto& listener : listeners_) {
    tasks_.push_back(listener->accept_loop([this](int fd, bool is_unix) { accept(fd, is_unix); })
                         .eagerlyEvaluate([](kj::Exception&& exception) {
                           log().error("a listener failed: {}",
                                       rpc::to_error(exception).to_string());
                         }));
  }
}

// Durable blobs from before the start that other nodes have a part in.
void Node::take_up_placed() {
  for (const BlobStat& stat : core_->store->noted()) {
    replicas_.keep(stat);
    const auto whole = whole_ref(stat);
    if (whole && stat.stripe.index > 0) stripes_.keep(stat.id, *whole);
  }
}

Result<void> Node::start_http() {
  if (!config_.http) return {};
  HttpServer::Handlers handlers;
  handlers.open = [this](const HttpRequest& request) { return health_page(*core_, request); };
  handlers.guarded = [this](const HttpRequest& request) { return status_page(*core_, request); };
  handlers.password = [this] { return config_.http_password.bytes(); };
  handlers.tls = [this] { return config_.http_tls; };
  BIGCAST_ASSIGN(http_, HttpServer::start(loop_, *config_.http, std::move(handlers)));
  return {};
}

std::string Node::ready_line() const {
  const auto tcp = static_cast<std::ptrdiff_t>(config_.listen.size());
  std::vector<std::string> listen;
  for (auto it = addresses_.begin(); it != addresses_.begin() + tcp; ++it) {
    listen.push_back(it->to_string());
  }
  return fmt::format("bigcastd ready listen={} socket={} http={} pid={}",
                     listen.empty() ? "none" : fmt::format("{}", fmt::join(listen, ",")),
                     config_.socket ? addresses_.back().to_string() : "none",
                     http_ ? http_->address().to_string() : "none", getpid());
}

// ---- Connections and sessions.

void Node::accept(int fd, bool is_unix) {
  make_room();
  if (accepted_.size() >= limits::kConnectionsMax) {
    core_->metrics->connections_shed++;
    ::close(fd);
    return;
  }
  const uint64_t id = next_connection_++;
  strangers_.insert(id);
  Accepted& accepted = accepted_[id];
  core_->metrics->connections++;
  accepted.peer = rpc::peer_name(fd);
  accepted.connection = rpc::Connection::serve(
      loop_, fd, is_unix,
      [this, id](rpc::Connection& connection) {
        return rpc::make_bootstrap(connection, login_options(id));
      },
      &core_->io_threads);
  core_->background(
      accepted.connection->on_disconnect().catch_([](kj::Exception&&) {}).then([this, id] {
        close(id);
      }));
}

// Those who have not logged in, be they ever so many, keep nobody out but each other.
void Node::make_room() {
  const bool is_full = accepted_.size() >= limits::kConnectionsMax;
  if (strangers_.empty() || (!is_full && strangers_.size() < limits::kStrangersMax)) return;
  core_->metrics->connections_shed++;
  close(*strangers_.begin());
}

rpc::LoginOptions Node::login_options(uint64_t id) {
  rpc::LoginOptions options;
  options.key_of = [this](std::string_view name_space) -> Result<rpc::NamespaceKey> {
    return rpc::NamespaceKey::derive(config_.secret, name_space);
  };
  options.make_session = [this, id](const rpc::LoginRequest& request) {
    return make_session(id, request);
  };
  options.on_hello = [this, id](std::string_view name_space) {
    const auto found = accepted_.find(id);
    if (found != accepted_.end()) found->second.name_space = name_space;
  };
  options.on_refused = [this, id](const Error& why) {
    const auto found = accepted_.find(id);
    if (found != accepted_.end()) found->second.refusal = why.to_string();
  };
  return options;
}

Result<rpc::Session::Client> Node::make_session(uint64_t id, const rpc::LoginRequest& request) {
  const auto found = accepted_.find(id);
  if (found == accepted_.end()) return fail(ErrorCode::kUnavailable, "disconnected");
  auto state = kj::refcounted<SessionState>(kj::addRef(*core_),
                                            kj::refcounted<Peer>(request.connection), request);
  state->peer_name = found->second.peer;
  found->second.session = kj::addRef(*state);
  strangers_.erase(id);
  log().debug("session of {} in namespace {}", request.client_name, request.name_space);
  return rpc::Session::Client(kj::heap<SessionService>(kj::mv(state)));
}

void Node::close(uint64_t id) {
  auto node = accepted_.extract(id);
  if (node.empty()) return;
  strangers_.erase(id);
  Accepted& accepted = node.mapped();
  core_->metrics->connections--;
  if (accepted.session.get() != nullptr) {
    accepted.session->detach();
  } else if (accepted.name_space) {
    core_->metrics->login_failures++;
    // A client that finds out first that the secrets differ goes without another word.
    const std::string why = accepted.refusal.empty() ? "given up by the client" : accepted.refusal;
    core_->audit.record(
        {.peer = accepted.peer,
         .name_space = *accepted.name_space,
         .operation = "login",
         .outcome = accepted.refusal.empty() ? "UNAUTHENTICATED" : accepted.refusal});
    log().warn("login denied peer=\"{}\" namespace=\"{}\" reason=\"{}\"", accepted.peer,
               quotable(*accepted.name_space), quotable(why));
  }
  core_->destroy_later(kj::mv(accepted));
}

// ---- What happens by the clock.

kj::Promise<void> Node::tick_forever(Duration interval) {
  return loop_.timer().afterDelay(to_kj(interval)).then([this, interval] {
    tick();
    return tick_forever(interval);
  });
}

void Node::tick() {
  const TimePoint now = kClock.now();
  end_silent_sessions();
  core_->mappings->tick(now);
  expire_leases();
  for (const BlobId id : core_->store->expired()) {
    core_->remove_blob(id, {ErrorCode::kNotFound, "the blob's time to live has ended"});
  }
  report_shedding();
  if (core_->trace) core_->trace->flush();
  core_->make_room_ahead();
  scrub(now);
  mender_.tick();
  relays_.tick(now);
  const StoreUsage usage = core_->store->usage();
  if (usage.memory_spare > 0 || usage.removals_left > 0) {
    core_->background(core_->on_pool([store = core_->store] { store->trim(); }));
  }
  const auto uploads = core_->uploads;  // a copy: an upload that ends may leave the set
  for (UploadService* upload : uploads) {
    if (core_->uploads.contains(upload)) upload->check_progress(now);
  }
  set_gauges();
  if (core_->attached > 0) idle_since_ = now;
  if (config_.exit_when_idle && now - idle_since_ > *config_.exit_when_idle &&
      idle_.get() != nullptr) {
    idle_->fulfill();
  }
}

// As many bytes as the time since the last turn allows; what a turn reads beyond that counts for
// the next.
void Node::scrub(TimePoint now) {
  if (config_.scrub_rate == 0 || !config_.keeps()) return;
  const auto passed = std::chrono::duration<double>(now - std::exchange(scrub_told_, now)).count();
  scrub_due_ = std::min(scrub_due_ + passed * static_cast<double>(config_.scrub_rate),
                        static_cast<double>(config_.scrub_rate));
  if (scrubbing_ || scrub_due_ <= 0) return;
  scrubbing_ = true;
  const auto bytes = static_cast<uint64_t>(scrub_due_);
  core_->background(core_->on_pool([store = core_->store, bytes] { return store->scrub(bytes); })
                        .then([this](ScrubTurn turn) {
                          scrubbing_ = false;
                          scrub_due_ -= static_cast<double>(turn.bytes);
                        }));
}

void Node::set_gauges() {
  Metrics& metrics = *core_->metrics;
  metrics.leases = core_->leases.size();
  metrics.credit_bytes = core_->credits->bytes_used();
  metrics.serve_buffer_bytes = core_->serve_buffers.bytes_used();
  metrics.calls_running = core_->running();
  uint64_t open = 0;
  uint64_t waiting = 0;
  for (const UploadService* upload : core_->uploads) {
    open += upload->is_open() ? 1 : 0;
    waiting += upload->credits_waiting();
  }
  metrics.uploads_open = open;
  metrics.credits_waiting = waiting;
}

void Node::end_silent_sessions() {
  const TimePoint now = kClock.now();
  std::vector<uint64_t> silent;
  for (auto& [id, accepted] : accepted_) {
    if (accepted.session.get() == nullptr) continue;
    accepted.session->hear_bytes();
    if (now - accepted.session->heard_at > config_.session_timeout) silent.push_back(id);
  }
  for (const uint64_t id : silent) {
    log().info("session of {}: silent for too long", accepted_.at(id).session->client_name);
    close(id);
  }
}

void Node::expire_leases() {
  for (const LeaseId lease : core_->leases.expire()) {
    core_->metrics->leases_expired++;
    core_->leases_ending.insert(lease);
    core_->background(
        core_->on_pool([store = core_->store, lease] { return store->remove_lease(lease); })
            .then([this, lease](const std::vector<BlobId>& removed) {
              core_->leases_ending.erase(lease);
              log().info("lease {}: ended, {} blobs freed", lease.to_string(), removed.size());
              for (const BlobId id : removed) {
                core_->replicas->lost(id);
                if (core_->trace) core_->trace->ended(id);
                core_->live->end(id, {ErrorCode::kNotFound, "the blob's lease has ended"});
              }
            }));
  }
}

// A line a tick, not one a connection: a flood must not fill the log.
void Node::report_shedding() {
  const uint64_t shed = core_->metrics->connections_shed;
  if (shed == shed_told_) return;
  log().warn("closed {} connections for want of room: {} are open, {} of them not logged in",
             shed - shed_told_, accepted_.size(), strangers_.size());
  shed_told_ = shed;
}

kj::Promise<void> Node::on_idle() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  idle_ = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

kj::Promise<void> Node::drain() {
  core_->draining = true;
  core_->metrics->draining = true;
  const TimePoint now = kClock.now();
  return wait_quiet(now + config_.drain_timeout, now);
}

// Between two calls of a transfer nothing runs, so one quiet moment is not enough.
kj::Promise<void> Node::wait_quiet(TimePoint deadline, TimePoint quiet_since) {
  const TimePoint now = kClock.now();
  const bool busy = core_->running() > 0 ||
                    std::any_of(core_->uploads.begin(), core_->uploads.end(),
                                [](const UploadService* upload) { return upload->is_open(); });
  if (busy) quiet_since = now;
  if (now >= deadline || now - quiet_since > std::chrono::milliseconds(limits::kDrainQuietMs)) {
    return kj::READY_NOW;
  }
  return loop_.timer().afterDelay(to_kj(kTickMin)).then([this, deadline, quiet_since] {
    return wait_quiet(deadline, quiet_since);
  });
}

}  // namespace bigcast
