#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace bigcast::bench {

struct PolicyCost {
  double hit_ns = 0;     // a read of a resident chunk
  double miss_ns = 0;    // a read of another: expect, evict, insert
  double stream_ns = 0;  // a read of a resident chunk by an open stream, which advances
};

// Medians over batches, with `chunks` resident chunks of blobs of 1,024; chunks are read in no
// order, so that hardly anything is in the processor's caches. Nothing for an unknown policy.
std::optional<PolicyCost> measure_policy(std::string_view name, uint64_t chunks);

}  // namespace bigcast::bench
