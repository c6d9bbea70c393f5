#include "rpc/io_thread.h"

#include <pthread.h>

#include <csignal>
#include <future>

namespace bigcast::rpc {

struct IoThread::Start {
  std::promise<void> ready;
};

IoThread::IoThread() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  Start start;
  auto ready = start.ready.get_future();
  thread_ = std::thread([this, &start]() { main(start); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  try {
    ready.get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

IoThread::~IoThread() {
  executor_->executeSync([this]() { stop_->fulfill(); });
  thread_.join();
}

void IoThread::main(Start& start) {
  pthread_setname_np(pthread_self(), "bigcast-io");
  std::promise<void> ready = std::move(start.ready);
  try {
    UvLoop loop;
    auto stopped = kj::newPromiseAndFulfiller<void>();
    loop_ = &loop;
    stop_ = kj::mv(stopped.fulfiller);
    executor_ = kj::getCurrentThreadExecutor().addRef();
    ready.set_value();
    stopped.promise.wait(loop.wait_scope());
    stop_ = nullptr;
  } catch (...) {
    if (!executor_) {
      ready.set_exception(std::current_exception());
      return;
    }
    throw;  // The loop itself broke: a bug that no caller can handle.
  }
}

}  // namespace bigcast::rpc
