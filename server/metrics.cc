#include "server/metrics.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <limits>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

namespace bigcast {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// In the order of Codec.
constexpr std::array kCodecNames = {"raw", "lz4", "sealed"};

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
  // A histogram for each value of a label; with one that has no name, just one.
  void histograms(std::string name, std::string help,
                  const std::vector<std::pair<ClientMetric::Label, const Histogram*>>& values) {
    MetricFamily family{"bigcast_" + std::move(name), std::move(help), MetricType::Histogram, {}};
    for (const auto& [label, histogram] : values) {
      ClientMetric metric;
      if (!label.name.empty()) metric.label.push_back(label);
      uint64_t count = 0;
      for (size_t i = 0; i < histogram->bounds().size(); i++) {
        count += histogram->count(i);
        metric.histogram.bucket.push_back({count, histogram->bounds()[i]});
      }
      count += histogram->count(histogram->bounds().size());
      metric.histogram.bucket.push_back({count, std::numeric_limits<double>::infinity()});
      metric.histogram.sample_count = count;
      metric.histogram.sample_sum = histogram->sum();
      family.metric.push_back(std::move(metric));
    }
    families_.push_back(std::move(family));
  }
  const std::vector<MetricFamily>& all() const { return families_; }
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
  out.gauge("store_mapped_left_bytes",
            "Mapped memory of blobs that have gone: free once their readers unmap it or end.",
            usage.memory_mapped_left);
  out.gauge("store_reserved_bytes", "Promised to uploads beyond what they stored.", usage.reserved);
  out.gauge("store_pinned_bytes", "An upper bound of what pinned blobs take.", usage.pinned);
  out.gauge("blobs", "Blobs that this node knows, as home or relay.", usage.blobs);
  out.gauge("store_descriptors", "File descriptors of the store.", usage.descriptors);
  out.gauge("disk_read_only", "1 after a failed write of the disk; /readyz says which.",
            usage.disk_read_only ? 1 : 0);
  out.counter("chunks_quarantined_total", "Chunks of this home whose only copy here is damaged.",
              usage.chunks_quarantined);
  out.gauge("chunks_damaged", "Quarantined chunks that were not repaired since.",
            usage.chunks_damaged);
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
  out.counters(
      "read_bytes_total", "Stored bytes that the store read, by tier.",
      {{{"tier", "memory"}, usage.bytes_read_memory}, {{"tier", "disk"}, usage.bytes_read_disk}});
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

void add_times(Families& out, const Metrics& metrics) {
  const Metrics::CallTimes& calls = metrics.calls;
  out.histograms("call_seconds",
                 "Time to the answer of a call; a read waits for what is still written or fetched, "
                 "a credit for room.",
                 {{{"method", "credit"}, &calls.credit},
                  {{"method", "put"}, &calls.put},
                  {{"method", "seal"}, &calls.seal},
                  {{"method", "open"}, &calls.open},
                  {{"method", "read"}, &calls.read}});
  out.histograms("relay_first_chunk_seconds",
                 "Time from the first fetch of another node's blob to its first chunk.",
                 {{{}, &metrics.relay_first_chunk_seconds}});
  out.histograms("relay_complete_seconds",
                 "Time from the first fetch of another node's blob to its last chunk, if all came.",
                 {{{}, &metrics.relay_complete_seconds}});
  out.histograms("fanout_efficiency",
                 "Of blobs that were fetched whole: their stored bytes over link_speed, divided by "
                 "the time it took. Nothing without link_speed.",
                 {{{}, &metrics.fanout_efficiency}});
}

void add_queues(Families& out, const Metrics& metrics) {
  out.gauge("uploads_open", "Uploads that are not sealed yet.", metrics.uploads_open);
  out.gauge("credits_waiting", "Chunks that writers wait to be let send: back-pressure.",
            metrics.credits_waiting);
  out.gauge("serves_waiting", "Chunks that wait for room to be read and sent in: slow readers.",
            metrics.serves_waiting);
  out.gauge("calls_running", "Calls that wait for chunks, the pool or room to answer.",
            metrics.calls_running);
}

void add_state(Families& out, const Metrics& metrics) {
  out.gauge("sessions", "Sessions that are logged in.", metrics.sessions);
  out.gauge("connections", "RPC connections.", metrics.connections);
  out.gauge("leases", "Leases that live or are in their grace.", metrics.leases);
  out.gauge("relayed_blobs", "Blobs that this node fetches from their homes.",
            metrics.relayed_blobs);
  out.gauge("blobs_under_replicated", "Blobs of this home that too few other homes have.",
            metrics.blobs_under_replicated);
  out.gauge("receive_reserve_used_bytes", "Credit granted to uploads and fetches.",
            metrics.credit_bytes);
  out.gauge("serve_reserve_used_bytes", "Chunks read and not yet sent.",
            metrics.serve_buffer_bytes);
  out.gauge("draining", "1 when the node is about to stop.", metrics.draining ? 1 : 0);
}

void add_moved(Families& out, const Metrics& metrics, const StoreUsage& usage) {
  out.counters("served_bytes_total", "Stored bytes of chunks served, by path.",
               {{{"path", "located"}, metrics.served_located.bytes},
                {{"path", "inline"}, metrics.served_inline.bytes},
                {{"path", "relay"}, metrics.served_relay.bytes},
                {{"path", "mapped"}, metrics.served_mapped.bytes}});
  out.counters("chunks_served_total", "Chunks served to readers and other nodes, by path.",
               {{{"path", "located"}, metrics.served_located.chunks},
                {{"path", "inline"}, metrics.served_inline.chunks},
                {{"path", "relay"}, metrics.served_relay.chunks},
                {{"path", "mapped"}, metrics.served_mapped.chunks}});
  LabelledValues chunks;
  LabelledValues bytes;
  for (size_t codec = 0; codec < kCodecNames.size(); codec++) {
    chunks.push_back({{"codec", kCodecNames[codec]}, metrics.received[codec].chunks});
    bytes.push_back({{"codec", kCodecNames[codec]}, metrics.received[codec].bytes});
  }
  out.counters("chunks_received_total", "Chunks received from uploads, by codec.", chunks);
  out.counters("received_bytes_total", "Stored bytes received from uploads, by codec.", bytes);
  out.counter("served_peer_bytes_total",
              "Stored bytes of chunks served to other nodes (in path inline).",
              metrics.bytes_served_peer);
  out.counters("chunks_fetched_total", "Chunks of others' blobs fetched, by who gave them.",
               {{{"from", "home"}, metrics.chunks_fetched_home},
                {{"from", "peer"}, metrics.chunks_fetched_peer}});
  out.counters("fetched_bytes_total", "Stored bytes of others' blobs fetched, by who gave them.",
               {{{"from", "home"}, metrics.bytes_fetched_home},
                {{"from", "peer"}, metrics.bytes_fetched_peer}});
  out.counter("prefetched_bytes_total", "Stored bytes fetched before a reader asked for them.",
              metrics.bytes_prefetched);
  out.counter("prefetch_wasted_bytes_total", "Stored bytes fetched that no reader asked for.",
              metrics.bytes_prefetch_wasted);
  out.counter("peer_fetch_failures_total", "Chunks that a peer was asked for and did not bring.",
              metrics.peer_fetch_failures);
  out.counter("chunks_refetched_total", "Chunks fetched again, their copy being gone or not kept.",
              metrics.chunks_refetched);
  out.counters(
      "checksum_failures_total", "Chunks whose checksum was wrong, by where they were.",
      {{{"at", "network"}, metrics.checksum_failures}, {{"at", "store"}, usage.checksum_failures}});
  out.counters("uploads_total", "Uploads by what became of them.",
               {{{"event", "started"}, metrics.uploads_started},
                {{"event", "sealed"}, metrics.uploads_sealed},
                {{"event", "aborted"}, metrics.uploads_aborted}});
  out.counter("login_failures_total", "Logins that were refused.", metrics.login_failures);
  out.counter("connections_shed_total",
              "Connections closed for want of room: the oldest not logged in, else the newest.",
              metrics.connections_shed);
  out.counter("mappings_overdue_total",
              "Mappings that readers had for mapped_warning after their blob had gone.",
              metrics.mappings_overdue);
  out.counter("leases_expired_total", "Leases whose grace ended.", metrics.leases_expired);
  out.counter("blobs_copied_again_total", "Copies made at other nodes for homes that were lost.",
              metrics.blobs_copied_again);
  out.counter("chunks_mended_total", "Damaged chunks repaired with what another home has.",
              metrics.chunks_mended);
}

Families families_of(const Metrics& metrics, const StoreUsage& usage,
                     const std::vector<NamespaceUsage>& namespaces) {
  Families out;
  out.gauges("build_info", "1, labelled with the version.",
             {{{"version", BIGCAST_VERSION}, uint64_t{1}}});
  add_store(out, usage);
  add_namespaces(out, namespaces);
  add_state(out, metrics);
  add_queues(out, metrics);
  add_moved(out, metrics, usage);
  add_times(out, metrics);
  return out;
}

}  // namespace

std::string Metrics::render(const StoreUsage& usage,
                            const std::vector<NamespaceUsage>& namespaces) const {
  return families_of(*this, usage, namespaces).text();
}

std::string Metrics::reference() {
  const char* const kTypes[] = {"counter", "gauge", "summary", "untyped", "histogram"};
  const Metrics metrics;
  NamespaceUsage quota;
  quota.has_own_quota = true;
  const Families all = families_of(metrics, {}, {quota});
  std::string text = "| metric | type | labels | what it tells |\n|---|---|---|---|\n";
  for (const MetricFamily& family : all.all()) {
    std::set<std::string> labels;
    for (const ClientMetric& metric : family.metric) {
      for (const auto& label : metric.label) labels.insert("`" + label.name + "`");
    }
    text +=
        fmt::format("| `{}` | {} | {} | {} |\n", family.name,
                    kTypes[static_cast<size_t>(family.type)], fmt::join(labels, " "), family.help);
  }
  return text;
}

}  // namespace bigcast
