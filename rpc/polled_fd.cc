#include "rpc/polled_fd.h"

#include <kj/debug.h>
#include <unistd.h>

namespace bigcast::rpc {

PolledFd::PolledFd(uv_loop_t* loop, int fd) : handle_(new uv_poll_t{}), fd_(fd) {
  const int status = uv_poll_init(loop, handle_, fd);
  if (status != 0) {
    delete handle_;
    ::close(fd);
    KJ_FAIL_REQUIRE("uv_poll_init", uv_strerror(status));
  }
  handle_->data = this;
}

PolledFd::~PolledFd() { release(); }

void PolledFd::close(const kj::Exception& reason) {
  release();
  if (reader_.get() != nullptr) reader_->reject(kj::cp(reason));
  if (writer_.get() != nullptr) writer_->reject(kj::cp(reason));
}

void PolledFd::release() {
  if (fd_ < 0) return;
  uv_close(reinterpret_cast<uv_handle_t*>(handle_),
           [](uv_handle_t* handle) { delete reinterpret_cast<uv_poll_t*>(handle); });
  ::close(fd_);
  fd_ = -1;
  handle_ = nullptr;
}

kj::Promise<void> PolledFd::wait_for(int event, Waiter& waiter) {
  if (fd_ < 0) return KJ_EXCEPTION(DISCONNECTED, "the socket is closed");
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiter = kj::mv(paf.fulfiller);
  if ((armed_ & event) == 0) arm(armed_ | event);
  return kj::mv(paf.promise);
}

void PolledFd::arm(int events) {
  armed_ = events;
  if (events == 0) {
    uv_poll_stop(handle_);
    return;
  }
  const auto callback = [](uv_poll_t* handle, int status, int fired) {
    static_cast<PolledFd*>(handle->data)->on_events(status, fired);
  };
  const int status = uv_poll_start(handle_, events, callback);
  KJ_ASSERT(status == 0, uv_strerror(status));
}

// Interest is dropped only when an event finds nobody waiting: changing it costs system calls, and
// mostly the same side waits again before the next poll.
void PolledFd::on_events(int status, int events) {
  if (status < 0) {  // libuv has stopped watching; the next system call will tell why
    armed_ = 0;
    events = UV_READABLE | UV_WRITABLE;
  }
  int idle = 0;
  const auto notify = [&](int event, Waiter& waiter) {
    if ((events & event) == 0) return;
    if (waiter.get() != nullptr && waiter->isWaiting()) {
      waiter->fulfill();
    } else {
      idle |= event;
    }
  };
  notify(UV_READABLE, reader_);
  notify(UV_WRITABLE, writer_);
  if ((armed_ & idle) != 0) arm(armed_ & ~idle);
}

}  // namespace bigcast::rpc
