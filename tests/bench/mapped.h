#pragma once

#include <string>

#include "base/error.h"

namespace bigcast::bench {

// Seconds. What a mapped read takes beside what the machine allows, all over the same bytes.
struct MappedRead {
  double first_s = 0;     // map_ref: asking the node, mapping, XXH3 of all
  double second_s = 0;    // XXH3 of all again: the median of some, in turn with the last one's
  double fresh_s = 0;     // mapping a resident memfd of our own, and XXH3 of all
  double retained_s = 0;  // XXH3 of all of a mapping that was read before
};

// Of the mappable blob of this name at the node of this Unix socket. The blob was mapped and given
// back once before, so that its node has nothing left to bring.
Result<MappedRead> measure_mapped(const std::string& server, const std::string& name_space,
                                  const std::string& name);

}  // namespace bigcast::bench
