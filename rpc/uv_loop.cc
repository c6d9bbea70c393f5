#include "rpc/uv_loop.h"

#include <kj/debug.h>
#include <kj/time.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace bigcast::rpc {
namespace {

// How many KJ events run before libuv is asked for new I/O. KJ's default is to never ask.
constexpr kj::uint kEventsBeforePoll = 64;
constexpr uint64_t kTimerWaitMaxMs = 24 * 3600 * 1000;

void check_uv(int status, const char* what) { KJ_REQUIRE(status == 0, what, uv_strerror(status)); }

struct PendingWork {
  uv_work_t request{};
  std::function<void()> work;
  kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  size_t* pending = nullptr;
};

}  // namespace

struct UvLoop::Impl final : kj::EventPort {
  Impl() : timer(kj::systemPreciseMonotonicClock().now()) {
    check_uv(uv_loop_init(&loop), "uv_loop_init");
    const auto on_wake_up = [](uv_async_t* async) {
      static_cast<Impl*>(async->data)->run_posted();
    };
    check_uv(uv_async_init(&loop, &wake_up, on_wake_up), "uv_async_init");
    wake_up.data = this;
    check_uv(uv_timer_init(&loop, &next_timer), "uv_timer_init");
    event_loop.emplace(*this);
    scope.emplace(*event_loop);
    scope->setBusyPollInterval(kEventsBeforePoll);
  }

  ~Impl() noexcept(false) {
    while (works_pending > 0) uv_run(&loop, UV_RUN_ONCE);
    for (auto& [signum, watch] : signals) watch.waiters.clear();
    scope.reset();
    event_loop.reset();
    for (auto& [signum, watch] : signals) {
      uv_close(reinterpret_cast<uv_handle_t*>(&watch.handle), nullptr);
    }
    uv_close(reinterpret_cast<uv_handle_t*>(&wake_up), nullptr);
    uv_close(reinterpret_cast<uv_handle_t*>(&next_timer), nullptr);
    uv_walk(
        &loop,
        [](uv_handle_t* handle, void*) {
          KJ_ASSERT(uv_is_closing(handle), "a socket or handle outlives its UvLoop",
                    uv_handle_type_name(handle->type));
        },
        nullptr);
    while (uv_loop_close(&loop) == UV_EBUSY) uv_run(&loop, UV_RUN_ONCE);
  }

  bool wait() override {
    const kj::TimePoint now = kj::systemPreciseMonotonicClock().now();
    KJ_IF_MAYBE (ms, timer.timeoutToNextEvent(now, kj::MILLISECONDS, kTimerWaitMaxMs)) {
      uv_update_time(&loop);
      // libuv before 1.45 runs the timers that are due and then waits for I/O all the same, without
      // end if there is no other timer; uv_stop makes it return.
      uv_timer_start(
          &next_timer, [](uv_timer_t* fired) { uv_stop(fired->loop); }, *ms, 0);
    }
    uv_run(&loop, UV_RUN_ONCE);
    uv_timer_stop(&next_timer);
    return after_run();
  }

  bool poll() override {
    uv_run(&loop, UV_RUN_NOWAIT);
    return after_run();
  }

  void wake() const override {
    woken = true;
    uv_async_send(&wake_up);
  }

  void run_posted() {
    std::vector<std::function<void()>> works;
    {
      const std::lock_guard lock(posted_mutex);
      works.swap(posted);
    }
    for (const auto& work : works) work();
  }

  bool after_run() {
    timer.advanceTo(kj::systemPreciseMonotonicClock().now());
    return woken.exchange(false);
  }

  struct SignalWatch {
    uv_signal_t handle{};
    std::vector<kj::Own<kj::PromiseFulfiller<void>>> waiters;
  };

  uv_loop_t loop{};
  mutable uv_async_t wake_up{};  // also keeps uv_run from returning for want of handles
  uv_timer_t next_timer{};
  mutable std::atomic<bool> woken{false};
  kj::TimerImpl timer;
  size_t works_pending = 0;
  std::map<int, SignalWatch> signals;
  std::mutex posted_mutex;
  std::vector<std::function<void()>> posted;
  std::optional<kj::EventLoop> event_loop;
  std::optional<kj::WaitScope> scope;
};

UvLoop::UvLoop() : impl_(std::make_unique<Impl>()) {}
UvLoop::~UvLoop() noexcept(false) = default;

kj::WaitScope& UvLoop::wait_scope() { return *impl_->scope; }
kj::Timer& UvLoop::timer() { return impl_->timer; }
uv_loop_t* UvLoop::uv() { return &impl_->loop; }

void UvLoop::post(std::function<void()> work) {
  {
    const std::lock_guard lock(impl_->posted_mutex);
    impl_->posted.push_back(std::move(work));
  }
  uv_async_send(&impl_->wake_up);
}

kj::Promise<void> UvLoop::on_signal(int signum) {
  auto [entry, is_new] = impl_->signals.try_emplace(signum);
  Impl::SignalWatch& watch = entry->second;
  if (is_new) {
    check_uv(uv_signal_init(&impl_->loop, &watch.handle), "uv_signal_init");
    watch.handle.data = &watch;
    const auto on_fire = [](uv_signal_t* handle, int) {
      for (auto& waiter : std::exchange(static_cast<Impl::SignalWatch*>(handle->data)->waiters, {}))
        waiter->fulfill();
    };
    check_uv(uv_signal_start(&watch.handle, on_fire, signum), "uv_signal_start");
  }
  std::erase_if(watch.waiters, [](auto& waiter) { return !waiter->isWaiting(); });
  auto paf = kj::newPromiseAndFulfiller<void>();
  watch.waiters.push_back(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

uint32_t UvLoop::pool_threads() {
  constexpr unsigned long kDefault = 4, kMax = 1024;  // libuv's
  const char* text = std::getenv("UV_THREADPOOL_SIZE");
  const unsigned long set = text == nullptr ? kDefault : std::strtoul(text, nullptr, 10);
  return static_cast<uint32_t>(std::clamp(set, 1UL, kMax));
}

kj::Promise<void> UvLoop::queue_work(std::function<void()> work) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto pending = std::make_unique<PendingWork>();
  pending->work = std::move(work);
  pending->fulfiller = kj::mv(paf.fulfiller);
  pending->pending = &impl_->works_pending;
  pending->request.data = pending.get();
  const auto run = [](uv_work_t* request) { static_cast<PendingWork*>(request->data)->work(); };
  const auto finish = [](uv_work_t* request, int) {
    std::unique_ptr<PendingWork> done(static_cast<PendingWork*>(request->data));
    --*done->pending;
    done->fulfiller->fulfill();
  };
  check_uv(uv_queue_work(&impl_->loop, &pending->request, run, finish), "uv_queue_work");
  ++impl_->works_pending;
  (void)pending.release();  // finish() owns it
  return kj::mv(paf.promise);
}

}  // namespace bigcast::rpc
