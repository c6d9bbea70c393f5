#pragma once

#include <kj/async.h>

#include <cstdint>

#include "rpc/connection.h"
#include "rpc/uv_loop.h"

namespace bigcast::rpc {

// Resolves (never rejects) once the connection has moved less than limits::kProgressBytesMin bytes
// for `timeout_ms`, is destroyed, or has moved so many (limits::kOvertakenBytesMax) that whatever
// waits for an answer since this call can't be in their queue any more.
kj::Promise<void> stalled(UvLoop& loop, Connection::Handle connection, uint32_t timeout_ms);

}  // namespace bigcast::rpc
