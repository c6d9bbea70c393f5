#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/hkdf.h"
#include "base/ids.h"
#include "base/secret.h"

// Mutual login by challenge and response over HMAC-SHA256 with a key of the namespace. Both sides
// prove that they know the key before anything else is said; neither sends it. It does not encrypt.
namespace bigcast::rpc {

using Nonce = std::array<uint8_t, 32>;
using Proof = std::array<uint8_t, 32>;

// The key of one namespace: HKDF-SHA256(secret, salt "bigcast login 1", info namespace). With it
// one can log in to that namespace only. An empty secret gives the key of open (loopback) nodes.
class NamespaceKey {
 public:
  static NamespaceKey derive(const Secret& secret, std::string_view name_space);

  // What a client logs in with: `given` is the nodes' secret, or one key as to_text() gives it.
  // PERMISSION_DENIED if that is another namespace's; INVALID_ARGUMENT if it is damaged.
  static Result<NamespaceKey> of_client(const Secret& given, std::string_view name_space);

  // The namespace that a client's secret is the key of; nothing if it is the nodes' secret.
  // INVALID_ARGUMENT if it begins like a key and is none, so that none is taken for a secret.
  static Result<std::optional<std::string>> namespace_of(const Secret& given);

  // "bigcast-key-1:NAMESPACE:" and 64 hexadecimal digits, for who is to reach no other namespace.
  std::string to_text() const;

  ~NamespaceKey();
  NamespaceKey(const NamespaceKey&) = default;
  NamespaceKey& operator=(const NamespaceKey&) = default;
  const std::string& name_space() const { return name_space_; }

  // HMAC over a label of the side, the protocol version, both nonces and the namespace; the
  // client's also covers the lease. So a proof of one side, login or lease is no good for another.
  Proof server_proof(const Nonce& client, const Nonce& server) const;
  Proof client_proof(const Nonce& client, const Nonce& server, LeaseId lease) const;

 private:
  NamespaceKey() = default;
  static Result<NamespaceKey> parse(const Secret& given);  // as to_text() gives it

  std::string name_space_;
  Key256 key_{};
};

Nonce random_nonce();
bool equal_in_constant_time(std::span<const uint8_t> a, std::span<const uint8_t> b);

}  // namespace bigcast::rpc
