#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bigcast::rpc {

// Where a node listens: "192.0.2.1:7420", "[2001:db8::1]:7420", "unix:/run/bigcast.sock" or
// "unix:@name" (abstract; private to a network namespace). Host names are resolved by parse.
struct Address {
  enum class Kind : uint8_t { kTcp, kUnix } kind = Kind::kTcp;
  std::string host;   // numeric IP
  uint16_t port = 0;  // 0 when listening: the system chooses
  std::string path;   // for kUnix; starts with '@' when abstract

  static Result<Address> parse(std::string_view text);  // INVALID_ARGUMENT quotes `text`
  static Address tcp(std::string host, uint16_t port);
  static Address unix_socket(std::string path);
  std::string to_string() const;
  bool is_loopback() const;  // 127/8, ::1 or a Unix socket
  bool operator==(const Address&) const = default;
};

// The one form of an IPv4 or IPv6 address in figures, of which connecting looks up no name; nothing
// if `host` is none.
std::optional<std::string> canonical_ip(const std::string& host);

}  // namespace bigcast::rpc
