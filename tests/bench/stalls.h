#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace bigcast::bench {

// Sees when the whole machine stands still, as a virtual one does whose host takes its processors
// away: a real-time thread on each processor sleeps for a millisecond over and over, and what all
// of them oversleep by more than five no program on this machine could have used. (What the kernel
// does for a program on all processors at once, without a break, for so long would count, too.)
// Needs the right to real-time priorities: root's, or RLIMIT_RTPRIO.
class Stalls {
 public:
  using Clock = std::chrono::steady_clock;
  struct Span {
    Clock::time_point begin;
    Clock::time_point end;
  };

  Stalls();  // throws std::system_error
  Stalls(const Stalls&) = delete;
  Stalls& operator=(const Stalls&) = delete;
  ~Stalls() { stop(); }

  // Ends the watch, once, and says when the machine stood still, in order.
  std::vector<Span> stop();

  // How much of the span they took. `stalls` are in order.
  static Clock::duration overlap(const std::vector<Span>& stalls, Span span);

 private:
  struct Watch {
    std::thread thread;
    std::vector<Span> overslept;
  };

  std::atomic<bool> stopping_{false};
  std::vector<std::unique_ptr<Watch>> watches_;
};

}  // namespace bigcast::bench
