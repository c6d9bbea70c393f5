#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/secret.h"
#include "rpc/address.h"

namespace bigcast {

// What a node is told at its start. Each setting has one name in three spellings: `disk_size` in
// the TOML file, BIGCAST_DISK_SIZE in the environment, --disk-size on the command line; a later
// one in this order wins.
struct Config {
  std::vector<rpc::Address> listen;  // TCP; empty: none
  std::optional<rpc::Address> socket;
  std::optional<rpc::Address> advertise;  // default: the first of `listen`
  std::optional<rpc::Address> http;       // empty: none
  uint64_t memory_bytes = 1 * limits::kGiB;
  std::string disk_path;  // empty: no disk tier
  uint64_t disk_bytes = 0;
  std::string secret_file;
  Secret secret;  // empty: an open node, on loopback only
  Duration lease_grace = std::chrono::milliseconds(limits::kLeaseGraceDefaultMs);
  Duration session_timeout = std::chrono::milliseconds(limits::kSessionTimeoutMs);
  std::optional<Duration> exit_when_idle;
  bool daemonize = false;
  std::string log_file;
  std::string log_level = "info";
  std::string name = "bigcastd";
};

// What the command line asks for.
struct CommandLine {
  enum class Action : uint8_t { kRun, kCheckConfig, kPrintAndExit } action = Action::kRun;
  Config config;
  std::string text;  // for kPrintAndExit: help or version
};

// Reads the command line, then the file it names (or BIGCAST_CONFIG), and `environment` (a look-up
// that returns null for what is not set). The secret itself is accepted as BIGCAST_SECRET only.
// INVALID_ARGUMENT or IO; the message names the setting as the user spelt it and, for an unknown
// one, the nearest valid name.
Result<CommandLine> parse_command_line(
    int argc, const char* const* argv,
    const std::function<const char*(const std::string&)>& environment);

// The member of `candidates` with the least edit distance to `word`, or empty if all are far off.
std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace bigcast
