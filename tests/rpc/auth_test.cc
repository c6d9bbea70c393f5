#include "rpc/auth.h"

#include <doctest/doctest.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <set>
#include <string>
#include <vector>

#include "tests/rpc/support.h"

using namespace bigcast;
using namespace bigcast::rpc;
using bigcast::rpc::testing::secret_of;

namespace {

// HKDF by OpenSSL's own implementation.
std::vector<uint8_t> reference_key(std::string secret, std::string name_space) {
  EVP_KDF* kdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(kdf);
  std::string digest = "SHA256";
  std::string salt = "bigcast login 1";
  const OSSL_PARAM params[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret.data(), secret.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt.data(), salt.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, name_space.data(), name_space.size()),
      OSSL_PARAM_construct_end()};
  std::vector<uint8_t> key(32);
  REQUIRE(EVP_KDF_derive(context, key.data(), key.size(), params) == 1);
  EVP_KDF_CTX_free(context);
  EVP_KDF_free(kdf);
  return key;
}

}  // namespace

TEST_CASE("the key is HKDF and the proof an HMAC over the documented transcript") {
  const auto key = NamespaceKey::derive(secret_of('s'), "apps");
  Nonce client{};
  client.fill(1);
  Nonce server{};
  server.fill(2);
  std::vector<uint8_t> transcript;
  const auto number = [&](uint64_t n) {
    for (int i = 0; i < 8; ++i) transcript.push_back(static_cast<uint8_t>(n >> (8 * i)));
  };
  const auto part = [&](auto bytes) {
    number(bytes.size());
    transcript.insert(transcript.end(), bytes.begin(), bytes.end());
  };
  part(std::string("client"));
  number(1);
  part(client);
  part(server);
  part(std::string("apps"));
  number(3);
  number(4);
  const auto reference = reference_key(std::string(32, 's'), "apps");
  Proof expected{};
  HMAC(EVP_sha256(), reference.data(), 32, transcript.data(), transcript.size(), expected.data(),
       nullptr);
  CHECK(key.client_proof(client, server, LeaseId{3, 4}) == expected);
}

TEST_CASE("each part of a login changes the proof") {
  const auto key = NamespaceKey::derive(secret_of('s'), "a");
  const auto same = NamespaceKey::derive(secret_of('s'), "a");
  const Nonce n1 = random_nonce();
  const Nonce n2 = random_nonce();
  CHECK(n1 != n2);
  CHECK(key.server_proof(n1, n2) == same.server_proof(n1, n2));
  const std::set<Proof> proofs = {
      key.server_proof(n1, n2),
      key.server_proof(n2, n1),
      key.client_proof(n1, n2, {}),
      key.client_proof(n2, n1, {}),
      key.client_proof(n1, n2, LeaseId{1, 0}),
      key.client_proof(n1, n2, LeaseId{0, 1}),
      NamespaceKey::derive(secret_of('s'), "b").client_proof(n1, n2, {}),
      NamespaceKey::derive(secret_of('t'), "a").client_proof(n1, n2, {}),
      NamespaceKey::derive(Secret(), "a").client_proof(n1, n2, {}),
  };
  CHECK(proofs.size() == 9);
}

TEST_CASE("a key is text that opens its namespace and cannot be taken for a secret") {
  const Secret secret = secret_of('s');
  const auto derived = NamespaceKey::derive(secret, "team.a");
  const std::string text = derived.to_text();
  CHECK(text.starts_with("bigcast-key-1:team.a:"));
  CHECK(text.find(secret.bytes()) == std::string::npos);
  const Secret key = Secret::from_text(text, "test").value();
  CHECK(*NamespaceKey::namespace_of(key).value() == "team.a");
  CHECK_FALSE(NamespaceKey::namespace_of(secret).value().has_value());
  CHECK_FALSE(NamespaceKey::namespace_of(Secret()).value().has_value());

  const Nonce n1 = random_nonce();
  const Nonce n2 = random_nonce();
  const auto of = [&](const Secret& given) {
    return NamespaceKey::of_client(given, "team.a").value().client_proof(n1, n2, {});
  };
  CHECK(of(key) == derived.client_proof(n1, n2, {}));
  CHECK(of(secret) == derived.client_proof(n1, n2, {}));
  for (const char* other : {"team.b", "team", "team.a2", ""}) {
    const auto refused = NamespaceKey::of_client(key, other);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::kPermissionDenied);
    CHECK(refused.error().message.find("team.a") != std::string::npos);
    CHECK(refused.error().message.find(text.substr(text.size() - 64)) == std::string::npos);
  }

  std::string upper = text;
  upper.back() = 'F';
  std::string later = text;
  later[12] = '2';
  for (const std::string& damaged : std::vector<std::string>{
           text.substr(0, text.size() - 1), text + "0", upper, later, "bigcast-key-1:team.a",
           "bigcast-key-1::" + std::string(64, '0'), "bigcast-key-1:../a:" + std::string(64, '0'),
           "bigcast-key-" + std::string(40, 'x')}) {
    const Secret given = Secret::from_text(damaged, "test", 1).value();
    for (const auto code : {NamespaceKey::namespace_of(given).error().code,
                            NamespaceKey::of_client(given, "team.a").error().code}) {
      CHECK_MESSAGE(code == ErrorCode::kInvalidArgument, damaged);
    }
  }
}

TEST_CASE("comparison") {
  const std::vector<uint8_t> a = {1, 2, 3};
  const std::vector<uint8_t> b = {1, 2, 4};
  CHECK(equal_in_constant_time(a, a));
  CHECK_FALSE(equal_in_constant_time(a, b));
  CHECK_FALSE(equal_in_constant_time(a, std::span(a).first(2)));
  CHECK(equal_in_constant_time({}, {}));
}
