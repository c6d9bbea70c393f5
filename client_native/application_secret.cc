#include "client_native/application_secret.h"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <string>

#include "base/hkdf.h"

namespace bigcast {
namespace {

Secret derived(const Secret& root, std::string_view salt, std::string_view application_id) {
  Key256 key = hkdf_sha256(root.bytes(), salt, application_id);
  std::string text = fmt::format("{:02x}", fmt::join(key, ""));
  auto secret = Secret::from_text(text, "derived secret");
  OPENSSL_cleanse(key.data(), key.size());
  OPENSSL_cleanse(text.data(), text.size());
  return std::move(*secret);
}

}  // namespace

Secret node_secret(const Secret& root, std::string_view application_id) {
  return derived(root, "bigcast node 1", application_id);
}

Secret chunk_secret(const Secret& root, std::string_view application_id) {
  return derived(root, "bigcast application 1", application_id);
}

}  // namespace bigcast
