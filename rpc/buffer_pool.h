#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

namespace bigcast::rpc {

// Chunk buffers under a fixed total: the bound on what a node (or client) has in flight. A buffer
// is page-aligned and reused, so that its pages stay touched. Requests are granted in order.
// Use it on one loop's thread; a granted buffer's bytes may be filled on any thread.
class BufferPool {
 public:
  explicit BufferPool(size_t bytes_max);
  ~BufferPool() noexcept(false);  // All buffers must have been returned.

  class Buffer {  // Returns itself when destroyed, on the pool's thread.
   public:
    Buffer(BufferPool& pool, std::byte* data, size_t capacity);
    ~Buffer() noexcept(false);
    std::span<std::byte> bytes() { return {data_, capacity_}; }
    size_t capacity() const { return capacity_; }

   private:
    BufferPool& pool_;
    std::byte* data_;
    size_t capacity_;
  };

  // A buffer of at least `size` bytes (rounded up to 64 KiB); waits while the pool is used up.
  // Requires: size <= bytes_max.
  kj::Promise<kj::Own<Buffer>> acquire(size_t size);
  size_t bytes_used() const { return bytes_used_; }
  size_t bytes_max() const { return bytes_max_; }
  uint64_t made() const { return made_; }  // buffers that were made anew so far

 private:
  struct Waiter {
    size_t size;
    kj::Own<kj::PromiseFulfiller<kj::Own<Buffer>>> fulfiller;
  };
  kj::Own<Buffer> take(size_t rounded);
  void give_back(std::byte* data, size_t capacity);
  void grant_waiters();

  size_t bytes_max_;
  size_t bytes_used_ = 0;
  size_t bytes_cached_ = 0;
  uint64_t made_ = 0;
  std::multimap<size_t, std::byte*> free_;
  std::deque<Waiter> waiters_;
};

}  // namespace bigcast::rpc
