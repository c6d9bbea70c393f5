#include "rpc/socket.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/limits.h"

namespace bigcast::rpc {
namespace {

constexpr int kKeepAliveIdleSeconds = 10;
constexpr int kKeepAliveIntervalSeconds = 5;
constexpr int kKeepAliveProbes = 4;

Result<SocketAddress> unix_address(const Address& address) {
  SocketAddress out;
  auto* const un = reinterpret_cast<sockaddr_un*>(&out.storage);
  if (address.path.empty() || address.path.size() >= sizeof un->sun_path) {
    return fail(ErrorCode::kInvalidArgument, "address " + address.to_string() + ": bad length");
  }
  un->sun_family = AF_UNIX;
  std::memcpy(un->sun_path, address.path.data(), address.path.size());
  // An abstract name begins with NUL and ends with the address; a path ends with NUL.
  const bool is_abstract = address.path.front() == '@';
  if (is_abstract) un->sun_path[0] = '\0';
  out.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.path.size() +
                                    (is_abstract ? 0 : 1));
  return out;
}

}  // namespace

Result<SocketAddress> to_socket_address(const Address& address) {
  if (address.kind == Address::Kind::kUnix) return unix_address(address);
  SocketAddress out;
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
  if (inet_pton(AF_INET, address.host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    out.size = sizeof *v4;
  } else if (inet_pton(AF_INET6, address.host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    out.size = sizeof *v6;
  } else {
    return fail(ErrorCode::kInvalidArgument,
                "address " + address.to_string() + ": the host is not an IP address");
  }
  return out;
}

Result<int> open_socket(const SocketAddress& address) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(ErrorCode::kIo, errno_message("socket", errno));
  return fd;
}

uint16_t bound_port(int fd) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.size) != 0) return 0;
  // The port is at the same place for both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

void set_tcp_options(int fd) {
  const auto set = [fd](int level, int name, int value) {
    (void)setsockopt(fd, level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
}

kj::Exception disconnected(std::string_view why) {
  return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                       kj::heapString(why.data(), why.size()));
}

std::string peer_name(int fd) {
  SocketAddress peer;
  peer.size = sizeof peer.storage;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer.storage), &peer.size) != 0) return "gone";
  if (peer.storage.ss_family == AF_UNIX) {
    ucred owner{};
    socklen_t size = sizeof owner;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &size) != 0) return "unix";
    return fmt::format("unix pid={} uid={}", owner.pid, owner.uid);
  }
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  const int status = getnameinfo(peer.get(), peer.size, host.data(), host.size(), port.data(),
                                 port.size(), NI_NUMERICHOST | NI_NUMERICSERV);
  if (status != 0) return "unknown";
  const bool is_v6 = peer.storage.ss_family == AF_INET6;
  return fmt::format(fmt::runtime(is_v6 ? "[{}]:{}" : "{}:{}"), host.data(), port.data());
}

bool is_trusted_peer(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         (peer.uid == geteuid() || peer.uid == 0);
}

Result<int> open_peer_process(int fd) {
#ifndef SO_PEERPIDFD
  constexpr int SO_PEERPIDFD = 77;  // Linux 6.5, newer than the headers
#endif
  int process = -1;
  socklen_t size = sizeof process;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &process, &size) == 0) return process;
  ucred peer{};
  size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0) {
    process = static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0));
    // Had it ended before that, the number might be another's by now; and the socket closed.
    pollfd socket{fd, POLLRDHUP, 0};
    if (process >= 0 && poll(&socket, 1, 0) == 0) return process;
    if (process >= 0) close(process);
  }
  return fail(ErrorCode::kUnsupported, "the peer's process can't be watched from here");
}

}  // namespace bigcast::rpc
