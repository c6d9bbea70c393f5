#pragma once

#include <cstdint>

namespace bigcast {

// Of memory, and the least that is punched out of a file in memory.
constexpr uint64_t kPage = 4096;
constexpr uint64_t whole_pages(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// What most kernels can give in its place, to who asks: one entry of a page directory.
constexpr uint64_t kLargePage = 512 * kPage;

// Cap'n Proto's: what it sends from where it rests must be readable up to the end of the last one.
constexpr uint64_t kWord = 8;
constexpr uint64_t whole_words(uint64_t bytes) { return (bytes + kWord - 1) / kWord * kWord; }

}  // namespace bigcast
