#include "base/hkdf.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

namespace bigcast {

// RFC 5869, A.1: the first 32 of 42 bytes, which is what 32 bytes of output are.
TEST_CASE("HKDF-SHA256 gives what the RFC says") {
  std::string salt;
  for (char c = 0; c <= 12; ++c) salt += c;
  std::string info;
  for (int c = 0xf0; c <= 0xf9; ++c) info += static_cast<char>(c);
  const Key256 key = hkdf_sha256(std::string(22, '\x0b'), salt, info);
  CHECK(fmt::format("{:02x}", fmt::join(key, "")) ==
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
}

TEST_CASE("secret, salt and info each make another key; an empty secret makes one, too") {
  const Key256 key = hkdf_sha256("secret", "salt", "info");
  CHECK(key == hkdf_sha256("secret", "salt", "info"));
  CHECK(key != hkdf_sha256("secret2", "salt", "info"));
  CHECK(key != hkdf_sha256("secret", "salt2", "info"));
  CHECK(key != hkdf_sha256("secret", "salt", "info2"));
  CHECK(hkdf_sha256("", "salt", "info") != hkdf_sha256("", "salt", "info2"));
}

}  // namespace bigcast
