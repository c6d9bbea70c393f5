#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "rpc/io_thread.h"

namespace bigcast::rpc {

// A node's I/O threads: they move the large parts of frames, so that the loop that serves the calls
// of all connections never stands in a large copy. Must outlive the connections that use it.
class IoThreads {
 public:
  explicit IoThreads(size_t count);
  ~IoThreads();
  // Half of the processors that this process may use, at least 1, at most limits::kIoThreadsMax.
  static size_t default_count();

  size_t size() const { return threads_.size(); }

 private:
  friend class BulkSocket;
  struct Thread {
    IoThread io;
    std::atomic<size_t> sockets{0};
  };
  Thread& least_used();

  std::vector<std::unique_ptr<Thread>> threads_;
};

// The large transfers of one connection's socket, on an I/O thread. It watches a descriptor of its
// own for the same socket. Use it on the connection's thread; at most one transfer a direction.
// Dropping a transfer's promise waits until the I/O thread no longer uses its memory.
class BulkSocket {
 public:
  // `loop`: the connection's. Null if there are no descriptors left.
  static kj::Maybe<kj::Own<BulkSocket>> open(UvLoop& loop, IoThreads& threads, int fd);
  BulkSocket(UvLoop& loop, IoThreads::Thread& thread, int fd);  // takes over `fd`
  ~BulkSocket() noexcept(false);

  // Fills `target`. Counts the bytes in `moved` as they come. Rejects with DISCONNECTED.
  kj::Promise<void> receive(std::span<std::byte> target, std::atomic<uint64_t>& moved);
  // Sends all of `pieces`; DISCONNECTED also if the peer takes less than limits::kProgressBytesMin
  // within limits::kProgressTimeoutMs.
  kj::Promise<void> send(std::vector<iovec> pieces, std::atomic<uint64_t>& moved);

 private:
  class Socket;
  using Transfer = std::function<kj::Promise<void>(Socket&)>;
  kj::Promise<void> run(kj::Promise<void> Socket::*running, Transfer transfer);

  UvLoop& loop_;
  IoThreads::Thread& thread_;
  std::unique_ptr<Socket> socket_;  // made, used and destroyed on the I/O thread
};

}  // namespace bigcast::rpc
