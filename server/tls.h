#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "base/secret.h"

namespace bigcast {

// The certificate and key that a server shows: TLS 1.2 or newer. It asks clients for no
// certificate, and keeps nothing from one connection to the next. Immutable; thread-safe.
class TlsIdentity {
 public:
  // `certificate_file`: PEM, the server's own, then those between it and its root. `key`: PEM.
  // INVALID_ARGUMENT, naming the setting, if one can't be read or the key is another's.
  static Result<std::shared_ptr<const TlsIdentity>> load(const std::string& certificate_file,
                                                         const Secret& key);
  ~TlsIdentity();
  TlsIdentity(const TlsIdentity&) = delete;
  TlsIdentity& operator=(const TlsIdentity&) = delete;

  // For one connection over a non-blocking socket, which stays the caller's; the caller frees it.
  SSL* accept(int fd) const;
  bool has_same_certificate(const TlsIdentity& other) const;

 private:
  explicit TlsIdentity(SSL_CTX* context) : context_(context) {}
  SSL_CTX* context_;
};

}  // namespace bigcast
