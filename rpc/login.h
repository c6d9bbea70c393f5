#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/ids.h"
#include "rpc/auth.h"
#include "rpc/bigcast.capnp.h"
#include "rpc/connection.h"
#include "rpc/uv_loop.h"

// The login of rpc/auth.h, both halves.
namespace bigcast::rpc {

// The client's half: proves and checks, allows bulk frames, gives the session. UNAUTHENTICATED if
// either side's proof is wrong; UNSUPPORTED for another protocol version; UNAVAILABLE if the
// connection goes; DEADLINE_EXCEEDED after limits::kLoginTimeoutMs; else what the node answers.
// `is_peer`: a node that reads chunks for others; such a session keeps nothing alive there.
kj::Promise<Result<Session::Client>> login(UvLoop& loop, Connection& connection,
                                           const NamespaceKey& key, LeaseId lease,
                                           std::string client_name, bool is_peer = false);

// A client that has proven that it knows the key of name_space.
struct LoginRequest {
  std::string name_space;
  LeaseId lease;            // zero: none
  std::string client_name;  // for logs; one line
  bool is_peer;             // keeps nothing alive here
  Connection& connection;
};

struct LoginOptions {
  // The key that a client of this (well-formed) namespace must know. An error goes to the client.
  std::function<Result<NamespaceKey>(std::string_view name_space)> key_of;
  std::function<Result<Session::Client>(const LoginRequest&)> make_session;
  // An attempt began, in a namespace as the client spelt it (any bytes; before anything is
  // checked).
  std::function<void(std::string_view name_space)> on_hello = [](std::string_view) {};
  // It was refused, for this reason.
  std::function<void(const bigcast::Error& why)> on_refused = [](const bigcast::Error&) {};
};

// The server's half, for Connection::serve: a capability that can do nothing but log in, once. It
// allows bulk frames when the client has proven itself. The options are called no more once the
// connection has gone, though calls that had come by then are still run.
//
//   Connection::serve(loop, fd, is_unix,
//                     [&](Connection& c) { return make_bootstrap(c, options); });
capnp::Capability::Client make_bootstrap(Connection& connection, LoginOptions options);

}  // namespace bigcast::rpc
