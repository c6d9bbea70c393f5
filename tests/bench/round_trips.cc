#include "tests/bench/round_trips.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <functional>
#include <span>
#include <system_error>
#include <thread>

namespace bigcast::bench {

namespace {

using Bytes = std::span<std::byte>;

int check(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

struct Ends {
  int client;
  int server;
};

Ends unix_pair() {
  int ends[2];
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
  return {ends[0], ends[1]};
}

Ends tcp_pair() {
  const int listener = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  check(bind(listener, any, size), "bind");
  check(listen(listener, 1), "listen");
  check(getsockname(listener, any, &size), "getsockname");
  const int client = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  check(connect(client, any, size), "connect");
  const int server = check(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), "accept");
  close(listener);
  const int on = 1;
  for (const int end : {client, server}) {
    check(setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
  }
  return {client, server};
}

// False at the other end's end.
bool move_all(int fd, Bytes bytes, bool receives) {
  while (!bytes.empty()) {
    const ssize_t moved = receives ? recv(fd, bytes.data(), bytes.size(), 0)
                                   : send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (moved <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(moved));
  }
  return true;
}

class Trips {
 public:
  explicit Trips(const RoundTripOptions& options) : options_(options) {
    uint32_t most = options.request_bytes;
    for (const uint32_t each : options.answer_bytes) most = std::max(most, each);
    buffer_.resize(most);
  }
  bool run(int fd, bool serves) {
    return std::ranges::all_of(options_.answer_bytes, [&](uint32_t answer) {
      return move_all(fd, Bytes(buffer_).first(options_.request_bytes), serves) &&
             move_all(fd, Bytes(buffer_).first(answer), !serves);
    });
  }

 private:
  const RoundTripOptions& options_;
  std::vector<std::byte> buffer_;
};

[[noreturn]] void serve(const RoundTripOptions& options, const std::vector<Ends>& ends) {
  std::vector<std::thread> threads;
  for (const Ends& each : ends) {
    close(each.client);
    threads.emplace_back([&options, fd = each.server] {
      Trips trips(options);
      while (trips.run(fd, true)) {
      }
    });
  }
  for (auto& thread : threads) thread.join();
  _exit(0);
}

}  // namespace

Result<Latency> measure_round_trips(const RoundTripOptions& options) {
  std::vector<Ends> ends;
  for (uint32_t i = 0; i < options.clients; ++i) {
    ends.push_back(options.tcp ? tcp_pair() : unix_pair());
  }
  const pid_t server = check(fork(), "fork");
  if (server == 0) serve(options, ends);
  std::vector<std::function<Result<void>()>> calls;
  for (const Ends& each : ends) {
    close(each.server);
    calls.emplace_back([trips = Trips(options), fd = each.client]() mutable -> Result<void> {
      if (trips.run(fd, false)) return {};
      return fail(ErrorCode::kUnavailable, "round trips: the other process ended");
    });
  }
  auto latency = measure_calls(calls, options.count);
  for (const Ends& each : ends) close(each.client);
  waitpid(server, nullptr, 0);
  return latency;
}

}  // namespace bigcast::bench
