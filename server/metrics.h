#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "blobstore/blob_store.h"

namespace bigcast {

inline double seconds_of(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// How often a value was at most each of some bounds. Any thread may observe and read.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void observe(double value) {
    const auto at = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
    counts_[static_cast<size_t>(at)]++;
    sum_ += value;
  }
  const std::vector<double>& bounds() const { return bounds_; }  // ascending
  // Of values above the bound before, the last one: above all.
  uint64_t count(size_t bucket) const { return counts_[bucket]; }
  double sum() const { return sum_; }

  static Histogram of_seconds() {
    return Histogram({.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30});
  }
  static Histogram of_ratio() { return Histogram({.1, .2, .3, .4, .5, .6, .7, .8, .9, 1}); }

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

// What a node counts, and how Prometheus sees it. Any thread may count and render. Labels are
// bounded: never a blob or a peer, nor a namespace that the configuration does not name.
struct Metrics {
  using Number = std::atomic<uint64_t>;

  struct Moved {
    Number chunks{0};
    Number bytes{0};  // stored
    void count(uint64_t stored_bytes) {
      chunks++;
      bytes += stored_bytes;
    }
  };

  // Counters since the start.
  std::array<Moved, 3> received;  // from uploads, by Codec
  Moved served_located;           // through a descriptor of the memory file
  Moved served_inline;            // in answers, from the store
  Moved served_relay;             // in answers, straight from a fetch
  Moved served_mapped;            // in place, with their whole blobs
  Number bytes_served_peer{0};    // of those in answers from the store: to other nodes
  Number chunks_fetched_home{0};
  Number chunks_fetched_peer{0};
  Number chunks_refetched{0};       // of those: again, the copy here being gone or never kept
  Number bytes_prefetched{0};       // fetched before a reader asked
  Number bytes_prefetch_wasted{0};  // ... of those, gone before a reader asked; or not kept
  Number peer_fetch_failures{0};    // chunks that a peer did not bring
  Number bytes_fetched_home{0};
  Number bytes_fetched_peer{0};
  Number checksum_failures{0};  // of chunks that came in; the store counts its own
  Number uploads_started{0};
  Number uploads_sealed{0};
  Number uploads_aborted{0};
  Number login_failures{0};
  Number connections_shed{0};  // closed before they logged in, to make room
  Number leases_expired{0};
  Number mappings_overdue{0};    // see Mappings::tick
  Number blobs_copied_again{0};  // to another node, a home having been lost
  Number chunks_mended{0};       // damaged here, with what another home has

  // How long calls took, from when they came to their answer.
  struct CallTimes {
    Histogram credit = Histogram::of_seconds();
    Histogram put = Histogram::of_seconds();
    Histogram seal = Histogram::of_seconds();
    Histogram open = Histogram::of_seconds();
    Histogram read = Histogram::of_seconds();
  } calls;
  // Of blobs that this node relays, since it asked for the first chunk.
  Histogram relay_first_chunk_seconds = Histogram::of_seconds();
  Histogram relay_complete_seconds = Histogram::of_seconds();
  Histogram fanout_efficiency = Histogram::of_ratio();

  // Neither has what readers mapped.
  uint64_t chunks_served() const {
    return served_located.chunks + served_inline.chunks + served_relay.chunks;
  }
  uint64_t bytes_served() const {
    return served_located.bytes + served_inline.bytes + served_relay.bytes;
  }
  uint64_t bytes_received() const {
    uint64_t sum = 0;
    for (const Moved& each : received) sum += each.bytes;
    return sum;
  }

  // Gauges, set by the loop.
  Number sessions{0};
  Number connections{0};
  Number leases{0};
  Number relayed_blobs{0};
  Number blobs_under_replicated{0};
  Number credit_bytes{0};
  Number serve_buffer_bytes{0};
  Number uploads_open{0};
  Number credits_waiting{0};
  Number calls_running{0};
  Number serves_waiting{0};
  std::atomic<bool> draining{false};

  // A table of all metrics for people, in Markdown: docs/METRICS.md.
  static std::string reference();

  // The text exposition format, version 0.0.4.
  // Of the namespaces those without a quota, which anybody may invent, are one label.
  std::string render(const StoreUsage& usage, const std::vector<NamespaceUsage>& namespaces) const;
};

}  // namespace bigcast
