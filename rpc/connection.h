#pragma once

#include <capnp/capability.h>
#include <capnp/orphan.h>
#include <kj/async.h>
#include <kj/function.h>
#include <kj/memory.h>

#include <cstdint>
#include <memory>

#include "base/error.h"
#include "base/secret.h"
#include "rpc/address.h"
#include "rpc/auth.h"
#include "rpc/bigcast.capnp.h"
#include "rpc/uv_loop.h"

namespace bigcast::rpc {

// One Cap'n Proto RPC connection over a socket that libuv polls (an own VatNetwork). Frames are at
// most limits::kPreLoginFrameMax until allow_bulk(), then limits::kFrameMax; a frame with a bad
// segment table (no segments, too many, too long) closes the connection before Cap'n Proto sees
// it. Unix sockets pass descriptors. A connection that has bytes to send and moves none for
// limits::kProgressTimeoutMs is closed. Lives on its loop's thread; destroying it closes the socket
// and rejects all calls.
class Connection {
 public:
  // UNAVAILABLE, naming the address, if nobody answers within limits::kConnectTimeoutMs.
  static kj::Promise<Result<kj::Own<Connection>>> connect(UvLoop& loop, const Address& address);
  // Takes over a connected, non-blocking socket and serves `bootstrap` on it.
  static kj::Own<Connection> serve(UvLoop& loop, int fd, bool is_unix,
                                   capnp::Capability::Client bootstrap);
  virtual ~Connection() noexcept(false) = default;

  virtual capnp::Capability::Client bootstrap() = 0;  // of the other side
  virtual void allow_bulk() = 0;                      // after login
  virtual bool is_unix() const = 0;                   // descriptors can be passed
  virtual kj::Promise<void> on_disconnect() = 0;      // may be called several times
  virtual uint64_t bytes_sent() const = 0;
  virtual uint64_t bytes_received() const = 0;

  // For a server method that is about to fill its results on this connection with
  // `orphan referencing external memory`: keeps `pin` until the message that carries the results
  // was written or dropped. Call right after context.getResults(), in the same turn of the loop.
  // Returns false (and pin stays untouched) if there is no such message, as in a local or
  // redirected call: then copy instead.
  virtual bool pin_last_message(kj::Own<void>& pin) = 0;
};

// Makes a results builder's Data field refer to `bytes` (8-byte aligned; readable up to the next
// multiple of 8, padding zeroed) without copying and keeps `pin` alive until they are sent; copies
// them when the call does not come over `connection`. Call right after context.getResults().
//
//   auto chunk = context.getResults().initResult().initChunk();
//   reply_external(connection, chunk, bytes, kj::mv(buffer));   // needs chunk.adoptData/setData
template <typename Builder>
void reply_external(Connection& connection, Builder results, capnp::Data::Reader bytes,
                    kj::Own<void> pin) {
  if (connection.pin_last_message(pin)) {
    results.adoptData(
        capnp::Orphanage::getForMessageContaining(results).referenceExternalData(bytes));
  } else {
    results.setData(bytes);
  }
}

// Listens on one address. Lives on its loop's thread; destroying it stops listening, and removes
// the socket file of a pathname socket.
class Listener {
 public:
  // ALREADY_EXISTS if the address is in use (a stale socket file that nobody answers on is
  // replaced); IO otherwise. Both name the address. A pathname socket has mode 0600.
  static Result<kj::Own<Listener>> listen(UvLoop& loop, const Address& address);
  virtual ~Listener() noexcept(false) = default;
  virtual const Address& address() const = 0;  // with the port that the system chose
  // Calls `on_accept(fd, is_unix)` for each connection (the callee owns fd) until the promise is
  // dropped. When descriptors run out it pauses and goes on; it never spins.
  virtual kj::Promise<void> accept_loop(kj::Function<void(int fd, bool is_unix)> on_accept) = 0;
};

// The client's half of login: proves and checks, allows bulk frames, gives the session.
// UNAUTHENTICATED if either side's proof is wrong; UNSUPPORTED for another protocol version;
// DEADLINE_EXCEEDED after limits::kLoginTimeoutMs.
kj::Promise<Result<Session::Client>> login(UvLoop& loop, Connection& connection,
                                           const NamespaceKey& key, LeaseId lease,
                                           std::string client_name);

}  // namespace bigcast::rpc
