#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "server/core.h"

namespace bigcast {

// This node's session at another node, shared by all blobs of a namespace and lease. It connects
// when it is asked to and renews the session until it is dropped. A node that does not answer a
// renewal counts as lost.
//
// Two kinds, so that small calls never wait behind chunks: kControl, to a home, attaches to the
// readers' lease and so renews it; kBulk, to whoever has chunks, keeps nothing alive there.
class PeerLink final : public kj::Refcounted {
 public:
  enum class Kind : uint8_t { kControl, kBulk };
  PeerLink(kj::Own<NodeCore> core, Kind kind, rpc::Address address, std::string name_space,
           LeaseId lease);
  ~PeerLink() noexcept(false);

  struct Open {
    rpc::Session::Client session;
    uint64_t generation;  // of the connection: different for all links of the node
    rpc::Connection::Handle connection;
  };
  // Connects if need be; all who wait share one attempt. UNAVAILABLE, UNAUTHENTICATED, ...
  kj::Promise<Result<Open>> open();

  bool is_current(uint64_t generation) const {
    return session_ != nullptr && generation == generation_;
  }
  // Gives up the connection if it is still that one.
  void lost(uint64_t generation);
  void close() { lost(generation_); }
  const rpc::Address& address() const { return address_; }
  // Why it could not connect the last time it was asked to; null: it could, or was not asked.
  const Error* failure() const { return attempt_failed_ ? &error_ : nullptr; }
  TimePoint used_at() const { return used_at_; }  // when it was asked for last

 private:
  kj::Promise<void> connect();
  kj::Promise<void> log_in(kj::Own<rpc::Connection> connection);
  kj::Promise<void> keep_alive(uint64_t generation);

  kj::Own<NodeCore> core_;
  const Kind kind_;
  const rpc::Address address_;
  const std::string name_space_;
  const LeaseId lease_;
  TimePoint used_at_;
  uint64_t generation_ = 0;
  Error error_{ErrorCode::kUnavailable, "never connected"};
  kj::Own<rpc::Connection> connection_;
  kj::Maybe<rpc::Session::Client> session_;
  bool connecting_ = false;
  bool attempt_failed_ = false;
  kj::Maybe<kj::ForkedPromise<void>> attempt_;
  kj::Maybe<kj::Promise<void>> keeper_;  // renews, and notices the disconnect
};

// Links of kind kBulk, without a lease, one a namespace and node: shared by all who use them at a
// time.
class PeerLinks {
 public:
  explicit PeerLinks(NodeCore& core) : core_(core) {}
  kj::Own<PeerLink> get(const std::string& name_space, const rpc::Address& address);
  void close_unused();  // those that only this has
  void clear();         // closes all

 private:
  NodeCore& core_;
  std::map<std::pair<std::string, std::string>, kj::Own<PeerLink>> links_;  // namespace, address
};

}  // namespace bigcast
