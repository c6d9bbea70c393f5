#include "client_native/cli/doctor.h"

#include <fmt/format.h>

#include "rpc/address.h"

namespace bigcast::cli {

namespace {

using Findings = std::vector<Finding>;

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
    if (!node_.draining) return;
    found("not-ready", true, "the node is draining: it is about to stop",
          "wait for its successor, or start it again");
  }

  void version() {
    if (node_.version == patient_.client_version) return;
    found("version", false,
          fmt::format("it runs {}, this command is {}", node_.version, patient_.client_version),
          "install the same version everywhere; nodes can be restarted one after the other");
  }

  void address() {
    const auto advertised = rpc::Address::parse(node_.advertised);
    const auto reached = rpc::Address::parse(patient_.server);
    if (!advertised || !reached || reached->kind != rpc::Address::Kind::kTcp) return;
    if (!advertised->is_loopback() || reached->is_loopback()) return;
    found("address", true, fmt::format("it tells others to reach it at {}", node_.advertised),
          "set 'advertise' to an address that all hosts reach");
  }

  const Patient& patient_;
  const NodeSummary& node_;
  Findings& findings_;
};

// Nodes that are not of one version can work together, but should not for long.
void compare(const std::vector<Patient>& patients, Findings& findings) {
  const Patient* first = nullptr;
  for (const Patient& patient : patients) {
    if (patient.error) continue;
    if (first == nullptr) first = &patient;
    const std::string& version = patient.node.version;
    if (version == first->node.version) continue;
    findings.push_back(
        {patient.server, "version", false,
         fmt::format("it runs {}, {} runs {}", version, first->server, first->node.version),
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
