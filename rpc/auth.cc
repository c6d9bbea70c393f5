#include "rpc/auth.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <charconv>
#include <cstdlib>
#include <vector>

#include "base/ids.h"
#include "base/limits.h"

namespace bigcast::rpc {
namespace {

constexpr std::string_view kSalt = "bigcast login 1";
constexpr std::string_view kKeyMark = "bigcast-key-1:";
constexpr std::string_view kAnyKeyMark = "bigcast-key-";  // of later formats, too

bool is_key(const Secret& given) { return given.bytes().starts_with(kAnyKeyMark); }

std::array<uint8_t, 32> hmac_sha256(const Key256& key, std::span<const uint8_t> data) {
  std::array<uint8_t, 32> out{};
  unsigned size = 0;
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data.data(), data.size(),
           out.data(), &size) == nullptr ||
      size != out.size()) {
    std::abort();  // out of memory, or a libcrypto without SHA-256: nothing can be proven
  }
  return out;
}

std::span<const uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Every part has its length before it, so that no two lists of parts give the same bytes.
class Transcript {
 public:
  Transcript& add(std::span<const uint8_t> part) {
    add_number(part.size());
    bytes_.insert(bytes_.end(), part.begin(), part.end());
    return *this;
  }
  Transcript& add_number(uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) {
      bytes_.push_back(static_cast<uint8_t>(number >> shift));
    }
    return *this;
  }
  std::span<const uint8_t> bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

Transcript transcript_of(std::string_view side, const Nonce& client, const Nonce& server,
                         std::string_view name_space) {
  Transcript transcript;
  transcript.add(as_bytes(side))
      .add_number(limits::kProtocolVersion)
      .add(client)
      .add(server)
      .add(as_bytes(name_space));
  return transcript;
}

}  // namespace

NamespaceKey NamespaceKey::derive(const Secret& secret, std::string_view name_space) {
  NamespaceKey key;
  key.name_space_ = std::string(name_space);
  key.key_ = hkdf_sha256(secret.bytes(), kSalt, name_space);
  return key;
}

Result<NamespaceKey> NamespaceKey::parse(const Secret& given) {
  const auto damaged = [] {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("secret: it begins with {} and is not {}NAMESPACE: and 64 lower-case "
                            "hexadecimal digits, as bigcast key prints it",
                            kAnyKeyMark, kKeyMark));
  };
  std::string_view text = given.bytes();
  if (!text.starts_with(kKeyMark)) return damaged();
  text.remove_prefix(kKeyMark.size());
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return damaged();
  NamespaceKey parsed;
  parsed.name_space_ = std::string(text.substr(0, colon));
  const std::string_view digits = text.substr(colon + 1);
  if (!check_namespace(parsed.name_space_) || digits.size() != 2 * parsed.key_.size() ||
      digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
    return damaged();
  }
  for (size_t i = 0; i < parsed.key_.size(); ++i) {
    const char* const byte = digits.data() + 2 * i;
    std::from_chars(byte, byte + 2, parsed.key_[i], 16);
  }
  return parsed;
}

Result<NamespaceKey> NamespaceKey::of_client(const Secret& given, std::string_view name_space) {
  if (!is_key(given)) return derive(given, name_space);
  BIGCAST_ASSIGN(NamespaceKey key, parse(given));
  if (key.name_space_ != name_space) {
    return fail(ErrorCode::kPermissionDenied,
                fmt::format("the key given is that of namespace {}, not of {}", key.name_space_,
                            name_space));
  }
  return key;
}

Result<std::optional<std::string>> NamespaceKey::namespace_of(const Secret& given) {
  if (!is_key(given)) return std::nullopt;
  BIGCAST_ASSIGN(const NamespaceKey key, parse(given));
  return key.name_space_;
}

std::string NamespaceKey::to_text() const {
  return fmt::format("{}{}:{:02x}", kKeyMark, name_space_, fmt::join(key_, ""));
}

NamespaceKey::~NamespaceKey() { OPENSSL_cleanse(key_.data(), key_.size()); }

Proof NamespaceKey::server_proof(const Nonce& client, const Nonce& server) const {
  return hmac_sha256(key_, transcript_of("server", client, server, name_space_).bytes());
}

Proof NamespaceKey::client_proof(const Nonce& client, const Nonce& server, LeaseId lease) const {
  Transcript transcript = transcript_of("client", client, server, name_space_);
  transcript.add_number(lease.hi).add_number(lease.lo);
  return hmac_sha256(key_, transcript.bytes());
}

Nonce random_nonce() {
  Nonce nonce{};
  if (getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) std::abort();
  return nonce;
}

bool equal_in_constant_time(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace bigcast::rpc
