#include "client_native/cli/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "base/limits.h"
#include "client_native/cli/output.h"
#include "rpc/address.h"

namespace bigcast::cli {

namespace {

constexpr int64_t kClockSkewMaxMs = 5'000;
constexpr uint64_t kDescriptorsMin = 4'096;
constexpr uint64_t kBesideBudget = 64 * limits::kMiB;  // code, index and chunks in flight

using Findings = std::vector<Finding>;

// Adds what is wrong with one node.
class Examination {
 public:
  Examination(const Patient& patient, Findings& findings)
      : patient_(patient), node_(patient.report), findings_(findings) {}

  void run() {
    if (patient_.error) return unreachable(*patient_.error);
    readiness();
    version();
    clock();
    descriptors();
    memory();
    disk();
    address();
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
    found("not-ready", true, "the node is not ready: " + node_.not_ready,
          node_.not_ready == "draining" ? "it is about to stop: wait for its successor"
                                        : "look at its disk and its log, then restart it");
  }

  void version() {
    if (node_.summary.version == patient_.client_version) return;
    found("version", false,
          fmt::format("it runs {}, this command is {}", node_.summary.version,
                      patient_.client_version),
          "install the same version everywhere; nodes can be restarted one after the other");
  }

  void clock() {
    if (std::abs(patient_.clock_ahead_ms) <= kClockSkewMaxMs) return;
    found("clock", false,
          fmt::format("its clock is {} {} this machine's",
                      human_ms(static_cast<uint64_t>(std::abs(patient_.clock_ahead_ms))),
                      patient_.clock_ahead_ms > 0 ? "ahead of" : "behind"),
          "leases don't mind, but logs will mislead: run a time service (chrony, "
          "systemd-timesyncd) on both");
  }

  void descriptors() {
    if (node_.descriptor_limit == 0 || node_.descriptor_limit >= kDescriptorsMin) return;
    found("descriptors", node_.descriptors_open * 10 >= node_.descriptor_limit * 8,
          fmt::format("it may open {} descriptors and has {} open", node_.descriptor_limit,
                      node_.descriptors_open),
          "raise the limit to 65536: LimitNOFILE= of the unit, or ulimit -n before it starts");
  }

  void memory() {
    const uint64_t needed = node_.summary.memory_budget + kBesideBudget;
    const auto too_small = [&](uint64_t limit, const char* what) {
      if (limit == 0 || needed <= limit) return;
      found("memory", true,
            fmt::format("its memory budget of {} and {} beside it are more than the {} of {}",
                        human_bytes(node_.summary.memory_budget), human_bytes(kBesideBudget),
                        human_bytes(limit), what),
            "set 'memory' lower, or the limit higher; else the kernel will kill it");
    };
    too_small(node_.memory_limit, "its control group");
    too_small(node_.memory_of_machine, "its machine");
  }

  void disk() {
    if (node_.summary.disk_budget == 0) return;
    const uint64_t wanted =
        node_.summary.disk_budget - std::min(node_.summary.disk_used, node_.summary.disk_budget);
    if (node_.disk_free >= wanted) return;
    found("disk", node_.disk_free < limits::kExtentSize,
          fmt::format("it may use {} more of its disk, on which {} are free", human_bytes(wanted),
                      human_bytes(node_.disk_free)),
          "set 'disk_size' lower, or make room");
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
    const std::string& version = patient.report.summary.version;
    if (version == first->report.summary.version) continue;
    findings.push_back({patient.server, "version", false,
                        fmt::format("it runs {}, {} runs {}", version, first->server,
                                    first->report.summary.version),
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
