#include "server/tls.h"

#include <fmt/format.h>
#include <kj/debug.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <array>

namespace bigcast {
namespace {

// What OpenSSL last complained of; forgets it.
std::string complaint() {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_peek_last_error(), text.data(), text.size());
  ERR_clear_error();
  return text.data();
}

Error refused(const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("{} ({})", what, complaint())};
}

std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> parse_key(const Secret& key) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> pem(
      BIO_new_mem_buf(key.bytes().data(), static_cast<int>(key.bytes().size())), BIO_free);
  // Not from a terminal: a key with a passphrase is none.
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  return {PEM_read_bio_PrivateKey(pem.get(), nullptr, no_passphrase, nullptr), EVP_PKEY_free};
}

}  // namespace

Result<std::shared_ptr<const TlsIdentity>> TlsIdentity::load(const std::string& certificate_file,
                                                             const Secret& key) {
  ERR_clear_error();
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  KJ_REQUIRE(context != nullptr, "no memory for TLS");
  std::shared_ptr<const TlsIdentity> identity(new TlsIdentity(context));
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS);
  if (SSL_CTX_use_certificate_chain_file(context, certificate_file.c_str()) != 1) {
    return tl::unexpected(refused(
        fmt::format("http_certificate_file: {} has no certificate in PEM", certificate_file)));
  }
  const auto private_key = parse_key(key);
  if (!private_key) return tl::unexpected(refused("http_key_file: no key in PEM"));
  if (SSL_CTX_use_PrivateKey(context, private_key.get()) != 1) {
    return tl::unexpected(
        refused(fmt::format("http_key_file: not the key of {}", certificate_file)));
  }
  return identity;
}

TlsIdentity::~TlsIdentity() { SSL_CTX_free(context_); }

SSL* TlsIdentity::accept(int fd) const {
  SSL* ssl = SSL_new(context_);
  KJ_REQUIRE(ssl != nullptr && SSL_set_fd(ssl, fd) == 1, "no memory for TLS");
  SSL_set_accept_state(ssl);
  return ssl;
}

bool TlsIdentity::has_same_certificate(const TlsIdentity& other) const {
  return X509_cmp(SSL_CTX_get0_certificate(context_), SSL_CTX_get0_certificate(other.context_)) ==
         0;
}

}  // namespace bigcast
