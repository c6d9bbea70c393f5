#pragma once

#include <kj/async.h>
#include <kj/exception.h>
#include <uv.h>

namespace bigcast::rpc {

// A non-blocking descriptor that libuv watches: owns it, and tells when to try again. One waiter a
// direction. Destroy it on its loop's thread, before its loop.
class PolledFd {
 public:
  PolledFd(uv_loop_t* loop, int fd);  // throws, and closes fd, if it can't be watched
  ~PolledFd();
  PolledFd(const PolledFd&) = delete;
  PolledFd& operator=(const PolledFd&) = delete;

  int fd() const { return fd_; }  // -1 when closed
  kj::Promise<void> readable() { return wait_for(UV_READABLE, reader_); }
  kj::Promise<void> writable() { return wait_for(UV_WRITABLE, writer_); }

  // Closes the descriptor; waiters get `reason`. May be called again.
  void close(const kj::Exception& reason);

 private:
  using Waiter = kj::Own<kj::PromiseFulfiller<void>>;
  kj::Promise<void> wait_for(int event, Waiter& waiter);
  void on_events(int status, int events);
  void arm(int events);
  void release();

  uv_poll_t* handle_;  // on the heap: libuv needs it until its close callback
  int fd_;
  int armed_ = 0;
  Waiter reader_;
  Waiter writer_;
};

}  // namespace bigcast::rpc
