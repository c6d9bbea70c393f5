#include "rpc/uv_loop.h"

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <kj/thread.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>

using namespace bigcast::rpc;

namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

TEST_CASE("timers fire in order and not early") {
  const auto before = std::chrono::steady_clock::now();  // which the loop's first look is not
  UvLoop loop;
  std::string order;
  auto late = loop.timer()
                  .afterDelay(30 * kj::MILLISECONDS)
                  .then([&]() { order += 'b'; })
                  .eagerlyEvaluate(nullptr);
  auto early = loop.timer()
                   .afterDelay(10 * kj::MILLISECONDS)
                   .then([&]() { order += 'a'; })
                   .eagerlyEvaluate(nullptr);
  late.wait(loop.wait_scope());
  early.wait(loop.wait_scope());
  CHECK(order == "ab");
  CHECK(std::chrono::steady_clock::now() - before >= std::chrono::milliseconds(30));
}

TEST_CASE("a timer that is due before the loop waits still fires") {
  UvLoop loop;
  for (int late_ms : {0, 1, 5}) {
    auto due = loop.timer().afterDelay(1 * kj::MILLISECONDS);
    std::this_thread::sleep_for(std::chrono::milliseconds(late_ms));
    due.wait(loop.wait_scope());
    loop.timer().afterDelay(0 * kj::MILLISECONDS).wait(loop.wait_scope());
  }
}

TEST_CASE("an idle loop sleeps") {
  UvLoop loop;
  const double before = cpu_seconds();
  loop.timer().afterDelay(300 * kj::MILLISECONDS).wait(loop.wait_scope());
  CHECK(cpu_seconds() - before < 0.1);
}

TEST_CASE("promises that keep the loop busy do not starve I/O") {
  UvLoop loop;
  bool done = false;
  kj::Function<kj::Promise<void>()> spin = [&]() -> kj::Promise<void> {
    if (done) return kj::READY_NOW;
    return kj::evalLater([&]() { return spin(); });
  };
  auto work =
      loop.run_on_pool([]() { return 1; }).then([&](int) { done = true; }).eagerlyEvaluate(nullptr);
  spin().wait(loop.wait_scope());
  work.wait(loop.wait_scope());
}

TEST_CASE("another thread can wake the loop") {
  UvLoop loop;
  {
    auto paf = kj::newPromiseAndCrossThreadFulfiller<int>();
    kj::Thread other([&]() { paf.fulfiller->fulfill(7); });
    CHECK(paf.promise.wait(loop.wait_scope()) == 7);
  }
  struct Other {
    const kj::Executor* executor;
    kj::PromiseFulfiller<void>* stop;
  };
  std::promise<Other> started;
  kj::Thread thread([&]() {
    UvLoop own;
    auto stop = kj::newPromiseAndFulfiller<void>();
    started.set_value({&kj::getCurrentThreadExecutor(), stop.fulfiller.get()});
    stop.promise.wait(own.wait_scope());
  });
  const Other other = started.get_future().get();
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(other.executor->executeAsync([i]() { return i * 2; }).wait(loop.wait_scope()) == i * 2);
  }
  other.executor->executeSync([&]() { other.stop->fulfill(); });
}

TEST_CASE("work runs on the pool, gives its result and its exception") {
  UvLoop loop;
  auto& scope = loop.wait_scope();
  const auto here = std::this_thread::get_id();
  CHECK(loop.run_on_pool([]() { return std::this_thread::get_id(); }).wait(scope) != here);
  CHECK(*loop.run_on_pool([]() { return std::make_unique<int>(3); }).wait(scope) == 3);
  bool ran = false;
  loop.run_on_pool([&]() { ran = true; }).wait(scope);
  CHECK(ran);
  CHECK_THROWS_AS(loop.run_on_pool([]() { KJ_FAIL_REQUIRE("no"); }).wait(scope), kj::Exception);
}

TEST_CASE("dropped work still finishes before the loop goes") {
  auto finished = std::make_shared<std::atomic<int>>(0);
  {
    UvLoop loop;
    for (int i = 0; i < 20; ++i) {
      auto dropped = loop.run_on_pool([finished]() {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        ++*finished;
      });
    }
  }
  CHECK(*finished == 20);
  CHECK(finished.use_count() == 1);
}

TEST_CASE("signals resolve promises, again and again") {
  UvLoop loop;
  for (int i = 0; i < 3; ++i) {
    auto first = loop.on_signal(SIGUSR1);
    auto second = loop.on_signal(SIGUSR1);
    { auto dropped = loop.on_signal(SIGUSR1); }
    CHECK_FALSE(first.poll(loop.wait_scope()));
    REQUIRE(raise(SIGUSR1) == 0);
    first.wait(loop.wait_scope());
    second.wait(loop.wait_scope());
  }
}
