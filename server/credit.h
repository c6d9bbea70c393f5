#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstdint>
#include <deque>

namespace bigcast {

// What may be in use of something at once: bytes that come in (granted to uploads, taken by the
// relay's fetches) or that go out to a peer, or turns. First come, first served, so a large request
// is not starved by small ones. Refcounted: a credit keeps its pool alive. Use it on the loop's
// thread only.
class CreditPool final : public kj::Refcounted {
 public:
  explicit CreditPool(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  class Credit {  // Gives itself back when destroyed.
   public:
    Credit(kj::Own<CreditPool> pool, uint64_t bytes) : pool_(kj::mv(pool)), bytes_(bytes) {}
    ~Credit() noexcept(false) { pool_->give_back(bytes_); }
    KJ_DISALLOW_COPY(Credit);
    uint64_t bytes() const { return bytes_; }

   private:
    kj::Own<CreditPool> pool_;
    uint64_t bytes_;
  };

  // Waits for `bytes`. Requires: 1 <= bytes <= bytes_max. Dropping the promise leaves the queue.
  kj::Promise<kj::Own<Credit>> acquire(uint64_t bytes);
  uint64_t bytes_used() const { return bytes_used_; }
  uint64_t bytes_max() const { return bytes_max_; }

 private:
  struct Waiter {
    uint64_t bytes;
    kj::Own<kj::PromiseFulfiller<kj::Own<Credit>>> fulfiller;
  };
  void give_back(uint64_t bytes);
  void grant_waiters();
  kj::Own<Credit> take(uint64_t bytes);

  uint64_t bytes_max_;
  uint64_t bytes_used_ = 0;
  std::deque<Waiter> waiters_;
};

}  // namespace bigcast
