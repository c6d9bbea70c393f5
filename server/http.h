#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "rpc/address.h"

struct mg_connection;
struct mg_context;

namespace bigcast {

// GET /metrics, /livez and /readyz, on threads of its own. Everything else is 404 or 405.
class HttpServer {
 public:
  struct Handlers {  // called on any thread
    std::function<std::string()> metrics;
    std::function<std::string()> not_ready;  // why not; empty: ready
  };

  // ALREADY_EXISTS, naming the address, if it is in use; else IO.
  static Result<std::unique_ptr<HttpServer>> start(const rpc::Address& address, Handlers handlers);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  const rpc::Address& address() const { return address_; }  // with the port the system chose

 private:
  struct Library;
  HttpServer() = default;
  static int handle(mg_connection* connection, void* self);
  static int on_log(const mg_connection* connection, const char* message);

  std::unique_ptr<Library> library_;  // first in, last out
  Handlers handlers_;
  rpc::Address address_;
  std::string start_error_;  // written while starting, by the thread that starts
  std::atomic<bool> starting_{true};
  mg_context* context_ = nullptr;
};

}  // namespace bigcast
