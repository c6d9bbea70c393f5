#pragma once

#include <spdlog/logger.h>

#include <string_view>

#include "base/error.h"

namespace bigcast {

// The process's logger: to standard error, one line a record, never a secret in it. Libraries
// that run inside a JVM log at warning and above only. Thread-safe.
spdlog::logger& log();

// `level` is one of trace, debug, info, warn, error, off.
Result<void> set_log_level(std::string_view level);

}  // namespace bigcast
