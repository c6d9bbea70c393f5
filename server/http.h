#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "rpc/address.h"
#include "rpc/connection.h"
#include "rpc/uv_loop.h"
#include "server/tls.h"

namespace bigcast {

struct HttpRequest {
  std::string_view method;
  std::string_view path;           // without what follows a '?'
  std::string_view query;          // that
  std::string_view authorization;  // of "Authorization: Basic", as it came; empty: none

  // The value of `name` in the query, decoded; nothing if it is not there.
  std::optional<std::string> parameter(std::string_view name) const;
};

struct HttpAnswer {
  int status = 200;
  std::string body = "ok\n";
  std::string_view type = "text/plain; charset=utf-8";
};

// Answers GET and HEAD on the node's loop: an answer says that the loop turns. Another method is
// 405. One request a connection. Anybody may connect, so everything is bounded:
// limits::kHttpConnectionsMax at once (the oldest makes room), kHttpRequestMax bytes of a request,
// kHttpTimeoutMs for all of it.
class HttpServer : private kj::TaskSet::ErrorHandler {
 public:
  // What answers a request, quickly, as everything else waits; nothing: no such page.
  using Pages = std::function<std::optional<HttpAnswer>(const HttpRequest&)>;
  struct Handlers {
    Pages open;     // to everybody
    Pages guarded;  // to those who know the password: all other pages
    // "USER:PASSWORD" (basic authentication), looked at with every request; empty: none is needed.
    std::function<std::string_view()> password;
    // For the connections that come; null: they are in clear.
    std::function<std::shared_ptr<const TlsIdentity>()> tls;
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
