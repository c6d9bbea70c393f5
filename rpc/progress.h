#pragma once

#include <kj/async.h>
#include <kj/time.h>

#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "rpc/connection.h"
#include "rpc/uv_loop.h"

namespace bigcast::rpc {

// Resolves (never rejects) once the connection has moved less than `bytes_min` bytes for
// `timeout_ms`, is destroyed, or has moved so many (limits::kOvertakenBytesMax) that whatever waits
// for an answer since this call can't be in their queue any more.
kj::Promise<void> stalled(UvLoop& loop, Connection::Handle connection, uint32_t timeout_ms,
                          uint64_t bytes_min = limits::kProgressBytesMin);

// When a sender gives up a peer that takes too little of what is waiting to be sent: less than
// limits::kProgressBytesMin within limits::kProgressTimeoutMs.
class SendDeadline {
 public:
  void start(kj::TimePoint now);
  void sent(size_t bytes, kj::TimePoint now);
  // Rejects with DISCONNECTED when it has passed.
  kj::Promise<void> passed(UvLoop& loop) const;

 private:
  kj::TimePoint marked_at_ = kj::origin<kj::TimePoint>();
  size_t bytes_since_ = 0;
};

}  // namespace bigcast::rpc
