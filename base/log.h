#pragma once

#include <spdlog/logger.h>

#include <string>
#include <string_view>

#include "base/error.h"

namespace bigcast {

// The process's logger: to standard error, one line a record, never a secret in it. Libraries
// that run inside a JVM log at warning and above only. Thread-safe.
spdlog::logger& log();

// `level` is one of trace, debug, info, warn, error, off.
Result<void> set_log_level(std::string_view level);

// `text` as it may stand between quotation marks in a line of the log, whoever sent it: what is not
// printable ASCII, quotation marks and backslashes become \xNN; what is beyond
// limits::kLoggedTextMax bytes is left out.
std::string quotable(std::string_view text);

}  // namespace bigcast
