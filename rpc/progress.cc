#include "rpc/progress.h"

#include <algorithm>

#include "base/limits.h"

namespace bigcast::rpc {
namespace {

struct Watch {
  uint64_t bytes_at_start;
  uint64_t bytes_at_mark;
  kj::TimePoint marked_at;
};

uint64_t bytes_moved(const Connection& connection) {
  return connection.bytes_sent() + connection.bytes_received();
}

kj::Promise<void> watch(UvLoop& loop, Connection::Handle connection, Watch state,
                        kj::Duration timeout) {
  const kj::Duration tick = std::min<kj::Duration>(timeout / 4, 1 * kj::SECONDS);
  return loop.timer().afterDelay(tick).then(
      [&loop, connection = std::move(connection), state, timeout]() mutable -> kj::Promise<void> {
        if (*connection == nullptr) return kj::READY_NOW;
        const uint64_t bytes = bytes_moved(**connection);
        const kj::TimePoint now = loop.timer().now();
        if (bytes - state.bytes_at_mark >= limits::kProgressBytesMin &&
            bytes - state.bytes_at_start <= limits::kOvertakenBytesMax) {
          state.bytes_at_mark = bytes;
          state.marked_at = now;
        } else if (now - state.marked_at >= timeout) {
          return kj::READY_NOW;
        }
        return watch(loop, std::move(connection), state, timeout);
      });
}

}  // namespace

kj::Promise<void> stalled(UvLoop& loop, Connection::Handle connection, uint32_t timeout_ms) {
  if (*connection == nullptr) return kj::READY_NOW;
  const uint64_t bytes = bytes_moved(**connection);
  const Watch start{bytes, bytes, loop.timer().now()};
  return watch(loop, std::move(connection), start, timeout_ms * kj::MILLISECONDS);
}

}  // namespace bigcast::rpc
