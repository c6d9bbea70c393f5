#pragma once

#include <kj/async.h>
#include <kj/timer.h>
#include <uv.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace bigcast::rpc {

// A thread's event loop: KJ's promises on top of libuv. KJ is outermost; libuv waits. Make one a
// thread and use it on that thread only, but for post(), and wake-ups through kj::Executor or
// kj::newPromiseAndCrossThreadFulfiller, which it supports. Never call .wait() inside a callback.
//
//   UvLoop loop;
//   some_promise.wait(loop.wait_scope());
class UvLoop {
 public:
  UvLoop();
  ~UvLoop() noexcept(false);
  UvLoop(const UvLoop&) = delete;
  UvLoop& operator=(const UvLoop&) = delete;

  kj::WaitScope& wait_scope();
  kj::Timer& timer();  // monotonic
  uv_loop_t* uv();

  // From any thread: runs `work`, which must not throw, on the loop's thread, in order. What is
  // still to be run when the loop ends is dropped.
  void post(std::function<void()> work);

  // Resolves when the process gets `signum`; from then on that signal has no default action.
  kj::Promise<void> on_signal(int signum);

  // How many threads libuv's pool has: 4 a process unless UV_THREADPOOL_SIZE says otherwise.
  static uint32_t pool_threads();

  // Runs `work` on libuv's thread pool and resolves with what it returns; what it throws rejects.
  // If the promise is dropped the work still finishes: it must own all that it touches. The
  // destructor waits for it.
  template <typename Work, typename T = std::invoke_result_t<Work&>>
  kj::Promise<T> run_on_pool(Work work) {
    struct State {
      explicit State(Work&& w) : work(std::move(w)) {}
      Work work;
      std::conditional_t<std::is_void_v<T>, bool, std::optional<T>> value{};
      kj::Maybe<kj::Exception> exception;
    };
    auto state = std::make_shared<State>(std::move(work));
    return queue_work([state]() {
             state->exception = kj::runCatchingExceptions([&]() {
               if constexpr (std::is_void_v<T>) {
                 state->work();
               } else {
                 state->value.emplace(state->work());
               }
             });
           })
        .then([state]() -> T {
          KJ_IF_MAYBE (exception, state->exception) {
            kj::throwFatalException(kj::mv(*exception));
          }
          if constexpr (!std::is_void_v<T>) return std::move(*state->value);
        });
  }

 private:
  kj::Promise<void> queue_work(std::function<void()> work);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bigcast::rpc
