#include "server/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <sstream>
#include <utility>
#include <vector>

namespace bigcast {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

using LabelledValues = std::vector<std::pair<ClientMetric::Label, uint64_t>>;

class Families {
 public:
  void gauge(std::string name, std::string help, uint64_t value) {
    add(std::move(name), std::move(help), MetricType::Gauge, {{{}, value}});
  }
  void counter(std::string name, std::string help, uint64_t value) {
    add(std::move(name), std::move(help), MetricType::Counter, {{{}, value}});
  }
  void gauges(std::string name, std::string help, const LabelledValues& values) {
    add(std::move(name), std::move(help), MetricType::Gauge, values);
  }
  void counters(std::string name, std::string help, const LabelledValues& values) {
    add(std::move(name), std::move(help), MetricType::Counter, values);
  }
  std::string text() const {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, families_);
    return out.str();
  }

 private:
  void add(std::string name, std::string help, MetricType type, const LabelledValues& values) {
    MetricFamily family;
    family.name = "bigcast_" + std::move(name);
    family.help = std::move(help);
    family.type = type;
    for (const auto& [label, value] : values) {
      ClientMetric metric;
      if (!label.name.empty()) metric.label.push_back(label);
      (type == MetricType::Gauge ? metric.gauge.value : metric.counter.value) =
          static_cast<double>(value);
      family.metric.push_back(std::move(metric));
    }
    families_.push_back(std::move(family));
  }

  std::vector<MetricFamily> families_;
};

void add_store(Families& out, const StoreUsage& usage) {
  out.gauges("store_budget_bytes", "Budget of a tier.",
             {{{"tier", "memory"}, usage.memory_budget}, {{"tier", "disk"}, usage.disk_budget}});
  out.gauges("store_used_bytes", "Bytes of chunks that a tier holds, in whole pages or blocks.",
             {{{"tier", "memory"}, usage.memory_used}, {{"tier", "disk"}, usage.disk_used}});
  out.gauge("store_spare_bytes", "Memory kept for the next blobs, beside what is used.",
            usage.memory_spare);
  out.gauge("store_mapped_bytes", "Memory, of what is used, that readers have mapped.",
            usage.memory_mapped);
  out.gauge("store_reserved_bytes", "Promised to uploads beyond what they stored.", usage.reserved);
  out.gauge("store_pinned_bytes", "An upper bound of what pinned blobs take.", usage.pinned);
  out.gauge("blobs", "Blobs that this node knows, as home or relay.", usage.blobs);
  out.gauge("store_descriptors", "File descriptors of the store.", usage.descriptors);
  out.gauge("disk_read_only", "1 after a failed write of the disk; /readyz says which.",
            usage.disk_read_only ? 1 : 0);
  out.counter("chunks_quarantined_total", "Chunks of this home whose only copy here is damaged.",
              usage.chunks_quarantined);
  out.gauge("chunks_damaged", "... of those, not repaired.", usage.chunks_damaged);
  out.counter("chunks_repaired_total", "Damaged chunks on disk that were written anew.",
              usage.chunks_repaired);
  out.counter("chunks_scrubbed_total", "Chunks on disk that were verified in the background.",
              usage.chunks_scrubbed);
  out.counter("scrub_cycles_total", "How often all that is on disk was verified.",
              usage.scrub_cycles);
  out.gauge("blobs_recovered", "Durable blobs found on disk at the start.", usage.blobs_recovered);
  out.gauge("blobs_lost", "Durable blobs not found whole at the start; the log names them.",
            usage.blobs_lost);
  out.counter("chunks_demoted_total", "Chunks moved from memory to disk.", usage.chunks_demoted);
  out.counter("chunks_promoted_total", "Chunks brought back from disk because they were read.",
              usage.chunks_promoted);
  out.counter("chunks_dropped_total", "Relayed chunks given up for want of room.",
              usage.chunks_dropped);
  out.counters(
      "chunks_read_total", "Chunks that the store read, by tier.",
      {{{"tier", "memory"}, usage.chunks_read_memory}, {{"tier", "disk"}, usage.chunks_read_disk}});
}

