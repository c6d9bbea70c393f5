#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "rpc/address.h"
#include "rpc/connection.h"
#include "rpc/uv_loop.h"

namespace bigcast {

struct HttpAnswer {
  int status = 200;
  std::string body = "ok\n";
  std::string type = "text/plain; charset=utf-8";
};

// A path and what answers it, on the loop: quickly, as everything else waits.
struct HttpRoute {
  std::string path;
  std::function<HttpAnswer(std::string_view query)> answer;  // what is after '?', as it came
  bool open = false;  // to all, even where there is a password
};

// Answers GET and HEAD on the node's loop: an answer says that the loop turns. What is no route is
// 404, another method 405. One request a connection. Anybody may connect, so everything is bounded:
// limits::kHttpConnectionsMax at once (the oldest makes room), kHttpRequestMax bytes of a request,
// kHttpTimeoutMs for all of it.
class HttpServer : private kj::TaskSet::ErrorHandler {
 public:
  struct Handlers {
    std::vector<HttpRoute> routes;
    // "USER:PASSWORD" (basic authentication), looked at with every request; empty: none is needed.
    std::function<std::string_view()> password = [] { return std::string_view(); };
  };

  // ALREADY_EXISTS, naming the address, if it is in use; else IO.
  static Result<std::unique_ptr<HttpServer>> start(rpc::UvLoop& loop, const rpc::Address& address,
                                                   Handlers handlers);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  const rpc::Address& address() const;  // with the port the system chose

 private:
  class Exchange;
  HttpServer(rpc::UvLoop& loop, kj::Own<rpc::Listener> listener, Handlers handlers);
  void accept(int fd);
  void close_later(uint64_t id);
  void taskFailed(kj::Exception&& exception) override;

  rpc::UvLoop& loop_;
  const Handlers handlers_;
  std::map<uint64_t, kj::Own<Exchange>> exchanges_;  // oldest first
  uint64_t next_exchange_ = 0;
  kj::Own<rpc::Listener> listener_;
  kj::TaskSet tasks_{*this};
};

}  // namespace bigcast
