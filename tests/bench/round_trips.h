#pragma once

#include <cstdint>
#include <vector>

#include "tests/bench/latency.h"

namespace bigcast::bench {

struct RoundTripOptions {
  bool tcp = false;            // else a Unix socket
  uint32_t clients = 1;        // at once, each with a connection and a thread at either end
  uint32_t count = 1000;       // measured by each, after a tenth of it that is not
  uint32_t request_bytes = 0;  // of each trip
  std::vector<uint32_t> answer_bytes{};  // of each trip: one after the other
};

// What calls of those sizes between two processes take at least: raw sockets, read and written by
// blocking calls, and nothing done with the bytes. UNAVAILABLE if the other process ends.
Result<Latency> measure_round_trips(const RoundTripOptions& options);

}  // namespace bigcast::bench