void add_namespaces(Families& out, const std::vector<NamespaceUsage>& namespaces) {
  LabelledValues quotas;
  LabelledValues used;
  LabelledValues reserved;
  NamespaceUsage others;
  const auto add = [&](const NamespaceUsage& usage) {
    used.push_back({{"namespace", usage.name}, usage.used});
    reserved.push_back({{"namespace", usage.name}, usage.reserved});
  };
  for (const NamespaceUsage& usage : namespaces) {
    if (!usage.has_own_quota) {
      others.used += usage.used;
      others.reserved += usage.reserved;
      continue;
    }
    quotas.push_back({{"namespace", usage.name}, usage.quota});
    add(usage);
  }
  others.name = "(others)";  // no namespace can have that name
  add(others);
  out.gauges("namespace_quota_bytes", "What a namespace's blobs may take here.", quotas);
  out.gauges("namespace_used_bytes", "Bytes of a namespace's blobs in both tiers.", used);
  out.gauges("namespace_reserved_bytes", "Promised to a namespace's uploads beyond that.",
             reserved);
}

}  // namespace

std::string Metrics::render(const StoreUsage& usage,
                            const std::vector<NamespaceUsage>& namespaces) const {
  Families out;
  out.gauges("build_info", "1, labelled with the version.",
             {{{"version", BIGCAST_VERSION}, uint64_t{1}}});
  add_store(out, usage);
  add_namespaces(out, namespaces);
  out.gauge("sessions", "Sessions that are logged in.", sessions);
  out.gauge("connections", "RPC connections.", connections);
  out.gauge("leases", "Leases that live or are in their grace.", leases);
  out.gauge("relayed_blobs", "Blobs that this node fetches from their homes.", relayed_blobs);
  out.gauge("receive_reserve_used_bytes", "Credit granted to uploads and fetches.", credit_bytes);
  out.gauge("serve_reserve_used_bytes", "Chunks read and not yet sent.", serve_buffer_bytes);
  out.gauge("draining", "1 when the node is about to stop.", draining ? 1 : 0);
  out.counters("served_bytes_total", "Stored bytes of chunks served, by path.",
               {{{"path", "located"}, bytes_served_located},
                {{"path", "inline"}, bytes_served_inline},
                {{"path", "relay"}, bytes_served_relay}});
  out.counter("chunks_served_total", "Chunks served to readers and relays.", chunks_served);
  out.counter("chunks_received_total", "Chunks received from uploads.", chunks_received);
  out.counter("received_bytes_total", "Stored bytes received from uploads.", bytes_received);
  out.counter("served_peer_bytes_total",
              "Stored bytes of chunks served to other nodes (in path inline).", bytes_served_peer);
  out.counters("chunks_fetched_total", "Chunks of others' blobs fetched, by who gave them.",
               {{{"from", "home"}, chunks_fetched_home}, {{"from", "peer"}, chunks_fetched_peer}});
  out.counters("fetched_bytes_total", "Stored bytes of others' blobs fetched, by who gave them.",
               {{{"from", "home"}, bytes_fetched_home}, {{"from", "peer"}, bytes_fetched_peer}});
  out.counter("prefetched_bytes_total", "Stored bytes fetched before a reader asked for them.",
              bytes_prefetched);
  out.counter("prefetch_wasted_bytes_total", "Stored bytes fetched that no reader asked for.",
              bytes_prefetch_wasted);
  out.counter("peer_fetch_failures_total", "Chunks that a peer was asked for and did not bring.",
              peer_fetch_failures);
  out.counter("chunks_refetched_total", "Chunks fetched again, their copy being gone or not kept.",
              chunks_refetched);
  out.counters(
      "checksum_failures_total", "Chunks whose checksum was wrong, by where they were.",
      {{{"at", "network"}, checksum_failures}, {{"at", "store"}, usage.checksum_failures}});
  out.counters("uploads_total", "Uploads by what became of them.",
               {{{"event", "started"}, uploads_started},
                {{"event", "sealed"}, uploads_sealed},
                {{"event", "aborted"}, uploads_aborted}});
  out.counter("login_failures_total", "Logins that were refused.", login_failures);
  out.counter("connections_shed_total",
              "Connections closed for want of room: the oldest not logged in, else the newest.",
              connections_shed);
  out.counter("leases_expired_total", "Leases whose grace ended.", leases_expired);
  return out.text();
}

}  // namespace bigcast
