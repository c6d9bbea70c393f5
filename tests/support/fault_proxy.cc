#include "tests/support/fault_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

namespace bigcast::test {

namespace {

constexpr int kPollMs = 50;  // how soon a proxy notices that it is to stop

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

FaultProxy::FaultProxy() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  auto address = loopback(0);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 16) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("fault proxy: no port");
  }
  address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  acceptor_ = std::thread([this]() { accept_loop(); });
}

FaultProxy::~FaultProxy() {
  stopping_ = true;
  acceptor_.join();
  for (auto& server : servers_) server.join();
  close(listener_);
}

void FaultProxy::forward_to(const std::string& host_port) {
  port_ = std::stoi(host_port.substr(host_port.rfind(':') + 1));
}

void FaultProxy::accept_loop() {
  while (!stopping_) {
    pollfd waiting{listener_, POLLIN, 0};
    if (poll(&waiting, 1, kPollMs) <= 0) continue;
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client >= 0) servers_.emplace_back([this, client]() { serve(client); });
  }
}

void FaultProxy::serve(int client) {
  const int node = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto address = loopback(port_);
  uint64_t up = 0;
  uint64_t down = 0;
  bool open = connect(node, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  while (open && !stopping_) {
    const bool clogged = clog_after_ != 0 && down >= clog_after_;
    std::array<pollfd, 2> waiting{{{client, POLLIN, 0}, {clogged ? -1 : node, POLLIN, 0}}};
    if (poll(waiting.data(), waiting.size(), kPollMs) <= 0) continue;
    if (waiting[0].revents != 0) open = pump(client, node, false, up);
    if (open && waiting[1].revents != 0) open = pump(node, client, true, down);
  }
  close(node);
  close(client);
}

bool FaultProxy::pump(int from, int to, bool damage, uint64_t& passed) {
  std::array<char, 64 * 1024> buffer;
  const ssize_t got = recv(from, buffer.data(), buffer.size(), 0);
  if (got <= 0) return false;
  const auto size = static_cast<uint64_t>(got);
  if (const uint64_t period = period_; damage && period != 0) {
    for (uint64_t at = (passed / period + 1) * period; at < passed + size; at += period) {
      buffer[at - passed] ^= 0x10;
      ++flips_;
    }
  }
  passed += size;
  return send(to, buffer.data(), size, MSG_NOSIGNAL) == got;
}

}  // namespace bigcast::test
