#pragma once

#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"

// Sizes and durations as people write them, in every program alike. A whole number and a suffix,
// in either case; INVALID_ARGUMENT quotes what is not one, or is too large for its type.
namespace bigcast {

// "64m" -> 67108864. Suffixes k, m, g, t (powers of 1024); none: bytes.
Result<uint64_t> parse_size(std::string_view text);
// "120s" -> 120 seconds. Suffixes ms, s, m, h, of which one is required. At most a year.
Result<Duration> parse_duration(std::string_view text);

}  // namespace bigcast
