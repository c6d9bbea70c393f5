#pragma once

#include <kj/async.h>
#include <kj/exception.h>

#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "base/error.h"
#include "rpc/convert.h"
#include "rpc/uv_loop.h"

namespace bigcast::rpc {

// A thread with an event loop. Everything that touches its KJ promises or capabilities runs there.
// All signals are blocked on it, so that a host process (a JVM) handles its own. Thread-safe.
class IoThread {
 public:
  IoThread();
  ~IoThread();  // Requires: what was made on the thread was destroyed on it.
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  UvLoop& loop() { return *loop_; }  // use on the thread only

  // Runs `work` on the thread, waits for the kj::Promise<Result<T>> it returns, and returns its
  // Result; a thrown exception becomes an Error. `work` must end by a deadline of its own.
  template <typename Work>
  auto blocking(Work work) -> decltype(std::declval<const kj::Executor&>().executeSync(work)) {
    try {
      return executor_->executeSync(work);
    } catch (const kj::Exception& exception) {
      return tl::unexpected<bigcast::Error>(to_error(exception));
    }
  }

  // Runs `work`, which returns nothing and must not throw, on the thread, and waits for its end.
  template <typename Work>
  void run(Work work) {
    std::promise<void> done;
    loop_->post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }

 private:
  struct Start;
  void main(Start& start);

  kj::Own<const kj::Executor> executor_;
  UvLoop* loop_ = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> stop_;  // lives on the thread
  std::thread thread_;
};

}  // namespace bigcast::rpc
