#include "rpc/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <charconv>
#include <memory>
#include <optional>

namespace bigcast::rpc {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr size_t kUnixPathMax = sizeof(sockaddr_un::sun_path) - 1;

tl::unexpected<bigcast::Error> bad_address(std::string_view text, std::string_view why) {
  return fail(ErrorCode::kInvalidArgument, fmt::format("address '{}': {}", text, why));
}

std::optional<uint16_t> parse_port(std::string_view digits) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) return {};
  return port;
}

Result<std::string> resolve(std::string_view text, const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (status != 0) return bad_address(text, gai_strerror(status));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  std::array<char, NI_MAXHOST> numeric{};
  if (getnameinfo(found->ai_addr, found->ai_addrlen, numeric.data(), numeric.size(), nullptr, 0,
                  NI_NUMERICHOST) != 0) {
    return bad_address(text, "the host has no IP address");
  }
  return std::string(numeric.data());
}

}  // namespace

Result<Address> Address::parse(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return bad_address(text, "has a NUL character");
  if (text.starts_with(kUnixPrefix)) {
    const std::string_view path = text.substr(kUnixPrefix.size());
    if (path.empty() || path == "@") return bad_address(text, "the socket has no name");
    if (path.size() > kUnixPathMax) {
      return bad_address(text, fmt::format("a socket's name has at most {} bytes", kUnixPathMax));
    }
    return unix_socket(std::string(path));
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad_address(text, "must be host:port or unix:path");
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty()) return bad_address(text, "the host is missing");
  if ((host.find(':') != std::string_view::npos) != bracketed) {
    return bad_address(text, "an IPv6 address, and nothing else, stands in [brackets]");
  }
  const auto port = parse_port(text.substr(colon + 1));
  if (!port) return bad_address(text, "the port must be a number from 0 to 65535");
  if (auto ip = canonical_ip(std::string(host))) return tcp(std::move(*ip), *port);
  if (bracketed) return bad_address(text, "not an IPv6 address");
  BIGCAST_ASSIGN(std::string ip, resolve(text, std::string(host)));
  return tcp(std::move(ip), *port);
}

Address Address::tcp(std::string host, uint16_t port) {
  Address address;
  address.kind = Kind::kTcp;
  address.host = std::move(host);
  address.port = port;
  return address;
}

Address Address::unix_socket(std::string path) {
  Address address;
  address.kind = Kind::kUnix;
  address.path = std::move(path);
  return address;
}

std::string Address::to_string() const {
  if (kind == Kind::kUnix) return fmt::format("{}{}", kUnixPrefix, path);
  if (host.find(':') != std::string::npos) return fmt::format("[{}]:{}", host, port);
  return fmt::format("{}:{}", host, port);
}

bool Address::is_loopback() const {
  return kind == Kind::kUnix || host.starts_with("127.") || host == "::1";
}

std::optional<std::string> canonical_ip(const std::string& host) {
  if (host.find('\0') != std::string::npos) return {};
  std::array<uint8_t, sizeof(in6_addr)> binary{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  for (int family : {AF_INET, AF_INET6}) {
    if (inet_pton(family, host.c_str(), binary.data()) == 1) {
      return inet_ntop(family, binary.data(), text.data(), text.size());
    }
  }
  return {};
}

}  // namespace bigcast::rpc
