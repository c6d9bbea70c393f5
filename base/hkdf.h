#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace bigcast {

using Key256 = std::array<uint8_t, 32>;

// HKDF-SHA256 (RFC 5869, OpenSSL's) with 32 bytes of output. `salt` says what the key is for,
// `info` whose it is: keys of different salts or infos tell nothing of each other or the secret.
// Ends the process if libcrypto fails: nothing can be kept secret then. Thread-safe.
Key256 hkdf_sha256(std::string_view secret, std::string_view salt, std::string_view info);

}  // namespace bigcast
