#include "base/ids.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <cstdlib>

#include "base/limits.h"

namespace bigcast {
namespace {

// Length in bytes of the UTF-8 sequence at s[i], or 0 where it is malformed, overlong or a
// surrogate (Unicode 15, table 3-7).
size_t utf8_sequence_length(std::string_view s, size_t i) {
  const auto byte = [&](size_t k) -> unsigned {
    return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u;
  };
  const auto in = [](unsigned b, unsigned low, unsigned high) { return b >= low && b <= high; };
  const unsigned b0 = byte(i);
  if (b0 < 0x80) return 1;
  if (in(b0, 0xC2, 0xDF)) return in(byte(i + 1), 0x80, 0xBF) ? 2 : 0;
  if (in(b0, 0xE0, 0xEF)) {
    const unsigned low = b0 == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = b0 == 0xED ? 0x9F : 0xBF;
    return in(byte(i + 1), low, high) && in(byte(i + 2), 0x80, 0xBF) ? 3 : 0;
  }
  if (in(b0, 0xF0, 0xF4)) {
    const unsigned low = b0 == 0xF0 ? 0x90 : 0x80;
    const unsigned high = b0 == 0xF4 ? 0x8F : 0xBF;
    return in(byte(i + 1), low, high) && in(byte(i + 2), 0x80, 0xBF) && in(byte(i + 3), 0x80, 0xBF)
               ? 4
               : 0;
  }
  return 0;
}

bool is_namespace_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

}  // namespace

Id128 Id128::random() {
  Id128 id;
  while (id.is_zero()) {
    if (getrandom(&id, sizeof id, 0) != static_cast<ssize_t>(sizeof id)) std::abort();
  }
  return id;
}

Result<Id128> Id128::parse(std::string_view s) {
  if (s.size() != 32) {
    return fail(ErrorCode::kInvalidArgument, "an id is 32 hexadecimal digits");
  }
  uint64_t words[2] = {0, 0};
  for (size_t i = 0; i < 32; ++i) {
    const char c = s[i];
    uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint64_t>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<uint64_t>(c - 'A') + 10;
    } else {
      return fail(ErrorCode::kInvalidArgument, "an id is 32 hexadecimal digits");
    }
    words[i / 16] = words[i / 16] << 4 | digit;
  }
  return Id128{words[0], words[1]};
}

std::string Id128::to_string() const { return fmt::format("{:016x}{:016x}", hi, lo); }

Result<void> check_namespace(std::string_view name_space) {
  if (name_space.empty() || name_space.size() > limits::kNamespaceSizeMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("namespace: must have 1 to {} characters, has {}",
                            limits::kNamespaceSizeMax, name_space.size()));
  }
  for (char c : name_space) {
    if (!is_namespace_character(c)) {
      return fail(ErrorCode::kInvalidArgument,
                  "namespace: only letters, digits, '.', '_' and '-' are allowed");
    }
  }
  if (name_space.front() == '.') {
    return fail(ErrorCode::kInvalidArgument, "namespace: must not start with '.'");
  }
  return {};
}

Result<void> check_name(std::string_view name) {
  if (name.empty() || name.size() > limits::kNameSizeMax) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("name: must have 1 to {} bytes, has {}",
                                                         limits::kNameSizeMax, name.size()));
  }
  for (size_t i = 0; i < name.size();) {
    const size_t length = utf8_sequence_length(name, i);
    if (length == 0) return fail(ErrorCode::kInvalidArgument, "name: is not valid UTF-8");
    const auto c = static_cast<unsigned char>(name[i]);
    if (c < 0x20 || c == 0x7F) {
      return fail(ErrorCode::kInvalidArgument, "name: control characters are not allowed");
    }
    i += length;
  }
  for (size_t start = 0; start <= name.size();) {
    const size_t end = std::min(name.find('/', start), name.size());
    const std::string_view part = name.substr(start, end - start);
    if (part.empty() || part == "." || part == "..") {
      return fail(ErrorCode::kInvalidArgument,
                  "name: parts between '/' must not be empty, '.' or '..'");
    }
    start = end + 1;
  }
  return {};
}

Result<Key> Key::parse(std::string_view key) {
  const size_t slash = key.find('/');
  if (slash == std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "key: must be namespace/name");
  }
  Key result{std::string(key.substr(0, slash)), std::string(key.substr(slash + 1))};
  BIGCAST_TRY(check_namespace(result.name_space));
  BIGCAST_TRY(check_name(result.name));
  return result;
}

}  // namespace bigcast
