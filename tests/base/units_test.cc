#include "base/units.h"

#include <doctest/doctest.h>

#include "base/limits.h"

namespace bigcast {

TEST_CASE("sizes") {
  CHECK(*parse_size("0") == 0);
  CHECK(*parse_size("7") == 7);
  CHECK(*parse_size("4096") == 4096);
  CHECK(*parse_size("64k") == 65536);
  CHECK(*parse_size("3K") == 3072);
  CHECK(*parse_size("2g") == 2 * limits::kGiB);
  CHECK(*parse_size("1T") == 1024 * limits::kGiB);
  for (const char* wrong : {"", "k", "1gb", "4x", "-1", "1.5m", " 1", "1 ", "18446744073709551615g",
                            "18446744073709551616"}) {
    const auto refused = parse_size(wrong);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::kInvalidArgument);
    CHECK(refused.error().message.find(wrong) != std::string::npos);
  }
}

TEST_CASE("durations need a unit") {
  CHECK(*parse_duration("500ms") == std::chrono::milliseconds(500));
  CHECK(*parse_duration("0s") == Duration::zero());
  CHECK(*parse_duration("2m") == std::chrono::minutes(2));
  CHECK(*parse_duration("2M") == std::chrono::minutes(2));
  CHECK(*parse_duration("25h") == std::chrono::hours(25));
  for (const char* wrong : {"", "2", "5", "s", "-1s", "1d", "18446744073709551615h", "8761h"}) {
    CHECK_FALSE(parse_duration(wrong));
  }
}

}  // namespace bigcast
