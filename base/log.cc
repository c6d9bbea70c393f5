#include "base/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "base/limits.h"

namespace bigcast {

spdlog::logger& log() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto created = std::make_shared<spdlog::logger>(
        "bigcast", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    created->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    created->set_level(spdlog::level::warn);
    created->flush_on(spdlog::level::trace);
    return created;
  }();
  return *logger;
}

Result<void> set_log_level(std::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("log level '{}': use trace, debug, info, warn, error or off", level));
  }
  log().set_level(parsed);
  return {};
}

std::string quotable(std::string_view text) {
  std::string line;
  for (const char c : text.substr(0, limits::kLoggedTextMax)) {
    const bool plain = c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
    line += plain ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  if (text.size() > limits::kLoggedTextMax) line += "...";
  return line;
}

}  // namespace bigcast
