#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace bigcast::cli {

// A line on a terminal that tells how far a transfer is: bytes, rate and time left. Draws nothing
// unless standard error is a terminal. Clears its line when destroyed.
class Progress {
 public:
  Progress(std::string what, std::optional<uint64_t> size, bool enabled);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(uint64_t bytes_done, std::optional<uint64_t> size);

 private:
  using Clock = std::chrono::steady_clock;
  const std::string what_;
  const bool enabled_;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point drawn_at_{};
};

// "report.bin  45 %  1.2 GiB of 2.7 GiB  350.0 MiB/s  4 s left"
std::string progress_line(const std::string& what, uint64_t done, std::optional<uint64_t> size,
                          double seconds);

}  // namespace bigcast::cli
