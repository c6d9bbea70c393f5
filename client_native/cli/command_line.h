#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/secret.h"
#include "client_native/client.h"

namespace bigcast::cli {

// Some names of a namespace: those that match the glob (* and ? also match '/'), or, if it has
// none of *?[, that begin with it.
struct KeyPattern {
  std::string name_space;
  std::string text;

  bool is_glob() const { return text.find_first_of("*?[") != std::string::npos; }
  std::string prefix() const { return text.substr(0, text.find_first_of("*?[")); }
  bool matches(const std::string& name) const;
};

// What was asked for, checked. Keys and sizes are parsed; nothing was connected to or opened.
struct CommandLine {
  enum class Command : uint8_t {
    kPrint,
    kPut,
    kGet,
    kList,
    kStat,
    kRemove,
    kDiskUsage,
    kPing,
    kInfo,
    kNodes,
    kDoctor,
    kBench,
    kPin,
    kUnpin,
    kTop
  };
  Command command = Command::kPrint;
  std::string text;  // for kPrint: help, version, a completion script, the man page, a key

  std::vector<std::string> servers;
  std::string local_node;
  Secret secret;
  // Where the namespace is all the same: one that the secret opens.
  std::string any_namespace = "default";
  bool json = false;
  bool quiet = false;
  uint32_t timeout_ms = limits::kProgressTimeoutMs;

  // put: a file for each key; get: one. "-" is standard input or output.
  std::vector<std::string> files;
  std::vector<Key> keys;            // get and stat: one; put and rm: one or more
  std::vector<KeyPattern> listed;   // rm of globs, ls and du
  std::optional<ByteRange> range;   // get
  std::optional<Error> bad_secret;  // doctor: a secret file that can't be used
  bool replace = false;
  bool durable = false;
  bool mappable = false;
  uint64_t ttl_ms = 0;  // 0: none
  bool compress = true;
  uint32_t chunk_size = limits::kChunkSizeDefault;
  uint32_t homes = 1;
  uint32_t replicas = 1;
  uint64_t bench_bytes = 256 * limits::kMiB;
  uint32_t interval_ms = 2000;          // top
  std::optional<uint32_t> repetitions;  // ... nothing: until it is interrupted
};

using Environment = std::function<const char*(const char*)>;

// INVALID_ARGUMENT names the flag or value that is wrong; IO if the secret file can't be read.
Result<CommandLine> parse_command_line(int argc, const char* const* argv,
                                       const Environment& environment);

// True if errors are to be JSON, even when the rest of the command line is wrong.
bool wants_json(int argc, const char* const* argv);

}  // namespace bigcast::cli
