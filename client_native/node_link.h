#pragma once

#include <kj/async.h>
#include <kj/refcount.h>

#include <cstdint>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/ids.h"
#include "rpc/address.h"
#include "rpc/auth.h"
#include "rpc/bigcast.capnp.h"
#include "rpc/connection.h"
#include "rpc/convert.h"
#include "rpc/login.h"
#include "rpc/uv_loop.h"

namespace bigcast {

// A connection that is logged in. Lives as long as somebody uses it, alive or dead: calls on a
// dead one fail with UNAVAILABLE. On the I/O thread only, as all below.
struct NodeSession : public kj::Refcounted {
  NodeSession(kj::Own<rpc::Connection> connection_in, rpc::Session::Client session_in,
              std::string address_in)
      : connection(kj::mv(connection_in)),
        session(kj::mv(session_in)),
        address(std::move(address_in)) {}

  uint64_t bytes_moved() const { return connection->bytes_sent() + connection->bytes_received(); }

  kj::Own<rpc::Connection> connection;
  rpc::Session::Client session;  // after `connection`: goes first
  const std::string address;
};

// What a call waits for, hence what counts as progress: bytes on the connection or, if the node
// itself has to wait for a writer, also that it answers when it is asked whether it is still there.
enum class WaitsFor : uint8_t { kNode, kWriter };

// Resolves (never rejects) once there was no progress for `timeout_ms`, or so many bytes have gone
// past whatever waits here that it can't be in their queue any more.
kj::Promise<Error> stalled(rpc::UvLoop& loop, kj::Own<NodeSession> session, uint32_t timeout_ms,
                           WaitsFor waits_for = WaitsFor::kNode);

// Makes an exception an Error that names the address.
template <typename T>
kj::Promise<Result<T>> guarded(std::string address, kj::Promise<Result<T>> promise) {
  return promise.catch_([address = std::move(address)](kj::Exception&& exception) -> Result<T> {
    Error error = rpc::to_error(exception);
    error.message = address + ": " + error.message;
    return tl::unexpected<Error>(std::move(error));
  });
}

// `guarded`, and ended by DEADLINE_EXCEEDED when the connection stalls.
template <typename T>
kj::Promise<Result<T>> bounded(rpc::UvLoop& loop, NodeSession& session, uint32_t timeout_ms,
                               kj::Promise<Result<T>> promise,
                               WaitsFor waits_for = WaitsFor::kNode) {
  return guarded<T>(session.address, kj::mv(promise))
      .exclusiveJoin(
          stalled(loop, kj::addRef(session), timeout_ms, waits_for).then([](Error error) {
            return Result<T>(tl::unexpected<Error>(std::move(error)));
          }))
      .attach(kj::addRef(session));
}

// A way to one node: connects and logs in on demand, again after the connection died, and keeps
// the session (hence the lease) alive.
class NodeLink : public kj::Refcounted {
 public:
  NodeLink(rpc::UvLoop& loop, rpc::Address address, const rpc::NamespaceKey& key, LeaseId lease,
           std::string client_name, uint32_t timeout_ms);

  // The live session; connects if there is none. Callers share one attempt.
  kj::Promise<Result<kj::Own<NodeSession>>> session();
  // Renews the session if there is one; else, if `reconnect`, makes one. Never fails: a session
  // that can't be renewed is forgotten. To be called every limits::kSessionRenewMs; does nothing
  // while the last one is under way.
  kj::Promise<void> keep_alive(bool reconnect);
  // Forgets `dead`, so that the next caller gets a new connection.
  void forget(NodeSession& dead);
  const std::string& address() const { return address_text_; }
  // Whether it did not answer soon, now or in the last limits::kSilentServerMs, and not since.
  bool is_silent() const;

 private:
  kj::Promise<void> connect();
  kj::Promise<void> renew(bool reconnect);
  void adopt(kj::Own<rpc::Connection> connection, rpc::Session::Client session);
  void asked_in_vain();

  rpc::UvLoop& loop_;
  const rpc::Address address_;
  const std::string address_text_;
  const rpc::NamespaceKey key_;
  const LeaseId lease_;
  const std::string client_name_;
  const uint32_t timeout_ms_;

  kj::Maybe<kj::Own<NodeSession>> current_;
  kj::Maybe<kj::ForkedPromise<void>> connecting_;
  bool attempt_running_ = false;
  bool renewing_ = false;
  kj::TimePoint asked_at_ = kj::origin<kj::TimePoint>();  // by the attempt or renewal under way
  kj::Maybe<kj::TimePoint> silent_at_;                    // the last attempt in vain ended
  Error last_error_;
  kj::Promise<void> disconnected_ = nullptr;
};

}  // namespace bigcast
