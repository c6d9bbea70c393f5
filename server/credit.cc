#include "server/credit.h"

#include <kj/debug.h>

namespace bigcast {

kj::Own<CreditPool::Credit> CreditPool::take(uint64_t bytes) {
  bytes_used_ += bytes;
  return kj::heap<Credit>(kj::addRef(*this), bytes);
}

kj::Promise<kj::Own<CreditPool::Credit>> CreditPool::acquire(uint64_t bytes) {
  KJ_REQUIRE(bytes >= 1 && bytes <= bytes_max_, "a credit that could never be granted", bytes);
  if (waiters_.empty() && bytes_used_ + bytes <= bytes_max_) return take(bytes);
  auto paf = kj::newPromiseAndFulfiller<kj::Own<Credit>>();
  waiters_.push_back({bytes, kj::mv(paf.fulfiller)});
  // When a waiter gives up, those behind it may fit.
  return paf.promise.attach(
      kj::defer([pool = kj::addRef(*this)]() mutable { pool->grant_waiters(); }));
}

void CreditPool::give_back(uint64_t bytes) {
  bytes_used_ -= bytes;
  grant_waiters();
}

void CreditPool::grant_waiters() {
  while (!waiters_.empty()) {
    Waiter& first = waiters_.front();
    if (first.fulfiller->isWaiting()) {
      if (bytes_used_ + first.bytes > bytes_max_) return;
      auto fulfiller = kj::mv(first.fulfiller);
      const uint64_t wanted = first.bytes;
      waiters_.pop_front();
      fulfiller->fulfill(take(wanted));
    } else {
      waiters_.pop_front();
    }
  }
}

}  // namespace bigcast
