#include "server/http.h"

#include <civetweb.h>
#include <fmt/format.h>

#include <array>
#include <cstring>

#include "base/limits.h"
#include "base/log.h"

namespace bigcast {

struct HttpServer::Library {
  Library() { mg_init_library(MG_FEATURES_DEFAULT); }
  ~Library() { mg_exit_library(); }
};

Result<std::unique_ptr<HttpServer>> HttpServer::start(const rpc::Address& address,
                                                      Handlers handlers) {
  std::unique_ptr<HttpServer> server(new HttpServer());
  server->library_ = std::make_unique<Library>();
  server->handlers_ = std::move(handlers);
  server->address_ = address;
  const std::string port = address.to_string();
  const std::string threads = std::to_string(limits::kHttpThreads);
  const std::array<const char*, 13> options = {"listening_ports",
                                               port.c_str(),
                                               "num_threads",
                                               threads.c_str(),
                                               "request_timeout_ms",
                                               "10000",
                                               "enable_keep_alive",
                                               "no",
                                               "max_request_size",
                                               "16384",
                                               "connection_queue",
                                               "64",
                                               nullptr};
  mg_callbacks callbacks{};
  callbacks.log_message = &HttpServer::on_log;
  server->context_ = mg_start(&callbacks, server.get(), const_cast<const char**>(options.data()));
  server->starting_ = false;
  if (server->context_ == nullptr) {
    const bool in_use = server->start_error_.find(std::strerror(EADDRINUSE)) != std::string::npos;
    return fail(
        in_use ? ErrorCode::kAlreadyExists : ErrorCode::kIo,
        fmt::format("http {}: {}", port, in_use ? "the address is in use" : server->start_error_));
  }
  mg_server_port bound{};
  if (mg_get_server_ports(server->context_, 1, &bound) == 1) {
    server->address_.port = static_cast<uint16_t>(bound.port);
  }
  mg_set_request_handler(server->context_, "**", &HttpServer::handle, server.get());
  return server;
}

HttpServer::~HttpServer() {
  if (context_ != nullptr) mg_stop(context_);
}

int HttpServer::on_log(const mg_connection* connection, const char* message) {
  const mg_context* context = mg_get_context(connection);
  auto* self = context == nullptr ? nullptr : static_cast<HttpServer*>(mg_get_user_data(context));
  // Several lines come; the first says why.
  if (self != nullptr && self->starting_ && self->start_error_.empty()) {
    self->start_error_ = message;
  }
  log().debug("http: {}", message);
  return 1;
}

int HttpServer::handle(mg_connection* connection, void* data) {
  const auto* self = static_cast<const HttpServer*>(data);
  const mg_request_info* request = mg_get_request_info(connection);
  const std::string_view path = request->local_uri;
  int status = 200;
  std::string body = "ok\n";
  const char* type = "text/plain; charset=utf-8";
  if (std::strcmp(request->request_method, "GET") != 0 &&
      std::strcmp(request->request_method, "HEAD") != 0) {
    status = 405;
    body = "only GET\n";
  } else if (path == "/metrics") {
    type = "text/plain; version=0.0.4; charset=utf-8";
    body = self->handlers_.metrics();
  } else if (path == "/readyz") {
    if (const std::string why = self->handlers_.not_ready(); !why.empty()) {
      status = 503;
      body = why + "\n";
    }
  } else if (path != "/livez") {
    status = 404;
    body = "no such page: /metrics, /livez, /readyz\n";
  }
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            status, mg_get_response_code_text(connection, status), type, body.size());
  if (std::strcmp(request->request_method, "HEAD") != 0) {
    mg_write(connection, body.data(), body.size());
  }
  return status;
}

}  // namespace bigcast
