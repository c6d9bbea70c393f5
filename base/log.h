#pragma once

#include <spdlog/logger.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bigcast {

// The process's logger: to standard error, one line a record, never a secret in it. Libraries
// that run inside a JVM log at warning and above only. Thread-safe.
spdlog::logger& log();

// `level` is one of trace, debug, info, warn, error, off; anything else is INVALID_ARGUMENT.
Result<void> check_log_level(std::string_view level);
Result<void> set_log_level(std::string_view level);

// Lines for people, or {"time":…,"level":…,"message":…} a line.
enum class LogFormat : uint8_t { kText, kJson };
Result<LogFormat> parse_log_format(std::string_view text);  // "text" or "json"
void set_log_format(LogFormat format);

// `text` as a JSON string, quotation marks and all, on one line; what is not UTF-8 is replaced.
std::string json_quoted(std::string_view text);

// `text` as it may stand between quotation marks in a line of the log, whoever sent it: what is not
// printable ASCII, quotation marks and backslashes become \xNN; what is beyond
// limits::kLoggedTextMax bytes is left out.
std::string quotable(std::string_view text);

}  // namespace bigcast
