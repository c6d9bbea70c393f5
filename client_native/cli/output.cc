#include "client_native/cli/output.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "client_native/cli/doctor.h"

namespace bigcast::cli {

namespace {

using Json = nlohmann::ordered_json;

// A name is any UTF-8 without control characters, so this never throws on well-formed input; what
// is not well-formed (a path in an error) is shown with replacement characters.
std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string key_of(const BlobSummary& blob) { return blob.name_space + "/" + blob.name; }

const char* state_of(const BlobSummary& blob) { return blob.sealed ? "sealed" : "open"; }

const char* state_of(const NodeReport& node) {
  if (node.not_ready.empty()) return "ready";
  return node.summary.draining ? "draining" : "not ready";
}

std::string part_of(uint64_t used, uint64_t budget) {
  return human_bytes(used) + " of " + human_bytes(budget);
}

Json object_of(const NodeSummary& node) {
  Json value;
  value["address"] = node.address;
  value["version"] = node.version;
  value["epoch"] = node.epoch;
  value["advertised"] = node.advertised;
  value["pid"] = node.pid;
  value["uptime_ms"] = node.uptime_ms;
  value["draining"] = node.draining;
  value["memory_budget"] = node.memory_budget;
  value["memory_used"] = node.memory_used;
  value["disk_budget"] = node.disk_budget;
  value["disk_used"] = node.disk_used;
  value["round_trip_ms"] = node.round_trip_ms;
  return value;
}

Json object_of(const NodeReport& node) {
  Json value = object_of(node.summary);
  value["name"] = node.name;
  value["not_ready"] = node.not_ready.empty() ? Json() : Json(node.not_ready);
  value["clock_ms"] = node.clock_ms;
  value["descriptor_limit"] = node.descriptor_limit;
  value["descriptors_open"] = node.descriptors_open;
  value["memory_limit"] = node.memory_limit == 0 ? Json() : Json(node.memory_limit);
  value["memory_of_machine"] = node.memory_of_machine;
  value["disk_free"] = node.disk_free;
  value["blobs"] = node.blobs;
  value["relayed_blobs"] = node.relayed_blobs;
  value["reserved_bytes"] = node.reserved_bytes;
  value["pinned_bytes"] = node.pinned_bytes;
  value["mapped_bytes"] = node.mapped_bytes;
  value["sessions"] = node.sessions;
  value["connections"] = node.connections;
  value["leases"] = node.leases;
  value["uploads"] = node.uploads;
  value["running_calls"] = node.running_calls;
  value["received_bytes"] = node.received_bytes;
  value["served_bytes"] = node.served_bytes;
  value["fetched_home_bytes"] = node.fetched_home_bytes;
  value["fetched_peer_bytes"] = node.fetched_peer_bytes;
  value["chunks_demoted"] = node.chunks_demoted;
  value["chunks_dropped"] = node.chunks_dropped;
  value["chunks_quarantined"] = node.chunks_quarantined;
  value["checksum_failures"] = node.checksum_failures;
  value["login_failures"] = node.login_failures;
  value["peer_fetch_failures"] = node.peer_fetch_failures;
  value["unreachable"] = Json::array();
  for (const auto& peer : node.unreachable) {
    value["unreachable"].push_back({{"address", peer.address}, {"error", peer.error.to_string()}});
  }
  return value;
}

const char* durability_of(const BlobSummary& blob) { return blob.durable ? "disk" : "memory"; }

}  // namespace

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return 0;
    case ErrorCode::kInvalidArgument:
      return 2;
    case ErrorCode::kNotFound:
      return 3;
    case ErrorCode::kUnauthenticated:
    case ErrorCode::kPermissionDenied:
      return 4;
    case ErrorCode::kUnavailable:
    case ErrorCode::kDeadlineExceeded:
      return 5;
    default:
      return 1;
  }
}

