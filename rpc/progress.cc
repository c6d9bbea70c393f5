#include "rpc/progress.h"

#include <kj/debug.h>

#include <algorithm>

#include "base/limits.h"

namespace bigcast::rpc {
namespace {

struct Watch {
  uint64_t bytes_min;
  uint64_t bytes_at_start;
  uint64_t bytes_at_mark;
  // Since the mark, by ticks: who was stopped meanwhile could not have seen any progress.
  kj::Duration idle = 0 * kj::SECONDS;
};

uint64_t bytes_moved(const Connection& connection) {
  return connection.bytes_sent() + connection.bytes_received();
}

kj::Promise<void> watch(UvLoop& loop, Connection::Handle connection, Watch state,
                        kj::Duration timeout) {
  const kj::Duration tick = std::min<kj::Duration>(timeout / 4, 1 * kj::SECONDS);
  return loop.timer().afterDelay(tick).then([&loop, connection = std::move(connection), state,
                                             timeout, tick]() mutable -> kj::Promise<void> {
    if (*connection == nullptr) return kj::READY_NOW;
    const uint64_t bytes = bytes_moved(**connection);
    state.idle += tick;
    if (bytes - state.bytes_at_mark >= state.bytes_min &&
        bytes - state.bytes_at_start <= limits::kOvertakenBytesMax) {
      state.bytes_at_mark = bytes;
      state.idle = 0 * kj::SECONDS;
    } else if (state.idle >= timeout) {
      return kj::READY_NOW;
    }
    return watch(loop, std::move(connection), state, timeout);
  });
}

}  // namespace

kj::Promise<void> stalled(UvLoop& loop, Connection::Handle connection, uint32_t timeout_ms,
                          uint64_t bytes_min) {
  if (*connection == nullptr) return kj::READY_NOW;
  const uint64_t bytes = bytes_moved(**connection);
  const Watch start{bytes_min, bytes, bytes};
  return watch(loop, std::move(connection), start, timeout_ms * kj::MILLISECONDS);
}

void SendDeadline::start(kj::TimePoint now) {
  marked_at_ = now;
  bytes_since_ = 0;
}

void SendDeadline::sent(size_t bytes, kj::TimePoint now) {
  bytes_since_ += bytes;
  if (bytes_since_ >= limits::kProgressBytesMin) start(now);
}

kj::Promise<void> SendDeadline::passed(UvLoop& loop) const {
  const auto deadline = marked_at_ + limits::kProgressTimeoutMs * kj::MILLISECONDS;
  return loop.timer().atTime(deadline).then([]() -> kj::Promise<void> {
    return KJ_EXCEPTION(DISCONNECTED, "the peer took too little for too long",
                        limits::kProgressBytesMin, limits::kProgressTimeoutMs);
  });
}

}  // namespace bigcast::rpc
