#include "client_native/cli/doctor.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/limits.h"
#include "client_native/cli/output.h"
#include "rpc/address.h"

namespace bigcast::cli {

namespace {

using Findings = std::vector<Finding>;

constexpr int64_t kClockToleranceMs = 5'000;
// A node's connections, and as many blobs that have a memory file.
constexpr uint64_t kDescriptorsWanted = 2 * limits::kConnectionsMax;
// What a node uses beside its budget (docs/OPERATIONS.md).
constexpr uint64_t kMemoryBeside = 64 * limits::kMiB;

// Adds what is wrong with one node.
class Examination {
 public:
  Examination(const Patient& patient, Findings& findings)
      : patient_(patient), node_(patient.node), findings_(findings) {}

  void run() {
    if (patient_.error) return unreachable(*patient_.error);
    readiness();
    version();
    address();
    clock();
    descriptors();
    memory();
    large_pages();
    disk();
    damage();
    for (const auto& peer : node_.unreachable) unreachable_peer(peer);
  }

 private:
  void found(const char* check, bool serious, std::string problem, std::string advice) {
    findings_.push_back({patient_.server, check, serious, std::move(problem), std::move(advice)});
  }

  void unreachable(const Error& error) {
    switch (error.code) {
      case ErrorCode::kUnauthenticated:
      case ErrorCode::kPermissionDenied:
        return found("denied", true, "the node refuses the login: " + error.message,
                     "give both the same secret (--secret-file, or BIGCAST_SECRET); a node that "
                     "was just given another one needs SIGHUP");
      case ErrorCode::kUnsupported:
        return found("version", true, "another protocol version: " + error.message,
                     "install the same version of bigcast and bigcastd");
      default:
        return found("unreachable", true, error.to_string(),
                     "see that bigcastd runs there (systemctl status bigcastd), that its 'listen' "
                     "has this address, and that no firewall is between");
    }
  }

  void readiness() {
    if (node_.not_ready.empty()) return;
    found("not-ready", true, "the node takes no new blobs: " + node_.not_ready,
          node_.summary.draining ? "wait for its successor, or start it again"
                                 : "see its log, replace the disk, and start it again");
  }

  void version() {
    if (node_.summary.version == patient_.client_version) return;
    found("version", false,
          fmt::format("it runs {}, this command is {}", node_.summary.version,
                      patient_.client_version),
          "install the same version everywhere; nodes can be restarted one after the other");
  }

  void address() {
    const auto advertised = rpc::Address::parse(node_.summary.advertised);
    const auto reached = rpc::Address::parse(patient_.server);
    if (!advertised || !reached || reached->kind != rpc::Address::Kind::kTcp) return;
    if (!advertised->is_loopback() || reached->is_loopback()) return;
    found("address", true,
          fmt::format("it tells others to reach it at {}", node_.summary.advertised),
          "set 'advertise' to an address that all hosts reach");
  }

  void clock() {
    const auto half_way = static_cast<int64_t>(node_.summary.round_trip_ms / 2);
    const int64_t ahead_ms = node_.clock_ms - (patient_.clock_ms - half_way);
    if (std::abs(ahead_ms) <= kClockToleranceMs) return;
    found("clock", false,
          fmt::format("its clock is {} {} this host's", human_ms(std::abs(ahead_ms)),
                      ahead_ms > 0 ? "ahead of" : "behind"),
          "run chrony or another NTP client on both; Bigcast does not depend on it, but the times "
          "in logs can't be compared");
  }

  void descriptors() {
    const uint64_t limit = node_.descriptor_limit;
    const std::string state =
        fmt::format("{} of {} descriptors are open", node_.descriptors_open, limit);
    constexpr const char* kAdvice =
        "raise the hard limit (LimitNOFILE=65536 in its unit, or ulimit -Hn): each connection "
        "needs one, and each blob in memory that is above 1 MiB, of several chunks or mappable";
    if (node_.descriptors_open > limit / 10 * 8) return found("descriptors", true, state, kAdvice);
    if (limit < kDescriptorsWanted) found("descriptors", false, state, kAdvice);
  }

  void memory() {
    const uint64_t wanted = node_.summary.memory_budget + kMemoryBeside;
    if (node_.memory_limit > 0 && wanted > node_.memory_limit) {
      found("memory", true,
            fmt::format("it may use {} (its budget and {} beside it), but its control group is "
                        "killed above {}",
                        human_bytes(wanted), human_bytes(kMemoryBeside),
                        human_bytes(node_.memory_limit)),
            "lower 'memory', or raise the group's limit");
    } else if (wanted > node_.memory_of_machine / 10 * 9) {
      found("memory", true,
            fmt::format("it may use {} of the machine's {}", human_bytes(wanted),
                        human_bytes(node_.memory_of_machine)),
            "lower 'memory': other processes, such as executors, need some, too");
    }
  }

  void large_pages() {
    if (!node_.large_pages_unasked) return;
    found(
        "large-pages", false,
        "its kernel gives memory files large pages that they did not ask for: they may take up to "
        "twice what 'memory' says",
        "write advise or never to /sys/kernel/mm/transparent_hugepage/shmem_enabled and start the "
        "node again");
  }

  void disk() {
    const NodeSummary& summary = node_.summary;
    if (summary.disk_budget <= summary.disk_used) return;
    const uint64_t rest = summary.disk_budget - summary.disk_used;
    if (rest <= node_.disk_free) return;
    found("disk", true,
          fmt::format("it may still put {} on a file system with {} free", human_bytes(rest),
                      human_bytes(node_.disk_free)),
          "make room there, or lower 'disk_size'");
  }

  void damage() {
    if (node_.chunks_quarantined > 0) {
      found("damage", true,
            fmt::format("{} chunks on its disk are damaged", node_.chunks_quarantined),
            "put the blobs that its log names again; check the disk (smartctl)");
    } else if (node_.checksum_failures > 0) {
      found("damage", false,
            fmt::format("{} chunks failed their checksum since its start; none was delivered",
                        node_.checksum_failures),
            "see its log for where from; if it goes on, check memory, network cards and disks");
    }
  }

  void unreachable_peer(const NodeReport::Peer& peer) {
    found(
        "peer", true,
        fmt::format("it can't reach node {}: {}", peer.address, peer.error.to_string()),
        "see that the node runs, that 'advertise' of it is right, and that no firewall is between");
  }

  const Patient& patient_;
  const NodeReport& node_;
  Findings& findings_;
};

// Nodes that are not of one version can work together, but should not for long.
void compare(const std::vector<Patient>& patients, Findings& findings) {
  const Patient* first = nullptr;
  for (const Patient& patient : patients) {
    if (patient.error) continue;
    if (first == nullptr) first = &patient;
    const std::string& version = patient.node.summary.version;
    if (version == first->node.summary.version) continue;
    findings.push_back(
        {patient.server, "version", false,
         fmt::format("it runs {}, {} runs {}", version, first->server, first->node.summary.version),
         "install the same version on all nodes"});
  }
}

}  // namespace

std::vector<Finding> diagnose(const std::vector<Patient>& patients) {
  Findings findings;
  for (const Patient& patient : patients) Examination(patient, findings).run();
  compare(patients, findings);
  return findings;
}

Finding diagnose_secret(const Error& error) {
  return {"", "secret", true, error.message,
          "make it a file of 32 bytes or more that only you can read: (umask 077; openssl rand "
          "-hex 32 >FILE), or chmod 0600 it"};
}

}  // namespace bigcast::cli
