#include "server/http_stream.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>

namespace bigcast {
namespace {

// Of a call to the socket.
std::optional<size_t> moved(ssize_t size) {
  if (size >= 0) return static_cast<size_t>(size);
  if (errno == EAGAIN || errno == EWOULDBLOCK) return std::nullopt;
  return 0;
}

template <typename Call>
ssize_t uninterrupted(Call call) {
  ssize_t size = 0;
  do {
    size = call();
  } while (size < 0 && errno == EINTR);
  return size;
}

}  // namespace

HttpStream::HttpStream(rpc::UvLoop& loop, int fd, const TlsIdentity* tls)
    : socket_(loop.uv(), fd), ssl_(tls == nullptr ? nullptr : tls->accept(fd)) {}

HttpStream::~HttpStream() { SSL_free(ssl_); }

std::optional<size_t> HttpStream::receive(std::span<char> into) {
  if (ssl_ != nullptr) {
    size_t size = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(ssl_, into.data(), into.size(), &size);
    return outcome(result, size);
  }
  wants_to_write_ = false;
  return moved(uninterrupted([&] { return recv(socket_.fd(), into.data(), into.size(), 0); }));
}

std::optional<size_t> HttpStream::send(std::string_view bytes) {
  if (ssl_ != nullptr) {
    size_t size = 0;
    ERR_clear_error();
    const int result = SSL_write_ex(ssl_, bytes.data(), bytes.size(), &size);
    return outcome(result, size);
  }
  wants_to_write_ = true;
  return moved(uninterrupted(
      [&] { return ::send(socket_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL); }));
}

std::optional<size_t> HttpStream::outcome(int result, size_t moved) {
  if (result == 1) return moved;
  const int error = SSL_get_error(ssl_, result);
  wants_to_write_ = error == SSL_ERROR_WANT_WRITE;
  if (wants_to_write_ || error == SSL_ERROR_WANT_READ) return std::nullopt;
  return 0;
}

kj::Promise<void> HttpStream::ready() {
  return wants_to_write_ ? socket_.writable() : socket_.readable();
}

void HttpStream::end() {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    SSL_shutdown(ssl_);  // if it can't be said now, the end of the connection says it
  }
  ::shutdown(socket_.fd(), SHUT_WR);
}

}  // namespace bigcast
