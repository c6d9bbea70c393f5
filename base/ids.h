#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bigcast {

// 128 random bits, new for every create: an abandoned or replaced blob never mixes with the next
// one of the same name. Also used for leases and node epochs.
struct Id128 {
  uint64_t hi = 0;
  uint64_t lo = 0;

  static Id128 random();                           // from the system's generator
  static Result<Id128> parse(std::string_view s);  // 32 hexadecimal digits
  std::string to_string() const;                   // 32 lower-case hexadecimal digits
  bool is_zero() const { return hi == 0 && lo == 0; }
  auto operator<=>(const Id128&) const = default;
};
using BlobId = Id128;
using LeaseId = Id128;

// 128-bit XXH3 digest of a chunk's stored bytes. Guards against accidents, not against forgery.
struct Digest128 {
  uint64_t hi = 0;
  uint64_t lo = 0;
  bool operator==(const Digest128&) const = default;
};

// `namespace/name`. A namespace is 1–128 of [A-Za-z0-9._-], not starting with '.'; a name is
// 1–1024 bytes of valid UTF-8 without control characters; parts between '/' may not be empty,
// "." or "..". Both return INVALID_ARGUMENT that names the offender.
Result<void> check_namespace(std::string_view name_space);
Result<void> check_name(std::string_view name);

struct Key {
  std::string name_space;
  std::string name;
  static Result<Key> parse(std::string_view key);  // splits at the first '/'
  std::string to_string() const { return name_space + "/" + name; }
};

}  // namespace bigcast

template <>
struct std::hash<bigcast::Id128> {
  size_t operator()(const bigcast::Id128& id) const noexcept { return id.hi ^ (id.lo * 31); }
};
