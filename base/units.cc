#include "base/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <span>
#include <string>

#include "base/limits.h"

namespace bigcast {
namespace {

struct Unit {
  std::string_view suffix;
  uint64_t factor;
};

constexpr Unit kSizes[] = {{"", 1},
                           {"k", limits::kKiB},
                           {"m", limits::kMiB},
                           {"g", limits::kGiB},
                           {"t", 1024 * limits::kGiB}};
constexpr uint64_t kSizeMax = uint64_t{1} << 62;
constexpr Unit kDurationsMs[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
constexpr uint64_t kDurationMsMax = uint64_t{365} * 24 * 3'600'000;

std::optional<uint64_t> parse_number(std::string_view text, std::span<const Unit> units,
                                     uint64_t most) {
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, problem] = std::from_chars(text.data(), end, number);
  if (problem != std::errc()) return std::nullopt;
  std::string suffix(rest, end);
  std::ranges::transform(suffix, suffix.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto unit = std::ranges::find(units, suffix, &Unit::suffix);
  if (unit == units.end() || number > most / unit->factor) return std::nullopt;
  return number * unit->factor;
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  if (const auto size = parse_number(text, kSizes, kSizeMax)) return *size;
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("'{}' is not a size: use bytes or a suffix k, m, g or t", text));
}

Result<Duration> parse_duration(std::string_view text) {
  const auto ms = parse_number(text, kDurationsMs, kDurationMsMax);
  if (ms) return std::chrono::milliseconds(*ms);
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("'{}' is not a duration: use a suffix ms, s, m or h", text));
}

}  // namespace bigcast
