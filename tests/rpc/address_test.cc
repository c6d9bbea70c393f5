#include "rpc/address.h"

#include <doctest/doctest.h>

#include <string>

using bigcast::ErrorCode;
using bigcast::rpc::Address;

TEST_CASE("addresses are read and written back") {
  const struct {
    const char* text;
    const char* canonical;
    bool loopback;
  } kRows[] = {
      {"192.0.2.1:7420", "192.0.2.1:7420", false},
      {"127.0.0.1:0", "127.0.0.1:0", true},
      {"0.0.0.0:65535", "0.0.0.0:65535", false},
      {"[2001:db8:0:0::1]:7420", "[2001:db8::1]:7420", false},
      {"[::1]:1", "[::1]:1", true},
      {"unix:/run/bigcast.sock", "unix:/run/bigcast.sock", true},
      {"unix:@name", "unix:@name", true},
  };
  for (const auto& row : kRows) {
    CAPTURE(row.text);
    const auto address = Address::parse(row.text);
    REQUIRE(address);
    CHECK(address->to_string() == row.canonical);
    CHECK(address->is_loopback() == row.loopback);
    CHECK(Address::parse(address->to_string()) == *address);
  }
}

TEST_CASE("a host name is resolved") {
  const auto address = Address::parse("localhost:80");
  REQUIRE(address);
  CHECK(address->is_loopback());
  CHECK(address->port == 80);
}

TEST_CASE("what is no address is refused and quoted") {
  for (const std::string& text :
       {std::string(), std::string("7420"), std::string(":7420"), std::string("h:"),
        std::string("127.0.0.1:65536"), std::string("127.0.0.1:-1"), std::string("127.0.0.1:1x"),
        std::string("::1:7420"), std::string("[::1]"), std::string("[127.0.0.1]:1"),
        std::string("[::g]:1"), std::string("unix:"), std::string("unix:@"),
        "unix:/" + std::string(107, 'x'), std::string("127.0.0.1\0:1", 12)}) {
    CAPTURE(text);
    const auto address = Address::parse(text);
    REQUIRE_FALSE(address);
    CHECK(address.error().code == ErrorCode::kInvalidArgument);
    CHECK(address.error().message.find("'" + text + "'") != std::string::npos);
  }
}
