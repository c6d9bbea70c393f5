#pragma once

#include <kj/async.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "blobstore/disk.h"
#include "rpc/login.h"
#include "server/config.h"
#include "server/core.h"
#include "server/http.h"
#include "server/mender.h"
#include "server/relay.h"
#include "server/replicas.h"
#include "server/session.h"
#include "server/stripe_keeper.h"

namespace bigcast {

// Why a node did not start: the setting that it is about, and the error, whose message names both.
struct StartFailure {
  std::string setting;  // as in the configuration: "socket", "listen", "http", "disk"
  Error error;          // ALREADY_EXISTS: another process has the address or the directory
};

// A whole node: store, leases, services, listeners and their lifecycle. Lives on its loop's
// thread. Destroy it outside of callbacks: it waits for calls that can't be cancelled.
class Node {
 public:
  // Binds all addresses, the socket first (who has it is a host's node), then opens the store;
  // nothing is left behind if one fails. `config` must outlive the node.
  static tl::expected<std::unique_ptr<Node>, StartFailure> start(rpc::UvLoop& loop,
                                                                 const Config& config);
  // The same, with a disk that a test can make fail.
  static tl::expected<std::unique_ptr<Node>, StartFailure> start(rpc::UvLoop& loop,
                                                                 const Config& config,
                                                                 std::unique_ptr<Disk> disk);
  ~Node() noexcept(false);

  // "bigcastd ready listen=127.0.0.1:7420 socket=none http=127.0.0.1:7421 pid=1"
  std::string ready_line() const;
  // Resolves when no session has been attached for config.exit_when_idle.
  kj::Promise<void> on_idle();
  // Refuses new uploads and says 503 at /readyz; resolves when no call runs any more or after
  // limits::kDrainTimeoutMs.
  kj::Promise<void> drain();

  NodeCore& core() { return *core_; }
  const std::vector<rpc::Address>& addresses() const { return addresses_; }  // TCP, then socket

 private:
  struct Accepted {
    kj::Own<rpc::Connection> connection;
    kj::Own<SessionState> session;          // null until logged in
    std::string peer;                       // for the log
    std::optional<std::string> name_space;  // that it asked to log in to, as it spelt it
    std::string refusal;                    // why that was refused, if it was
  };

  Node(rpc::UvLoop& loop, const Config& config, std::shared_ptr<BlobStore> store);
  using Listeners = std::vector<kj::Own<rpc::Listener>>;  // TCP, then the socket
  void listen(Listeners listeners);
  void take_up_placed();
  Result<void> start_http();
  void accept(int fd, bool is_unix);
  void make_room();
  rpc::LoginOptions login_options(uint64_t id);
  Result<rpc::Session::Client> make_session(uint64_t id, const rpc::LoginRequest& request);
  void close(uint64_t id);
  kj::Promise<void> tick_forever(Duration interval);
  void tick();
  void scrub(TimePoint now);
  void set_gauges();
  void end_silent_sessions();
  void expire_leases();
  void report_shedding();
  kj::Promise<void> wait_quiet(TimePoint deadline, TimePoint quiet_since);

  rpc::UvLoop& loop_;
  const Config& config_;
  kj::Own<NodeCore> core_;
  Relays relays_;
  StripeKeeper stripes_;
  Replicas replicas_;
  Mender mender_;
  Listeners listeners_;
  std::vector<rpc::Address> addresses_;
  std::map<uint64_t, Accepted> accepted_;
  std::set<uint64_t> strangers_;  // of those: not logged in, oldest first
  uint64_t shed_told_ = 0;        // of metrics->connections_shed: said in the log
  uint64_t next_connection_ = 1;
  TimePoint idle_since_;
  TimePoint scrub_told_;  // since then bytes become due
  double scrub_due_ = 0;  // below 0: more were read than that
  bool scrubbing_ = false;
  kj::Own<kj::PromiseFulfiller<void>> idle_;
  std::vector<kj::Promise<void>> tasks_;  // accepting and ticking
  std::unique_ptr<HttpServer> http_;
};

}  // namespace bigcast
