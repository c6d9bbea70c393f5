#pragma once

#include <optional>
#include <string>

#include "server/core.h"
#include "server/http.h"

namespace bigcast {

// Why the node should be given no more work; empty: nothing. From any thread.
std::string not_ready(const Metrics& metrics, const BlobStore& store);

// What a node shows of itself: GET / is a page for people (server/page/index.html), which asks for
//
//   /api/node            the node, its tiers, what it moved so far and what it is moving now
//   /api/blobs           the homes here in order of their keys: ?after=KEY, ?limit=1..kPageBlobsMax
//   /api/blobs/ID        one blob, and which chunks of it each host has
//
// as JSON, whose fields may change with any version. An answer's size is bounded whatever the node
// holds. Nothing else is answered (no value). On the loop's thread.
std::optional<HttpAnswer> status_page(NodeCore& core, const HttpRequest& request);

}  // namespace bigcast
