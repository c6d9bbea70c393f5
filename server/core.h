#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/clock.h"
#include "base/ids.h"
#include "blobstore/blob_store.h"
#include "blobstore/lease_table.h"
#include "rpc/address.h"
#include "rpc/bigcast.capnp.h"
#include "rpc/buffer_pool.h"
#include "rpc/bulk_socket.h"
#include "rpc/connection.h"
#include "rpc/convert.h"
#include "rpc/login.h"
#include "rpc/uv_loop.h"
#include "server/audit_log.h"
#include "server/chunk_loads.h"
#include "server/config.h"
#include "server/credit.h"
#include "server/live_blob.h"
#include "server/metrics.h"
#include "server/trace_recorder.h"

namespace bigcast {

class Announcements;
class MappingProcess;
class Mappings;
class Relays;
class Replicas;
class StripeKeeper;
class UploadService;
struct SessionState;

inline kj::Duration to_kj(Duration duration) { return duration.count() * kj::NANOSECONDS; }

// What a node's services share. Everything here is used on the loop's thread only, but for the
// store and the metrics. Services hold a reference: calls that can't be cancelled may outlast
// their connection.
class NodeCore final : public kj::Refcounted {
 public:
  NodeCore(rpc::UvLoop& loop, const Config& config, const Clock& clock,
           std::shared_ptr<BlobStore> store, std::shared_ptr<Metrics> metrics);
  ~NodeCore() noexcept(false);

  // Runs blocking work on the thread pool. `work` must own all that it touches: it finishes even
  // if the promise is dropped.
  template <typename Work>
  auto on_pool(Work work) {
    return loop.run_on_pool(
        [busy = pool_use_, work = std::move(work)]() mutable { return work(); });
  }
  // The same for what puts a chunk into the store, which may wait for a disk to take others: half
  // of the pool's threads are for that, so that nobody who reads waits with it. The work has its
  // turn until it ends, though the promise be dropped; if that is dropped before, it never begins.
  template <typename Work>
  auto put_on_pool(Work work) {
    return on_pool_in_turn(*put_turns_, std::move(work));
  }
  // The same for what seals the blob: a durable one waits until the disk has everything, and a
  // quarter of the pool's threads are for that.
  template <typename Work>
  auto seal_on_pool(BlobId id, Work work) {
    const auto stat = store->stat(id);
    const bool syncs = stat && stat->durability == Durability::kDisk;
    return syncs ? on_pool_in_turn(*sync_turns_, std::move(work)) : on_pool(std::move(work));
  }
  bool pool_is_idle() const { return pool_use_.use_count() == 1; }

  // Counts a call that a draining node waits for, until the result is destroyed.
  kj::Own<void> count_running();
  // Counts one in a gauge, until the result is destroyed.
  kj::Own<void> count_in(Metrics::Number& gauge);
  // Observes how long the result lives.
  kj::Own<void> time(Histogram& histogram);
  size_t running() const { return running_; }

  // Ends a blob for all who use it here, then frees what the store has of it. From then on the id
  // counts as unknown, though the store may take a moment.
  void remove_blob(BlobId id, const Error& reason);
  bool is_removing(BlobId id) const { return removals_.contains(id); }
  kj::Promise<Result<void>> removed(BlobId id);  // the end of a removal that is under way
  // Destroys `object` in a later turn of the loop: for what may be running right now.
  template <typename T>
  void destroy_later(T object) {
    background(kj::evalLater([object = kj::mv(object)]() mutable { T gone = kj::mv(object); }));
  }
  // Runs to its end whatever becomes of the caller; errors are logged.
  void background(kj::Promise<void> task);
  // The loop is about to end: nothing may be scheduled any more.
  void stop_background() { tasks_ = nullptr; }
  bool is_stopping() const { return tasks_.get() == nullptr; }

  // To be called when the store may have become fuller: moves chunks to disk in the background, in
  // turns that leave the pool to others between them.
  void make_room_ahead();

  std::string not_ready() const;  // why; empty: it is
  bool is_myself(const rpc::Address& address) const { return advertised == address; }
  Duration uptime() const { return clock.now() - started_at; }

  rpc::UvLoop& loop;
  rpc::IoThreads io_threads;  // the large parts of frames
  const Config& config;
  const Clock& clock;
  const std::shared_ptr<BlobStore> store;
  const std::shared_ptr<Metrics> metrics;
  kj::Own<CreditPool> credits;
  rpc::BufferPool serve_buffers;
  ChunkLoads loads;
  kj::Own<LiveBlobs> live;
  const std::unique_ptr<Announcements> announcements;
  const std::unique_ptr<Mappings> mappings;
  LeaseTable leases;
  std::unordered_set<LeaseId> leases_ending;  // expired; their blobs are being removed
  std::unordered_set<UploadService*> uploads;
  std::unordered_set<SessionState*> pinners;  // those that pin anything
  Relays* relays = nullptr;                   // the node's, as is
  StripeKeeper* stripes = nullptr;
  Replicas* replicas = nullptr;
  std::unique_ptr<TraceRecorder> trace;  // null: none is recorded
  size_t attached = 0;                   // sessions, but for peers'
  uint64_t link_generations = 0;         // connections made to other nodes so far
  std::optional<rpc::Address> advertised;
  AuditLog audit;
  const Id128 epoch = Id128::random();
  const TimePoint started_at;
  bool draining = false;

