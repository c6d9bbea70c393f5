#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/secret.h"
#include "rpc/address.h"
#include "server/tls.h"

namespace bigcast {

// What a node is told at its start (server/settings.h has the table). Each setting has one name in
// three spellings: `disk_size` in the TOML file, BIGCAST_DISK_SIZE in the environment, --disk-size
// on the command line; a later one in this order wins.
struct Config {
  std::vector<rpc::Address> listen;  // TCP; empty: none
  std::optional<rpc::Address> socket;
  std::optional<rpc::Address> advertise;  // default: the first of `listen`
  std::optional<rpc::Address> http;       // empty: none
  uint64_t memory_bytes = 1 * limits::kGiB;
  uint32_t memory_high = limits::kMemoryHighDefault;  // percent of it
  uint32_t memory_low = limits::kMemoryLowDefault;
  std::string policy = "demand";                       // of eviction::kPolicyNames
  std::map<std::string, uint64_t, std::less<>> quota;  // bytes, by namespace
  uint64_t default_quota = 0;                          // of all other namespaces; 0: none
  std::string record_trace;                            // empty: none is recorded
  std::string disk_path;                               // empty: no disk tier
  uint64_t disk_bytes = 0;
  uint64_t scrub_rate = limits::kScrubRateDefault;  // bytes/s; 0: none
  uint64_t link_speed = 0;                          // bytes a second; 0: unknown
  std::string secret_file;
  Secret secret;  // empty: an open node, on loopback only
  std::string http_password_file;
  Secret http_password;  // USER:PASSWORD; empty: HTTP is open, on loopback only
  std::string http_certificate_file;
  std::string http_key_file;
  std::shared_ptr<const TlsIdentity> http_tls;  // of these files; null: HTTP is in clear
  std::string audit_log;                        // empty: none
  Duration lease_grace = std::chrono::milliseconds(limits::kLeaseGraceDefaultMs);
  Duration session_timeout = std::chrono::milliseconds(limits::kSessionTimeoutMs);
  Duration mapped_warning = std::chrono::milliseconds(limits::kMappedWarningDefaultMs);
  std::optional<Duration> exit_when_idle;
  Duration drain_timeout = std::chrono::milliseconds(limits::kDrainTimeoutMs);
  bool daemonize = false;
  std::string log_file;
  std::string log_level = "info";
  LogFormat log_format = LogFormat::kText;
  std::string name = "bigcastd";

  // Whether blobs outlive the node: an application's own ends with all it has.
  bool keeps() const { return !disk_path.empty() && !exit_when_idle; }
};

// What the command line asks for.
struct CommandLine {
  enum class Action : uint8_t { kRun, kCheckConfig, kPrintAndExit, kVersion } action = Action::kRun;
  Config config;
  std::string text;  // what to print: help, the version, or the settings that --check-config found
  struct Chosen {
    std::string text;
    std::string source;  // as the user spelt it: a flag, a variable, "FILE: key"; or "default"
  };
  std::map<std::string, Chosen> effective;  // by key; without what nobody has set
};

// Looks a variable up; null if it is not set.
using Environment = std::function<const char*(const std::string&)>;

// Reads the command line, the file it names (or BIGCAST_CONFIG) and the environment. The secret
// itself is accepted as BIGCAST_SECRET only. INVALID_ARGUMENT or IO; the message names the setting
// as the user spelt it and, for an unknown one, the nearest valid name.
Result<CommandLine> parse_command_line(int argc, const char* const* argv,
                                       const Environment& environment);

// As `--config path` alone, but without a command line's cost: that is most of a small file's.
Result<CommandLine> parse_config_file(const std::string& path, const Environment& environment);

// Applies to a running node what is not its start's (Setting::reloads) of what was just read again.
// Returns a sentence for each setting that changed, those that wait for the next start included.
std::vector<std::string> reload(CommandLine& running, CommandLine next);

// A sentence for each of the variables (`environ`) that look like a setting's, but are none's.
std::vector<std::string> misspelt_variables(const char* const* environment);

}  // namespace bigcast
