#pragma once

#include <kj/async.h>
#include <kj/exception.h>

#include <memory>
#include <thread>
#include <utility>

#include "base/error.h"
#include "rpc/convert.h"
#include "rpc/uv_loop.h"

namespace bigcast {

// A thread with an event loop on which all connections of a client live. Everything that touches
// KJ promises or capabilities runs there, through `blocking`. All signals are blocked on it, so
// that a host process (a JVM) handles its own. Thread-safe.
class IoThread {
 public:
  IoThread();
  ~IoThread();  // Requires: what was made on the thread was destroyed on it.
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  rpc::UvLoop& loop() { return *loop_; }  // use on the thread only

  // Runs `work` on the thread, waits for the kj::Promise<Result<T>> it returns, and returns its
  // Result; a thrown exception becomes an Error. `work` must end by a deadline of its own.
  template <typename Work>
  auto blocking(Work work) -> decltype(std::declval<const kj::Executor&>().executeSync(work)) {
    try {
      return executor_->executeSync(work);
    } catch (const kj::Exception& exception) {
      return tl::unexpected<Error>(rpc::to_error(exception));
    }
  }

  // Runs `work`, which returns nothing and must not throw, on the thread.
  template <typename Work>
  void run(Work work) {
    executor_->executeSync(work);
  }

 private:
  struct Start;
  void main(Start& start);

  kj::Own<const kj::Executor> executor_;
  rpc::UvLoop* loop_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> stop_;  // lives on the thread
  std::thread thread_;
};

}  // namespace bigcast
