#include "client_native/cli/nodes.h"

#include <fmt/format.h>

#include <chrono>

#include "client_native/cli/commands.h"
#include "client_native/cli/doctor.h"
#include "client_native/cli/output.h"

namespace bigcast::cli {

std::vector<std::string> servers_of(const CommandLine& line) {
  auto servers = line.servers;
  if (!line.local_node.empty()) servers.push_back(line.local_node);
  return servers;
}

namespace {

Result<NodeSummary> ask(const CommandLine& line, const std::string& server) {
  BIGCAST_ASSIGN(const auto client, connect_to(line, {server}, line.any_namespace));
  return client->ping();
}

Result<NodeReport> ask_all(const CommandLine& line, const std::string& server) {
  BIGCAST_ASSIGN(const auto client, connect_to(line, {server}, line.any_namespace));
  return client->report();
}

template <typename Ask, typename Print>
Result<void> for_each_node(const CommandLine& line, Ask ask_one, Print print_one) {
  Outcome outcome(line.json);
  for (const auto& server : servers_of(line)) {
    const auto node = ask_one(line, server);
    if (node) {
      BIGCAST_TRY(print(print_one(*node)));
    } else {
      outcome.add(tl::unexpected(node.error()));
    }
  }
  return outcome.first();
}

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Patient examine(const CommandLine& line, const std::string& server) {
  Patient patient;
  patient.server = server;
  patient.client_version = BIGCAST_VERSION;
  const auto node = ask_all(line, server);
  patient.clock_ms = now_ms();
  if (node) {
    patient.node = *node;
  } else {
    patient.error = node.error();
  }
  return patient;
}

}  // namespace

Result<void> ping(const CommandLine& line) {
  return for_each_node(line, ask, [&](const NodeSummary& node) {
    return line.json ? json_of(node) : text_of(node);
  });
}

Result<void> info(const CommandLine& line) {
  return for_each_node(line, ask_all, [&](const NodeReport& node) {
    return line.json ? json_of(node) : description_of(node);
  });
}

Result<void> nodes(const CommandLine& line) {
  if (!line.json && !line.quiet) BIGCAST_TRY(print(nodes_header()));
  return for_each_node(line, ask_all, [&](const NodeReport& node) {
    return line.json ? json_of(node) : line_of(node);
  });
}

Result<void> doctor(const CommandLine& line) {
  std::vector<Finding> findings;
  std::vector<Patient> patients;
  if (line.bad_secret) findings.push_back(diagnose_secret(*line.bad_secret));
  // Without its secret every node would seem to be the problem.
  if (!line.bad_secret) {
    for (const auto& server : servers_of(line)) patients.push_back(examine(line, server));
  }
  const auto more = diagnose(patients);
  findings.insert(findings.end(), more.begin(), more.end());
  for (const Finding& finding : findings) {
    BIGCAST_TRY(print(line.json ? json_of(finding) : text_of(finding)));
  }
  if (findings.empty()) {
    if (line.json || line.quiet) return {};
    return print(fmt::format("{} nodes examined: nothing found\n", patients.size()));
  }
  return fail(ErrorCode::kAborted, fmt::format("{} findings", findings.size()));
}

}  // namespace bigcast::cli
