#pragma once

#include <kj/async.h>
#include <openssl/types.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "rpc/polled_fd.h"
#include "rpc/uv_loop.h"
#include "server/tls.h"

namespace bigcast {

// The bytes of one HTTP connection, in clear or in TLS. On the loop's thread.
class HttpStream {
 public:
  // Owns the socket. `tls` null: in clear. The handshake is a part of the first receive().
  HttpStream(rpc::UvLoop& loop, int fd, const TlsIdentity* tls);
  ~HttpStream();
  HttpStream(const HttpStream&) = delete;
  HttpStream& operator=(const HttpStream&) = delete;

  // How many bytes there were; 0: none will come. Nothing: again once ready() is.
  std::optional<size_t> receive(std::span<char> into);
  // How many were taken; 0: none will be. Nothing: the same again once ready() is.
  std::optional<size_t> send(std::string_view bytes);
  // For what the last call could not do.
  kj::Promise<void> ready();
  // Tells them that nothing more will be sent.
  void end();

 private:
  std::optional<size_t> outcome(int result, size_t moved);

  rpc::PolledFd socket_;
  SSL* ssl_ = nullptr;  // null: in clear
  bool wants_to_write_ = false;
};

}  // namespace bigcast
