"""The keys of an application, for searches that must find none of them."""

import hashlib
import hmac


def keys_of(secret, sockets):
    """The application's secret and, by the names of its nodes' sockets, what is derived from it.
    A dict by what it is; without sockets only the secret is known."""
    keys = {"the secret": secret}
    for name in sockets:
        application = name.rpartition("-")[2]
        for salt in ("bigcast node 1", "bigcast application 1"):
            keys[salt] = hkdf(secret.encode(), salt.encode(), application.encode()).hex()
    return keys


def hkdf(secret, salt, info):
    """RFC 5869 with SHA-256 and 32 bytes of output."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\1", hashlib.sha256).digest()
