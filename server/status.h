#pragma once

#include <optional>
#include <string>

#include "server/core.h"
#include "server/http.h"

namespace bigcast {

// GET /livez and /readyz (503 with the reason). Nothing else is answered (no value).
std::optional<HttpAnswer> health_page(const NodeCore& core, const HttpRequest& request);

// What a node shows of itself: GET / is a page for people (server/page/index.html), /metrics is for
// Prometheus. The page asks for
//
//   /api/node            the node, its tiers, what it moved so far and what it is moving now
//   /api/blobs           the homes here in order of their keys: ?after=KEY, ?limit=1..kPageBlobsMax
//   /api/blobs/ID        one blob, and which chunks of it each host has
//
// as JSON, whose fields may change with any version. An answer's size is bounded whatever the node
// holds. Nothing else is answered (no value). On the loop's thread.
std::optional<HttpAnswer> status_page(NodeCore& core, const HttpRequest& request);

}  // namespace bigcast
