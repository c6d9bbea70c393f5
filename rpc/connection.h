#pragma once

#include <capnp/any.h>
#include <capnp/capability.h>
#include <capnp/orphan.h>
#include <kj/async.h>
#include <kj/function.h>
#include <kj/memory.h>

#include <cstdint>
#include <memory>

#include "base/error.h"
#include "rpc/address.h"
#include "rpc/uv_loop.h"

namespace bigcast::rpc {

class IoThreads;

// One Cap'n Proto RPC connection over a socket that libuv polls (an own VatNetwork). Frames are at
// most limits::kPreLoginFrameMax until allow_bulk(), then limits::kFrameMax; a frame with a bad
// segment table (no segments, too many, too long) closes the connection before Cap'n Proto sees
// it. Unix sockets pass descriptors. A connection that has bytes to send and moves less than
// limits::kProgressBytesMin within limits::kProgressTimeoutMs is closed. A peer may have
// limits::kCallsPerConnectionMax calls open. With `threads`, parts of frames from
// limits::kBulkBytesMin on are moved by those. Lives on its loop's thread; destroying it closes the
// socket and rejects all calls. Don't destroy it inside a method that it serves.
//
// KJ runs a method that was called to its end, even after the connection is gone, unless the method
// has called context.allowCancellation(): what waits must not use a Connection& afterwards, but
// look whether *handle() is still there.
class Connection {
 public:
  // UNAVAILABLE, naming the address, if nobody answers within limits::kConnectTimeoutMs.
  static kj::Promise<Result<kj::Own<Connection>>> connect(UvLoop& loop, const Address& address,
                                                          IoThreads* threads = nullptr);
  // Takes over a connected, non-blocking socket and serves on it what `make_bootstrap` gives. The
  // connection is closed unless allow_bulk() is called within limits::kLoginTimeoutMs.
  static kj::Own<Connection> serve(
      UvLoop& loop, int fd, bool is_unix,
      kj::Function<capnp::Capability::Client(Connection&)> make_bootstrap,
      IoThreads* threads = nullptr);
  virtual ~Connection() noexcept(false) = default;

  virtual capnp::Capability::Client bootstrap() = 0;  // of the other side
  virtual void allow_bulk() = 0;                      // after login
  virtual bool is_unix() const = 0;                   // descriptors can be passed
  virtual Result<int> open_peer_process() = 0;        // rpc/socket.h
  virtual kj::Promise<void> on_disconnect() = 0;      // may be called several times
  virtual uint64_t bytes_sent() const = 0;
  virtual uint64_t bytes_received() const = 0;

  // *handle() is this connection, and null once it is destroyed.
  using Handle = std::shared_ptr<Connection* const>;
  virtual Handle handle() = 0;
};

// Keeps `pin` until the outgoing message that `inside` points into was written or dropped. That
// must be the message which this thread made last: call it right after context.getResults().
// Returns false, and leaves pin alone, if it is not, as in a call that did not come over a
// Connection: then copy instead.
bool pin_last_message(const void* inside, kj::Own<void>& pin);

// Makes the `data` field of a results builder refer to `bytes` (8-byte aligned; readable up to the
// next multiple of 8, padding zeroed) without copying, and keeps `pin` alive until they are sent;
// copies them when the call did not come over a Connection. Call it right after
// context.getResults(), in the same turn of the loop.
//
//   reply_external(context.getResults().initResult().initChunk(), bytes, kj::mv(buffer));
template <typename Builder>
void reply_external(Builder results, capnp::Data::Reader bytes, kj::Own<void> pin) {
  if (pin_last_message(capnp::AnyStruct::Builder(Builder(results)).getDataSection().begin(), pin)) {
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

}  // namespace bigcast::rpc
