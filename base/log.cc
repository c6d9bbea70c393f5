#include "base/log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/limits.h"

namespace bigcast {
namespace {

constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%e%z %l %v";
constexpr const char* kJsonPattern =
    R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":%*})";

// %*: the message as a JSON string.
class JsonMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/,
              spdlog::memory_buf_t& out) override {
    const std::string quoted = json_quoted({message.payload.data(), message.payload.size()});
    out.append(quoted.data(), quoted.data() + quoted.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<JsonMessage>();
  }
};

Result<spdlog::level::level_enum> parse_level(std::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("log level '{}': use trace, debug, info, warn, error or off", level));
  }
  return parsed;
}

}  // namespace

spdlog::logger& log() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto created = std::make_shared<spdlog::logger>(
        "bigcast", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    created->set_pattern(kTextPattern);
    created->set_level(spdlog::level::warn);
    created->flush_on(spdlog::level::trace);
    return created;
  }();
  return *logger;
}

Result<void> check_log_level(std::string_view level) {
  BIGCAST_TRY(parse_level(level));
  return {};
}

Result<void> set_log_level(std::string_view level) {
  BIGCAST_ASSIGN(const auto parsed, parse_level(level));
  log().set_level(parsed);
  return {};
}

Result<LogFormat> parse_log_format(std::string_view text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is neither text nor json", text));
}

void set_log_format(LogFormat format) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (format == LogFormat::kJson) formatter->add_flag<JsonMessage>('*');
  formatter->set_pattern(format == LogFormat::kJson ? kJsonPattern : kTextPattern);
  log().set_formatter(std::move(formatter));
}

std::string json_quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
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
