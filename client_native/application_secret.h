#pragma once

#include <string_view>

#include "base/secret.h"

// An application's secret is a root: nothing uses it itself. What is made from it for one purpose,
// or for one application where several have the same root, tells nothing of the others.
namespace bigcast {

// What the application's embedded nodes are told, and what logins to them prove; 64 hexadecimal
// digits. HKDF-SHA256(root, salt "bigcast node 1", info: the application's id).
Secret node_secret(const Secret& root, std::string_view application_id);

// ClientOptions::chunk_secret, which no node is told; as above with salt "bigcast application 1".
Secret chunk_secret(const Secret& root, std::string_view application_id);

}  // namespace bigcast
