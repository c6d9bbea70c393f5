#include "base/hkdf.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <cstdlib>
#include <memory>

namespace bigcast {
namespace {

// OpenSSL takes parameters by pointers to what is not const, and only reads them.
OSSL_PARAM bytes_param(const char* name, std::string_view bytes) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<char*>(bytes.data()), bytes.size());
}

}  // namespace

Key256 hkdf_sha256(std::string_view secret, std::string_view salt, std::string_view info) {
  const std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> kdf(
      EVP_KDF_fetch(nullptr, OSSL_KDF_NAME_HKDF, nullptr), EVP_KDF_free);
  const std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> context(
      EVP_KDF_CTX_new(kdf.get()), EVP_KDF_CTX_free);
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                               bytes_param(OSSL_KDF_PARAM_KEY, secret),
                               bytes_param(OSSL_KDF_PARAM_SALT, salt),
                               bytes_param(OSSL_KDF_PARAM_INFO, info), OSSL_PARAM_construct_end()};
  Key256 key{};
  if (!context || EVP_KDF_derive(context.get(), key.data(), key.size(), params) != 1) std::abort();
  return key;
}

}  // namespace bigcast
