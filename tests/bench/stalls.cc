#include "tests/bench/stalls.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace bigcast::bench {

namespace {

using namespace std::chrono_literals;
using Span = Stalls::Span;

constexpr auto kNap = 1ms;
constexpr auto kOversleptMin = 5ms;  // more than the kernel keeps a processor to itself

void check(int error_number, const char* what) {
  if (error_number != 0) throw std::system_error(error_number, std::generic_category(), what);
}

std::vector<Span> common(const std::vector<Span>& a, const std::vector<Span>& b) {
  std::vector<Span> both;
  for (auto one = a.begin(), other = b.begin(); one != a.end() && other != b.end();) {
    const Span shared{std::max(one->begin, other->begin), std::min(one->end, other->end)};
    if (shared.begin < shared.end) both.push_back(shared);
    ++(one->end < other->end ? one : other);
  }
  return both;
}

}  // namespace

Stalls::Stalls() {
  cpu_set_t allowed;
  check(sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? 0 : errno, "sched_getaffinity");
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    watches_.push_back(std::make_unique<Watch>());
    Watch& watch = *watches_.back();
    watch.thread = std::thread([this, &watch] {
      for (auto before = Clock::now(); !stopping_;) {
        std::this_thread::sleep_for(kNap);
        const auto now = Clock::now();
        if (now - before > kNap + kOversleptMin) watch.overslept.push_back({before + kNap, now});
        before = now;
      }
    });
    const pthread_t thread = watch.thread.native_handle();
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    const sched_param priority{.sched_priority = 1};
    int failed = pthread_setaffinity_np(thread, sizeof only, &only);
    if (failed == 0) failed = pthread_setschedparam(thread, SCHED_FIFO, &priority);
    if (failed != 0) stop();
    check(failed, "a real-time thread on each processor (it needs root)");
  }
}

std::vector<Span> Stalls::stop() {
  stopping_ = true;
  std::vector<Span> all;
  for (size_t i = 0; i < watches_.size(); ++i) {
    watches_[i]->thread.join();
    all = i == 0 ? watches_[i]->overslept : common(all, watches_[i]->overslept);
  }
  watches_.clear();
  return all;
}

Stalls::Clock::duration Stalls::overlap(const std::vector<Span>& stalls, Span span) {
  Clock::duration total{};
  auto stall = std::lower_bound(stalls.begin(), stalls.end(), span.begin,
                                [](const Span& each, auto begin) { return each.end <= begin; });
  for (; stall != stalls.end() && stall->begin < span.end; ++stall) {
    total += std::min(stall->end, span.end) - std::max(stall->begin, span.begin);
  }
  return total;
}

}  // namespace bigcast::bench
