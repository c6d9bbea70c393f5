#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "blobstore/blob_store.h"

namespace bigcast {

// What a node counts, and how Prometheus sees it. Any thread may count and render. Labels are
// bounded: never a blob or a peer, nor a namespace that the configuration does not name.
struct Metrics {
  using Number = std::atomic<uint64_t>;

  // Counters since the start.
  Number bytes_served_located{0};  // through a descriptor of the memory file
  Number bytes_served_inline{0};   // in answers, from the store
  Number bytes_served_relay{0};    // in answers, straight from a fetch
  Number bytes_served_peer{0};     // of those in answers from the store: to other nodes
  Number chunks_received{0};       // from uploads
  Number chunks_served{0};
  Number chunks_fetched_home{0};
  Number chunks_fetched_peer{0};
  Number chunks_refetched{0};       // of those: again, the copy here being gone or never kept
  Number bytes_prefetched{0};       // fetched before a reader asked
  Number bytes_prefetch_wasted{0};  // ... of those, gone before a reader asked; or not kept
  Number peer_fetch_failures{0};    // chunks that a peer did not bring
  Number bytes_received{0};
  Number bytes_fetched_home{0};
  Number bytes_fetched_peer{0};
  Number checksum_failures{0};  // of chunks that came in; the store counts its own
  Number uploads_started{0};
  Number uploads_sealed{0};
  Number uploads_aborted{0};
  Number login_failures{0};
  Number connections_shed{0};  // closed before they logged in, to make room
  Number leases_expired{0};
  Number blobs_copied_again{0};  // to another node, a home having been lost

  // Gauges, set by the loop.
  Number sessions{0};
  Number connections{0};
  Number leases{0};
  Number relayed_blobs{0};
  Number blobs_under_replicated{0};
  Number credit_bytes{0};
  Number serve_buffer_bytes{0};
  std::atomic<bool> draining{false};

  // The text exposition format, version 0.0.4.
  // Of the namespaces those without a quota, which anybody may invent, are one label.
  std::string render(const StoreUsage& usage, const std::vector<NamespaceUsage>& namespaces) const;
};

}  // namespace bigcast