Result<void> write_all(int fd, std::string_view bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail(ErrorCode::kIo, errno_message("write " + name, errno));
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

Result<void> print(std::string_view text) {
  return write_all(STDOUT_FILENO, text, "standard output");
}

bool is_broken_pipe(const Error& error) {
  return error.code == ErrorCode::kIo &&
         error.message == errno_message("write standard output", EPIPE);
}

void report(const Error& error, bool json) {
  std::string line = "bigcast: " + error.to_string() + "\n";
  if (json) {
    Json value;
    value["error"]["code"] = to_string(error.code);
    value["error"]["message"] = error.message;
    line = dump(value);
  }
  // There is nowhere left to report a failure of this to.
  [[maybe_unused]] const auto ignored = write_all(STDERR_FILENO, line, "standard error");
}

std::string human_bytes(uint64_t bytes) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

double per_second(uint64_t bytes, double seconds) {
  return static_cast<double>(bytes) / std::max(seconds, 1e-6);
}

std::string rate_text(double bytes_a_second) {
  return human_bytes(static_cast<uint64_t>(bytes_a_second));
}

std::string human_ms(uint64_t ms) {
  const uint64_t seconds = ms / 1000;
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} m {} s", seconds / 60, seconds % 60);
  if (seconds < 86400) return fmt::format("{} h {} m", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

std::string text_of(const BlobSummary& blob) {
  const std::string size =
      blob.size ? fmt::format("{} ({})", *blob.size, human_bytes(*blob.size)) : "unknown";
  std::string text = fmt::format("key         {}\nid          {}\nstate       {}\nsize        {}\n",
                                 key_of(blob), blob.id, state_of(blob), size);
  text +=
      fmt::format("stored      {} ({})\nchunks      {} of {}\n", blob.stored_size,
                  human_bytes(blob.stored_size), blob.chunk_count, human_bytes(blob.chunk_size));
  text += fmt::format("in memory   {}\non disk     {}\nage         {}\n",
                      human_bytes(blob.memory_bytes), human_bytes(blob.disk_bytes),
                      human_ms(blob.age_ms));
  text += fmt::format("durability  {}\n", durability_of(blob));
  if (blob.expires_in_ms) text += fmt::format("expires in  {}\n", human_ms(*blob.expires_in_ms));
  if (blob.pins > 0) text += fmt::format("pins        {}\n", blob.pins);
  if (blob.sealed) text += fmt::format("digest      {}\n", blob.root_digest);
  if (blob.replicas > 1) text += fmt::format("replicas    {}\n", blob.replicas);
  if (blob.homes.size() > 1) text += fmt::format("homes       {}\n", fmt::join(blob.homes, ", "));
  return text;
}

std::string line_of(const BlobSummary& blob) {
  return fmt::format("{:>12} {:>12} {:>10}  {:<6}  {}\n", blob.size ? human_bytes(*blob.size) : "?",
                     human_bytes(blob.stored_size), human_ms(blob.age_ms), state_of(blob),
                     key_of(blob));
}

std::string json_of(const BlobSummary& blob) {
  Json value;
  value["key"] = key_of(blob);
  value["id"] = blob.id;
  value["sealed"] = blob.sealed;
  value["relay"] = blob.relay;
  value["size"] = blob.size ? Json(*blob.size) : Json();
  value["stored_size"] = blob.stored_size;
  value["chunk_size"] = blob.chunk_size;
  value["chunks"] = blob.chunk_count;
  value["memory_bytes"] = blob.memory_bytes;
  value["disk_bytes"] = blob.disk_bytes;
  value["age_ms"] = blob.age_ms;
  value["durability"] = durability_of(blob);
  value["ttl_ms"] = blob.ttl_ms == 0 ? Json() : Json(blob.ttl_ms);
  value["expires_in_ms"] = blob.expires_in_ms ? Json(*blob.expires_in_ms) : Json();
  value["pins"] = blob.pins;
  value["root_digest"] = blob.sealed ? Json(blob.root_digest) : Json();
  value["homes"] = blob.homes;
  value["replicas"] = blob.replicas;
  return dump(value);
}

std::string text_of(const NodeSummary& node) {
  return fmt::format("{}: bigcastd {} answers in {:.2f} ms, up {}, memory {}, disk {}{}\n",
                     node.address, node.version, node.round_trip_ms, human_ms(node.uptime_ms),
                     part_of(node.memory_used, node.memory_budget),
                     part_of(node.disk_used, node.disk_budget), node.draining ? ", draining" : "");
}

std::string json_of(const NodeSummary& node) { return dump(object_of(node)); }

std::string description_of(const NodeReport& node) {
  const NodeSummary& summary = node.summary;
  std::string text;
  const auto add = [&]<typename... T>(const char* name, fmt::format_string<T...> format,
                                      T&&... values) {
    text += fmt::format("{:<12} {}\n", name, fmt::format(format, std::forward<T>(values)...));
  };
  add("node", "{}, advertised {}", summary.address,
      summary.advertised.empty() ? "nowhere" : summary.advertised);
  add("name", "{}", node.name);
  add("version", "{}", summary.version);
  add("epoch", "{}", summary.epoch);
  add("pid", "{}", summary.pid);
  add("up", "{}", human_ms(summary.uptime_ms));
  add("state", "{}", node.not_ready.empty() ? "ready" : node.not_ready);
  add("memory", "{} of {}: reserved {}, pinned {}, mapped {}", human_bytes(summary.memory_used),
      human_bytes(summary.memory_budget), human_bytes(node.reserved_bytes),
      human_bytes(node.pinned_bytes), human_bytes(node.mapped_bytes));
  add("disk", "{} of {}, free there {}", human_bytes(summary.disk_used),
      human_bytes(summary.disk_budget), human_bytes(node.disk_free));
  add("blobs", "{} at home here, {} relayed",
      node.blobs - std::min<uint64_t>(node.blobs, node.relayed_blobs), node.relayed_blobs);
  add("sessions", "{} on {} connections, {} leases", node.sessions, node.connections, node.leases);
  add("running", "{} uploads, {} calls", node.uploads, node.running_calls);
  add("received", "{}", human_bytes(node.received_bytes));
  add("fetched", "{} from homes, {} from other relays", human_bytes(node.fetched_home_bytes),
      human_bytes(node.fetched_peer_bytes));
  add("served", "{}", human_bytes(node.served_bytes));
  add("chunks", "{} demoted, {} dropped, {} quarantined", node.chunks_demoted, node.chunks_dropped,
      node.chunks_quarantined);
  add("failures", "{} checksums, {} logins, {} fetches from relays", node.checksum_failures,
      node.login_failures, node.peer_fetch_failures);
  add("descriptors", "{} of {}", node.descriptors_open, node.descriptor_limit);
  add("machine", "memory {}, this control group's {}", human_bytes(node.memory_of_machine),
      node.memory_limit == 0 ? "without a limit" : human_bytes(node.memory_limit));
  for (const auto& peer : node.unreachable) {
    add("unreachable", "{}: {}", peer.address, peer.error.to_string());
  }
  return text;
}

std::string json_of(const NodeReport& node) { return dump(object_of(node)); }

std::string nodes_header() {
  return fmt::format("{:<24} {:<9} {:>9} {:<9} {:>23} {:>23} {:>8} {:>8}\n", "NODE", "VERSION",
                     "UP", "STATE", "MEMORY", "DISK", "BLOBS", "SESSIONS");
}

std::string line_of(const NodeReport& node) {
  const NodeSummary& summary = node.summary;
  return fmt::format("{:<24} {:<9} {:>9} {:<9} {:>23} {:>23} {:>8} {:>8}\n", summary.address,
                     summary.version, human_ms(summary.uptime_ms), state_of(node),
                     part_of(summary.memory_used, summary.memory_budget),
                     part_of(summary.disk_used, summary.disk_budget), node.blobs, node.sessions);
}

std::string top_header() {
  return fmt::format("{:<22} {:<9} {:>16} {:>16} {:>8} {:>7} {:>10} {:>10} {:>10}\n", "NODE",
                     "STATE", "MEMORY", "DISK", "BLOBS", "UPLOADS", "RECEIVED/s", "FETCHED/s",
                     "SERVED/s");
}

std::string line_of(const NodeRates& rates) {
  const NodeReport& node = rates.now;
  const NodeSummary& summary = node.summary;
  const auto share = [](uint64_t used, uint64_t budget) {
    if (budget == 0) return std::string("none");
    const double percent = 100 * static_cast<double>(used) / static_cast<double>(budget);
    return fmt::format("{:.0f} % of {}", percent, human_bytes(budget));
  };
  return fmt::format("{:<22} {:<9} {:>16} {:>16} {:>8} {:>7} {:>10} {:>10} {:>10}\n",
                     summary.address, state_of(node),
                     share(summary.memory_used, summary.memory_budget),
                     share(summary.disk_used, summary.disk_budget), node.blobs, node.uploads,
                     rate_text(rates.received), rate_text(rates.fetched), rate_text(rates.served));
}

std::string json_of(const NodeRates& rates) {
  Json value = object_of(rates.now);
  value["measured_seconds"] = rates.seconds;
  value["received_bytes_per_second"] = rates.received;
  value["fetched_bytes_per_second"] = rates.fetched;
  value["served_bytes_per_second"] = rates.served;
  return dump(value);
}

std::string text_of(const Usage& usage) {
  return fmt::format("{:>12} {:>12} {:>12} {:>12} {:>8}  {}\n", human_bytes(usage.size),
                     human_bytes(usage.stored_size), human_bytes(usage.memory_bytes),
                     human_bytes(usage.disk_bytes), usage.blobs, usage.key);
}

std::string json_of(const Usage& usage) {
  Json value;
  value["key"] = usage.key;
  value["blobs"] = usage.blobs;
  value["size"] = usage.size;
  value["stored_size"] = usage.stored_size;
  value["memory_bytes"] = usage.memory_bytes;
  value["disk_bytes"] = usage.disk_bytes;
  return dump(value);
}

std::string text_of(const BenchReport& report) {
  return fmt::format("{} of random bytes: put {:.2f} s, {}/s; get {:.2f} s, {}/s\n",
                     human_bytes(report.size), report.put_seconds,
                     rate_text(per_second(report.size, report.put_seconds)), report.get_seconds,
                     rate_text(per_second(report.size, report.get_seconds)));
}

std::string json_of(const BenchReport& report) {
  Json value;
  value["size"] = report.size;
  value["put_seconds"] = report.put_seconds;
  value["get_seconds"] = report.get_seconds;
  return dump(value);
}

std::string text_of(const Finding& finding) {
  return fmt::format("{} {}{}: {}\n  {}\n", finding.serious ? "PROBLEM" : "WARNING", finding.check,
                     finding.server.empty() ? "" : " at " + finding.server, finding.problem,
                     finding.advice);
}

std::string json_of(const Finding& finding) {
  Json value;
  value["check"] = finding.check;
  value["server"] = finding.server.empty() ? Json() : Json(finding.server);
  value["serious"] = finding.serious;
  value["problem"] = finding.problem;
  value["advice"] = finding.advice;
  return dump(value);
}

std::string text_of(const TransferReport& report) {
  return fmt::format("{}: {} in {} chunks, {} stored, {:.2f} s, {}/s\n", report.key,
                     human_bytes(report.size), report.chunks, human_bytes(report.stored_size),
                     report.seconds, rate_text(per_second(report.size, report.seconds)));
}

std::string json_of(const TransferReport& report) {
  Json value;
  value["key"] = report.key;
  value["size"] = report.size;
  value["stored_size"] = report.stored_size;
  value["chunks"] = report.chunks;
  value["chunks_reread"] = report.chunks_reread;
  value["seconds"] = report.seconds;
  return dump(value);
}

std::string json_of_key(const char* done, const std::string& key) {
  Json value;
  value[done] = key;
  return dump(value);
}

}  // namespace bigcast::cli
