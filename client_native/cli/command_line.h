#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/secret.h"

namespace bigcast::cli {

// What was asked for, checked. Keys and sizes are parsed; nothing was connected to or opened.
struct CommandLine {
  enum class Command : uint8_t { kPrint, kPut, kGet, kList, kStat, kRemove, kPing };
  Command command = Command::kPrint;
  std::string text;  // for kPrint: help or version

  std::vector<std::string> servers;
  std::string local_node;
  Secret secret;
  bool json = false;
  bool quiet = false;
  uint32_t timeout_ms = limits::kProgressTimeoutMs;

  std::string file;       // put and get; "-" is standard input or output
  std::vector<Key> keys;  // put, get and stat: one; rm: one or more
  Key prefix;             // ls; the name may be empty
  bool replace = false;
  bool durable = false;
  bool mappable = false;
  bool compress = true;
  uint32_t chunk_size = limits::kChunkSizeDefault;
  uint32_t homes = 1;
};

using Environment = std::function<const char*(const char*)>;

// INVALID_ARGUMENT names the flag or value that is wrong; IO if the secret file can't be read.
Result<CommandLine> parse_command_line(int argc, const char* const* argv,
                                       const Environment& environment);

// True if errors are to be JSON, even when the rest of the command line is wrong.
bool wants_json(int argc, const char* const* argv);

}  // namespace bigcast::cli
