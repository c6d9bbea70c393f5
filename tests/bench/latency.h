#pragma once

#include <cstdint>
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
};

// Microseconds, of all clients' calls.
struct Latency {
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;
  double calls_per_s = 0;
};

Latency latency_of(const std::vector<std::vector<double>>& by_client, double seconds);

Result<Latency> measure_latency(const LatencyOptions& options);

}  // namespace bigcast::bench
