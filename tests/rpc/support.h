#pragma once

#include <capnp/capability.h>
#include <kj/async.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/secret.h"
#include "rpc/bulk_socket.h"
#include "rpc/connection.h"
#include "rpc/uv_loop.h"

// A server and clients on one loop. The server is the real listener and the real connections.
namespace bigcast::rpc::testing {

template <typename T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  return std::move(*result);
}

inline std::string abstract_name(const std::string& what) {
  return "@bigcast-test-" + std::to_string(getpid()) + "-" + what;
}

inline Address tcp() { return Address::tcp("127.0.0.1", 0); }

inline Secret secret_of(char c) { return Secret::from_text(std::string(32, c), "test").value(); }

// With I/O threads, as a node.
class TestServer {
 public:
  using MakeBootstrap = std::function<capnp::Capability::Client(Connection&)>;

  TestServer(UvLoop& loop, const Address& address, MakeBootstrap make_bootstrap)
      : loop_(loop),
        make_bootstrap_(std::move(make_bootstrap)),
        listener_(value_of(Listener::listen(loop, address))),
        accepting_(listener_->accept_loop([this](int fd, bool is_unix) { add(fd, is_unix); })
                       .eagerlyEvaluate(nullptr)) {}

  const Address& address() const { return listener_->address(); }
  std::vector<kj::Own<Connection>>& connections() { return connections_; }
  size_t disconnected() const { return disconnected_; }
  void add(int fd, bool is_unix) {  // serves a connected socket, as those that it accepts
    auto connection = Connection::serve(
        loop_, fd, is_unix, [this](Connection& c) { return make_bootstrap_(c); }, &threads_);
    watches_.push_back(
        connection->on_disconnect().then([this]() { ++disconnected_; }).eagerlyEvaluate(nullptr));
    connections_.push_back(kj::mv(connection));
  }

  kj::Own<Connection> connect() { return connect_with(nullptr); }  // as a client does
  kj::Own<Connection> connect_as_node() { return connect_with(&threads_); }

 private:
  kj::Own<Connection> connect_with(rpc::IoThreads* threads) {
    return value_of(Connection::connect(loop_, address(), threads).wait(loop_.wait_scope()));
  }

  UvLoop& loop_;
  rpc::IoThreads threads_{2};
  MakeBootstrap make_bootstrap_;
  size_t disconnected_ = 0;
  std::vector<kj::Own<Connection>> connections_;
  std::vector<kj::Promise<void>> watches_;
  kj::Own<Listener> listener_;
  kj::Promise<void> accepting_;
};

// A socket without any protocol, for what a broken or hostile peer does. Blocking.
class RawSocket {
 public:
  explicit RawSocket(const Address& address);
  ~RawSocket() { ::close(fd_); }
  RawSocket(const RawSocket&) = delete;
  RawSocket& operator=(const RawSocket&) = delete;
  int fd() const { return fd_; }
  void send(const std::vector<uint32_t>& words) {
    (void)!::send(fd_, words.data(), words.size() * 4, MSG_NOSIGNAL);
  }

 private:
  int fd_;
};

// Runs the loop until `condition` holds; false after `timeout_ms`.
template <typename Condition>
bool run_until(UvLoop& loop, Condition condition, int timeout_ms = 20'000) {
  for (int waited = 0; waited < timeout_ms; waited += 2) {
    if (condition()) return true;
    loop.timer().afterDelay(2 * kj::MILLISECONDS).wait(loop.wait_scope());
  }
  return condition();
}

}  // namespace bigcast::rpc::testing
