#include "base/log.h"

#include <doctest/doctest.h>

#include <string>

#include "base/limits.h"

namespace bigcast {

TEST_CASE("a log level is known or refused by name") {
  CHECK(set_log_level("debug"));
  CHECK(set_log_level("off"));
  CHECK(set_log_level("warn"));
  const auto result = set_log_level("loud");
  REQUIRE_FALSE(result);
  CHECK(result.error().message.find("loud") != std::string::npos);
}

TEST_CASE("what a stranger sent stays on its line and between its quotation marks") {
  CHECK(quotable("team-1/a b") == "team-1/a b");
  CHECK(quotable("a\nb\r\"c\\\x1b\xc3\xbc") == "a\\x0ab\\x0d\\x22c\\x5c\\x1b\\xc3\\xbc");
  CHECK(quotable(std::string_view("\0", 1)) == "\\x00");
  CHECK(quotable(std::string(limits::kLoggedTextMax, 'x')).size() == limits::kLoggedTextMax);
  CHECK(quotable(std::string(4096, 'x')) == std::string(limits::kLoggedTextMax, 'x') + "...");
}

}  // namespace bigcast
