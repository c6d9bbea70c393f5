#include <fmt/format.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "base/limits.h"
#include "base/log.h"
#include "rpc/connection.h"
#include "rpc/polled_fd.h"
#include "rpc/socket.h"

namespace bigcast::rpc {
namespace {

constexpr int kBacklog = 512;
constexpr int kAcceptsPerTurn = 64;
constexpr mode_t kSocketFileMode = 0600;

// Which file a socket file is, so that we never remove another's.
struct FileId {
  dev_t device;
  ino_t inode;
  bool operator==(const FileId&) const = default;
};

std::optional<FileId> socket_file(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return {};
  return FileId{status.st_dev, status.st_ino};
}

class ListenerImpl final : public Listener {
 public:
  ListenerImpl(UvLoop& loop, int fd, Address address, std::optional<FileId> file)
      : loop_(loop), socket_(loop.uv(), fd), address_(std::move(address)), file_(file) {}

  ~ListenerImpl() noexcept(false) override {
    if (file_ && socket_file(address_.path) == file_) unlink(address_.path.c_str());
  }

  const Address& address() const override { return address_; }

  kj::Promise<void> accept_loop(kj::Function<void(int, bool)> on_accept) override {
    auto callback = kj::heap(kj::mv(on_accept));
    auto running = accept_some(*callback);
    return running.attach(kj::mv(callback));
  }

 private:
  kj::Promise<void> accept_some(kj::Function<void(int, bool)>& on_accept) {
    // KJ keeps a reference to an lvalue that it is given, hence the moves.
    auto again = [this, &on_accept]() { return accept_some(on_accept); };
    const bool is_unix = address_.kind == Address::Kind::kUnix;
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
      const int fd = accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        if (is_unix && !is_trusted_peer(fd)) {
          log().warn("connection refused peer=\"{}\" reason=\"another user's\"", peer_name(fd));
          close(fd);
        } else {
          on_accept(fd, is_unix);
        }
        continue;
      }
      switch (errno) {
        case EAGAIN:
          return socket_.readable().then(kj::mv(again));
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
          return loop_.timer()
              .afterDelay(limits::kAcceptPauseMs * kj::MILLISECONDS)
              .then(kj::mv(again));
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
        case EOPNOTSUPP:
        case EFAULT:
          KJ_FAIL_SYSCALL("accept4", errno, address_.to_string().c_str());
        default:
          break;  // this connection has gone already; the next may be well
      }
    }
    return kj::evalLater(kj::mv(again));
  }

  UvLoop& loop_;
  PolledFd socket_;
  Address address_;
  std::optional<FileId> file_;
};

tl::unexpected<bigcast::Error> cannot_listen(const Address& address, int error_number) {
  const auto code = error_number == EADDRINUSE ? ErrorCode::kAlreadyExists : ErrorCode::kIo;
  return fail(code, errno_message("listen on " + address.to_string(), error_number));
}

// A socket file that nobody listens on was left by a node that was killed.
bool remove_if_stale(const Address& address, const SocketAddress& target) {
  if (address.kind != Address::Kind::kUnix || address.path.front() == '@') return false;
  if (!socket_file(address.path)) return false;
  const auto probe = open_socket(target);
  if (!probe) return false;
  const int status = connect(*probe, target.get(), target.size);
  const bool is_stale = status != 0 && errno == ECONNREFUSED;
  close(*probe);
  return is_stale && unlink(address.path.c_str()) == 0;
}

int bind_and_listen(int fd, const Address& address, const SocketAddress& target) {
  const int on = 1;
  if (address.kind == Address::Kind::kTcp) {
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  } else {
    (void)fchmod(fd, kSocketFileMode);  // what bind gives the file, so that it is never wider
  }
  int status = bind(fd, target.get(), target.size);
  if (status != 0 && errno == EADDRINUSE && remove_if_stale(address, target)) {
    status = bind(fd, target.get(), target.size);
  }
  if (status != 0 || ::listen(fd, kBacklog) != 0) return errno;
  return 0;
}

}  // namespace

Result<kj::Own<Listener>> Listener::listen(UvLoop& loop, const Address& address) {
  BIGCAST_ASSIGN(const SocketAddress target, to_socket_address(address));
  BIGCAST_ASSIGN(const int fd, open_socket(target));
  const int error_number = bind_and_listen(fd, address, target);
  if (error_number != 0) {
    close(fd);
    return cannot_listen(address, error_number);
  }
  Address bound = address;
  std::optional<FileId> file;
  if (address.kind == Address::Kind::kTcp) {
    bound.port = bound_port(fd);
  } else if (address.path.front() != '@') {
    file = socket_file(address.path);
  }
  return kj::Own<Listener>(kj::heap<ListenerImpl>(loop, fd, std::move(bound), file));
}

}  // namespace bigcast::rpc
