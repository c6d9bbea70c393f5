#include "base/log.h"

#include <doctest/doctest.h>

namespace bigcast {

TEST_CASE("a log level is known or refused by name") {
  CHECK(set_log_level("debug"));
  CHECK(set_log_level("off"));
  CHECK(set_log_level("warn"));
  const auto result = set_log_level("loud");
  REQUIRE_FALSE(result);
  CHECK(result.error().message.find("loud") != std::string::npos);
}

}  // namespace bigcast
