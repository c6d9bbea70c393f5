#include "tests/bench/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <string_view>

namespace bigcast::bench {
namespace {

constexpr size_t kRecordSize = 24;  // u32 time, u64 id, u32 size, i64 next access
constexpr size_t kIdAt = 4;
constexpr size_t kSizeAt = 12;

tl::unexpected<Error> bad_trace(std::string message) {
  return fail(ErrorCode::kInvalidArgument, "TRACE: " + std::move(message));
}

Result<std::ifstream> open_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || file.peek() == std::ifstream::traits_type::eof()) {
    return bad_trace(fmt::format("'{}' can't be read or is empty", path));
  }
  return file;
}

template <typename T>
T little_endian(const char* bytes) {
  T value = 0;
  for (size_t i = sizeof(T); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// Takes the field before the next comma, or the rest, off the front.
std::string_view take_field(std::string_view& line) {
  const size_t comma = std::min(line.find(','), line.size());
  std::string_view field = line.substr(0, comma);
  line.remove_prefix(std::min(comma + 1, line.size()));
  while (!field.empty() && field.front() == ' ') field.remove_prefix(1);
  while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
  return field;
}

std::optional<uint64_t> number_in(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_time(std::string_view text) {  // may be a fraction; nothing depends on it
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isdigit(c) != 0 || c == '.';
  });
}

}  // namespace

Result<TraceFormat> format_of(const std::string& path) {
  BIGCAST_ASSIGN(std::ifstream file, open_file(path));
  std::array<char, kRecordSize> begin{};
  file.read(begin.data(), begin.size());
  const std::string_view text(begin.data(), static_cast<size_t>(file.gcount()));
  const bool printable = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isprint(c) != 0 || std::isspace(c) != 0;
  });
  if (!printable) return TraceFormat::kOracleGeneral;  // though it may begin with any byte
  return text.starts_with('{') ? TraceFormat::kBroadcast : TraceFormat::kCsv;
}

Result<TraceReader> TraceReader::open(const std::string& path, TraceFormat format) {
  TraceReader reader;
  BIGCAST_ASSIGN(reader.file_, open_file(path));
  reader.format_ = format;
  return reader;
}

Result<std::optional<Request>> TraceReader::next() {
  while (true) {
    auto request = format_ == TraceFormat::kCsv ? next_line() : next_record();
    if (!request || !*request || (*request)->size > 0) return request;
  }
}

Result<std::optional<Request>> TraceReader::next_record() {
  std::array<char, kRecordSize> record{};
  file_.read(record.data(), record.size());
  if (file_.gcount() == 0) return std::nullopt;
  ++count_;
  if (file_.gcount() != kRecordSize) {
    return bad_trace(
        fmt::format("record {}: has {} of {} bytes", count_, file_.gcount(), kRecordSize));
  }
  return Request{little_endian<uint64_t>(record.data() + kIdAt),
                 little_endian<uint32_t>(record.data() + kSizeAt)};
}

Result<std::optional<Request>> TraceReader::next_line() {
  while (std::getline(file_, line_)) {
    ++count_;
    std::string_view rest = line_;
    if (rest.ends_with('\r')) rest.remove_suffix(1);
    if (rest.empty()) continue;
    const auto time = take_field(rest);
    if (count_ == 1 && !is_time(time)) continue;  // a header
    const auto id = number_in(take_field(rest));
    const auto size = number_in(take_field(rest));
    if (!is_time(time) || !id || !size || !rest.empty()) {
      return bad_trace(fmt::format("line {}: '{}' is not time,id,size", count_, line_));
    }
    return Request{*id, *size};
  }
  return std::nullopt;
}

}  // namespace bigcast::bench
