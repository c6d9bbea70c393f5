#pragma once

#include <kj/exception.h>
#include <sys/socket.h>

#include <string>
#include <string_view>

#include "base/error.h"
#include "rpc/address.h"

namespace bigcast::rpc {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// INVALID_ARGUMENT unless the host is an IP address, or if a path is too long.
Result<SocketAddress> to_socket_address(const Address& address);

// A non-blocking stream socket of the address's family that is closed on exec. IO.
Result<int> open_socket(const SocketAddress& address);

// The port that a bound TCP socket got.
uint16_t bound_port(int fd);

// What becomes of a call whose connection has ended.
kj::Exception disconnected(std::string_view why);

// No Nagle delay; dead peers are noticed within about 30 s.
void set_tcp_options(int fd);

// Who is at the other end, for the log: "10.0.0.7:41234", or "unix pid=77 uid=1000".
std::string peer_name(int fd);

// Whether the process at the other end of a Unix socket runs as our user or as root.
bool is_trusted_peer(int fd);

// A descriptor of the process that connected a Unix socket, which is readable once it has ended;
// the caller closes it. UNSUPPORTED if it can't be had: another pid namespace, an old kernel.
Result<int> open_peer_process(int fd);

}  // namespace bigcast::rpc
