#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/limits.h"
#include "base/secret.h"

namespace bigcast {

// How embedded mode starts its nodes: one a host (network namespace) and application, elected by
// binding the abstract socket "bigcast-<application id>".
struct EmbeddedNodeOptions {
  std::string program;         // path of bigcastd
  std::string application_id;  // 32 hexadecimal digits, also the lease
  Secret secret;               // goes to the node by its environment, never by argument
  std::string listen_host;     // numeric IP to bind; empty: Unix socket only
  uint16_t listen_port = 0;    // 0: the system chooses
  std::string advertise_host;  // numeric IP that other hosts reach it at; empty: listen_host
  uint64_t memory_bytes = 0;   // 0: the default of default_node_memory()
  std::vector<std::string> disk_paths;  // the first writable is used; empty: no disk tier
  uint64_t disk_bytes = 0;
  uint32_t grace_ms = 0;  // 0: default
  uint32_t start_timeout_ms = limits::kNodeStartTimeoutMs;
  std::string log_file;         // empty: discarded
  std::string trace_directory;  // made if it is not there; empty: nothing is recorded
};

// min(1 GiB, 5 % of RAM, half of what the cgroup has free), at least 64 MiB.
uint64_t default_node_memory();

// "unix:@bigcast-<application id>"
std::string embedded_node_address(const std::string& application_id);

// Whether a node of the application answers on this host and does not drain. UNAUTHENTICATED if
// someone else has its socket. Thread-safe; blocks, at most limits::kNodeStartTimeoutMs.
Result<bool> embedded_node_answers(const std::string& application_id, const Secret& secret);

// Makes sure that a node answers on this host: attaches to it unless it drains, else starts one (in
// a session of its own, so that it outlives this process) and waits until it is ready, at most
// start_timeout_ms. Returns true if this call started it. UNAVAILABLE with the node's own words if
// it can't start. Thread-safe; blocks.
Result<bool> ensure_embedded_node(const EmbeddedNodeOptions& options);

}  // namespace bigcast
