#pragma once

#include <atomic>
#include <chrono>

namespace bigcast {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// Monotonic time. Leases and deadlines never look at the wall clock, which may jump.
// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

// For tests: stands still until it is told to move.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(nanoseconds_.load())); }
  void advance(Duration by) { nanoseconds_.fetch_add(by.count()); }

 private:
  std::atomic<int64_t> nanoseconds_{0};
};

}  // namespace bigcast
