#include "rpc/bulk_socket.h"

#include <fcntl.h>
#include <kj/exception.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/error.h"
#include "base/limits.h"
#include "rpc/polled_fd.h"
#include "rpc/progress.h"
#include "rpc/socket.h"

namespace bigcast::rpc {
namespace {

// After so much of one transfer the others of its thread have a turn.
constexpr size_t kBytesPerTurn = 1 * limits::kMiB;

bool would_block(int error_number) { return error_number == EAGAIN || error_number == EWOULDBLOCK; }

}  // namespace

IoThreads::IoThreads(size_t count) {
  for (size_t i = 0; i < count; ++i) threads_.push_back(std::make_unique<Thread>());
}

IoThreads::~IoThreads() = default;

size_t IoThreads::default_count() {
  return std::clamp<size_t>(std::thread::hardware_concurrency() / 2, 1, limits::kIoThreadsMax);
}

IoThreads::Thread& IoThreads::least_used() {
  return **std::ranges::min_element(threads_, {},
                                    [](const auto& thread) { return thread->sockets.load(); });
}

// Lives on the I/O thread.
class BulkSocket::Socket {
 public:
  Socket(UvLoop& loop, int fd) : loop_(loop), socket_(loop.uv(), fd) {}

  kj::Promise<void> receiving = nullptr;  // the transfers that run
  kj::Promise<void> sending = nullptr;

  kj::Promise<void> receive(std::span<std::byte> target, std::atomic<uint64_t>& moved) {
    for (size_t turn = 0; !target.empty() && turn < kBytesPerTurn;) {
      const ssize_t size =
          recv(socket_.fd(), target.data(), std::min(target.size(), kBytesPerTurn - turn), 0);
      if (size > 0) {
        const auto bytes = static_cast<size_t>(size);
        moved += bytes;
        turn += bytes;
        target = target.subspan(bytes);
      } else if (size == 0) {
        return disconnected("the peer closed the connection within a frame");
      } else if (would_block(errno)) {
        return socket_.readable().then([this, target, &moved] { return receive(target, moved); });
      } else if (errno != EINTR) {
        return disconnected(errno_message("receive", errno));
      }
    }
    if (target.empty()) return kj::READY_NOW;
    return kj::evalLater([this, target, &moved] { return receive(target, moved); });
  }

  kj::Promise<void> send(std::vector<iovec> pieces, std::atomic<uint64_t>& moved) {
    pieces_ = std::move(pieces);
    next_ = 0;
    deadline_.start(loop_.timer().now());
    return send_rest(moved);
  }

 private:
  kj::Promise<void> send_rest(std::atomic<uint64_t>& moved) {
    for (size_t turn = 0; next_ < pieces_.size() && turn < kBytesPerTurn;) {
      msghdr header{};
      header.msg_iov = &pieces_[next_];
      header.msg_iovlen = pieces_.size() - next_;
      const ssize_t size = sendmsg(socket_.fd(), &header, MSG_NOSIGNAL);
      if (size >= 0) {
        moved += static_cast<size_t>(size);
        turn += static_cast<size_t>(size);
        deadline_.sent(static_cast<size_t>(size), loop_.timer().now());
        consume(static_cast<size_t>(size));
      } else if (would_block(errno)) {
        return socket_.writable().exclusiveJoin(deadline_.passed(loop_)).then([this, &moved] {
          return send_rest(moved);
        });
      } else if (errno != EINTR) {
        return disconnected(errno_message("send", errno));
      }
    }
    if (next_ == pieces_.size()) return kj::READY_NOW;
    return kj::evalLater([this, &moved] { return send_rest(moved); });
  }

  void consume(size_t bytes) {
    while (bytes > 0) {
      iovec& piece = pieces_[next_];
      const size_t part = std::min(piece.iov_len, bytes);
      piece.iov_base = static_cast<std::byte*>(piece.iov_base) + part;
      piece.iov_len -= part;
      bytes -= part;
      if (piece.iov_len == 0) ++next_;
    }
  }

  UvLoop& loop_;
  PolledFd socket_;
  std::vector<iovec> pieces_;
  size_t next_ = 0;
  SendDeadline deadline_;
};

kj::Maybe<kj::Own<BulkSocket>> BulkSocket::open(UvLoop& loop, IoThreads& threads, int fd) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return nullptr;
  return kj::heap<BulkSocket>(loop, threads.least_used(), copy);
}

BulkSocket::BulkSocket(UvLoop& loop, IoThreads::Thread& thread, int fd)
    : loop_(loop), thread_(thread) {
  thread_.io.run([&] { socket_ = std::make_unique<Socket>(thread_.io.loop(), fd); });
  ++thread_.sockets;
}

BulkSocket::~BulkSocket() noexcept(false) {
  --thread_.sockets;
  thread_.io.run([this] { socket_ = nullptr; });
}

kj::Promise<void> BulkSocket::receive(std::span<std::byte> target, std::atomic<uint64_t>& moved) {
  return run(&Socket::receiving,
             [target, &moved](Socket& socket) { return socket.receive(target, moved); });
}

kj::Promise<void> BulkSocket::send(std::vector<iovec> pieces, std::atomic<uint64_t>& moved) {
  return run(&Socket::sending, [pieces = std::move(pieces), &moved](Socket& socket) {
    return socket.send(pieces, moved);
  });
}

// Each thread touches its own promises only; both hold `waiting`, whose fulfiller is the
// connection's thread's and null by the time that the I/O thread may be the last to let go.
kj::Promise<void> BulkSocket::run(kj::Promise<void> Socket::*running, Transfer transfer) {
  struct Waiting {
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto waiting = std::make_shared<Waiting>();
  waiting->fulfiller = kj::mv(paf.fulfiller);
  const auto finish = [&loop = loop_, waiting](const std::string& error) {
    loop.post([waiting, error] {
      auto fulfiller = kj::mv(waiting->fulfiller);
      if (fulfiller.get() == nullptr) return;
      if (error.empty()) {
        fulfiller->fulfill();
      } else {
        fulfiller->reject(disconnected(error));
      }
    });
  };
  thread_.io.loop().post([this, running, transfer = std::move(transfer), finish] {
    (*socket_).*running =
        transfer(*socket_)
            .then([finish] { finish({}); },
                  [finish](kj::Exception&& why) { finish(why.getDescription().cStr()); })
            .eagerlyEvaluate(nullptr);
  });
  return paf.promise.attach(kj::defer([this, running, waiting] {
    if (waiting->fulfiller.get() == nullptr) return;
    waiting->fulfiller = nullptr;
    thread_.io.run([this, running] { (*socket_).*running = nullptr; });
  }));
}

}  // namespace bigcast::rpc
