#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>

namespace bigcast {

// Changes these bits of the byte at `at`.
inline void flip(const std::filesystem::path& path, uint64_t at, int bits) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ bits));
  REQUIRE(file.good());
}

}  // namespace bigcast
