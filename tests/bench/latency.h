#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace bigcast::bench {

struct LatencyOptions {
  std::string server;  // as ClientOptions::servers
  std::string name_space;
  std::string name;
  uint32_t clients = 1;   // at once, each with a thread and a connection of its own
  uint32_t count = 1000;  // measured by each, after a tenth of it that is not
  // True: open the blob by its name and ask where its first chunk is, two calls. False: open it as
  // the client library does, and read and verify its first chunk.
  bool locate_only = false;
  bool watch_stalls = false;  // see Stalls
};

// Microseconds, of all callers' calls.
struct Latency {
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;
  double calls_per_s = 0;
  // If stalls are watched: without the time in which the machine stood still.
  struct Running {
    double p50_us = 0;
    double p99_us = 0;
    double stood_still = 0;  // share of all time
  };
  std::optional<Running> running;
};

// Each call `count` times over in a thread of its own, all at once, after a tenth of it that is not
// measured. Fails with what any of them fails with.
Result<Latency> measure_calls(const std::vector<std::function<Result<void>()>>& calls,
                              uint32_t count, bool watch_stalls = false);

Result<Latency> measure_latency(const LatencyOptions& options);

}  // namespace bigcast::bench
