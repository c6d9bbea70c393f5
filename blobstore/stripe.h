#pragma once

#include <cstdint>

#include "codec/codec.h"

namespace bigcast {

// Which chunks of a blob are kept here: all, or those of one stripe of several.
struct Stripe {
  uint32_t index = 0;
  uint32_t count = 1;
  bool has(uint32_t chunk) const { return chunk % count == index; }
  // How many of the blob's first `chunks` it has.
  uint64_t chunks_of(uint64_t chunks) const {
    return chunks <= index ? 0 : chunks_in(chunks - index, count);
  }
};

}  // namespace bigcast