 private:
  struct LogErrors final : kj::TaskSet::ErrorHandler {
    void taskFailed(kj::Exception&& exception) override;
  };
  kj::Promise<void> make_room_turns();

  template <typename Work>
  auto on_pool_in_turn(CreditPool& turns, Work work) {
    return turns.acquire(1).then([this, work = std::move(work)](
                                     kj::Own<CreditPool::Credit> turn) mutable {
      return on_pool([turn = kj::mv(turn), work = std::move(work)]() mutable { return work(); });
    });
  }

  bool making_room_ = false;
  kj::Own<CreditPool> put_turns_;
  kj::Own<CreditPool> sync_turns_;
  std::shared_ptr<int> pool_use_ = std::make_shared<int>(0);
  size_t running_ = 0;
  std::unordered_map<BlobId, kj::ForkedPromise<Result<void>>> removals_;
  LogErrors log_errors_;
  kj::Own<kj::TaskSet> tasks_;
};

// An accepted connection as the services see it: they may outlast it.
class Peer final : public kj::Refcounted {
 public:
  explicit Peer(rpc::Connection& connection);
  ~Peer() noexcept(false);
  bool is_unix() const { return is_unix_; }  // descriptors can be passed
  // Bytes that came from it so far; none once it is gone.
  uint64_t bytes_received() const {
    return *connection_ == nullptr ? 0 : (*connection_)->bytes_received();
  }
  // The process at the other end, watched from the first call on. UNSUPPORTED: it can't be.
  Result<kj::Own<MappingProcess>> process(NodeCore& core);
  // One peer's share of what is on its way to peers, and of the serve reserve: a peer that does not
  // read can't take all of it.
  kj::Promise<kj::Own<CreditPool::Credit>> acquire_serve_room(uint64_t bytes);
  kj::Promise<kj::Own<CreditPool::Credit>> acquire_load_room(uint64_t bytes);

 private:
  const rpc::Connection::Handle connection_;
  const bool is_unix_;
  kj::Own<CreditPool> serve_room_;
  kj::Own<CreditPool> load_room_;
  kj::Maybe<kj::Own<MappingProcess>> process_;
};

// One logged-in session, shared by the capabilities it gave out.
struct SessionState final : kj::Refcounted {
  SessionState(kj::Own<NodeCore> core, kj::Own<Peer> peer, const rpc::LoginRequest& login);
  ~SessionState() noexcept(false);

  kj::Own<NodeCore> core;
  kj::Own<Peer> peer;
  const std::string name_space;
  const LeaseId lease;
  const std::string client_name;
  std::string peer_name;  // its address, for the audit log
  const bool is_peer;     // another node's, for chunks: keeps nothing alive here
  TimePoint heard_at;
  uint64_t bytes_heard = 0;  // of its connection's, the last time that they counted as a call
  kj::Own<void> relay_use;   // keeps links to homes while the session is there
  uint32_t uploads = 0;
  uint32_t opens = 0;
  std::unordered_set<BlobId> pins;
  std::unordered_set<BlobId> revoked_pins;  // ended by others; it has not heard of it yet
  bool attached = true;

  // A line of the audit log for what this session did to a blob.
  void audit(const char* operation, const std::string& name, BlobId id,
             std::optional<uint64_t> bytes, const std::string& outcome = "ok");
  void heard() { heard_at = core->clock.now(); }  // any call is as good as a renewal
  // ... and limits::kProgressBytesMin of one that is still coming: renewals are behind it.
  void hear_bytes();
  // Once a session, however often it asks. As BlobStore::pin; ABORTED, once, if others ended it.
  Result<void> pin(BlobId id);
  void unpin(BlobId id);
  void revoke_pin(BlobId id);
  void detach();  // the session is over: stops holding the lease, the links and what it pinned
};

// The stat of a blob if the namespace owns it, else NOT_FOUND: a foreign blob looks absent.
Result<BlobStat> stat_in(const NodeCore& core, std::string_view name_space, BlobId id);

// At a home of a blob whose writer chose its homes: the ref it was created with, of all its stripes
// and unsealed.
std::optional<rpc::BlobRefData> whole_ref(const BlobStat& stat);
// For a striped blob: of all of it from the home of stripe 0, else of the stripe that is here. For
// one with replicas: with the homes that are known to have it now.
void write_ref(const NodeCore& core, const BlobStat& stat, rpc::BlobRef::Builder out);
void write_info(const NodeCore& core, const BlobStat& stat, rpc::BlobInfo::Builder out);
template <typename ResultBuilder>
void reply_error(ResultBuilder result, const Error& error) {
  rpc::write(error, result.initError());
}
void reply_void(rpc::VoidResult::Builder out, const Result<void>& result);

}  // namespace bigcast
