#pragma once

#include <cstdint>

namespace bigcast {

// Of memory, and the least that is punched out of a file in memory.
constexpr uint64_t kPage = 4096;
constexpr uint64_t whole_pages(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace bigcast
