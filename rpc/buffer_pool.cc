#include "rpc/buffer_pool.h"

#include <kj/debug.h>

#include <cstdlib>
#include <new>

#include "base/pages.h"

namespace bigcast::rpc {
namespace {

constexpr size_t kGranule = 64 * 1024;

}  // namespace

BufferPool::Buffer::Buffer(BufferPool& pool, std::byte* data, size_t capacity)
    : pool_(pool), data_(data), capacity_(capacity) {}

BufferPool::Buffer::~Buffer() noexcept(false) { pool_.give_back(data_, capacity_); }

BufferPool::BufferPool(size_t bytes_max) : bytes_max_(bytes_max) {}

BufferPool::~BufferPool() noexcept(false) {
  for (auto& [capacity, data] : free_) std::free(data);
  KJ_ASSERT(bytes_used_ == 0, "a buffer outlives its pool", bytes_used_);
}

kj::Promise<kj::Own<BufferPool::Buffer>> BufferPool::acquire(size_t size) {
  KJ_REQUIRE(size <= bytes_max_, "a buffer larger than its pool", size, bytes_max_);
  // A pool whose bound is no multiple of the granule can still hand out buffers of its full size.
  const size_t rounded =
      std::min(bytes_max_, (std::max<size_t>(size, 1) + kGranule - 1) / kGranule * kGranule);
  if (waiters_.empty() && bytes_used_ + rounded <= bytes_max_) return take(rounded);
  auto paf = kj::newPromiseAndFulfiller<kj::Own<Buffer>>();
  waiters_.push_back({rounded, kj::mv(paf.fulfiller)});
  // When a waiter gives up, those behind it may fit.
  return paf.promise.attach(kj::defer([this]() { grant_waiters(); }));
}

kj::Own<BufferPool::Buffer> BufferPool::take(size_t rounded) {
  std::byte* data = nullptr;
  const auto cached = free_.find(rounded);
  if (cached != free_.end()) {
    data = cached->second;
    free_.erase(cached);
    bytes_cached_ -= rounded;
  } else {
    // Buffers of other sizes make room: used + cached stays within the bound.
    while (!free_.empty() && bytes_used_ + bytes_cached_ + rounded > bytes_max_) {
      bytes_cached_ -= free_.begin()->first;
      std::free(free_.begin()->second);
      free_.erase(free_.begin());
    }
    data = static_cast<std::byte*>(std::aligned_alloc(kPage, whole_pages(rounded)));
    if (data == nullptr) throw std::bad_alloc();
    ++made_;
  }
  bytes_used_ += rounded;
  return kj::heap<Buffer>(*this, data, rounded);
}

void BufferPool::give_back(std::byte* data, size_t capacity) {
  bytes_used_ -= capacity;
  free_.emplace(capacity, data);
  bytes_cached_ += capacity;
  grant_waiters();
}

void BufferPool::grant_waiters() {
  while (!waiters_.empty()) {
    if (waiters_.front().fulfiller->isWaiting()) {
      if (bytes_used_ + waiters_.front().size > bytes_max_) return;
      Waiter waiter = kj::mv(waiters_.front());
      waiters_.pop_front();
      waiter.fulfiller->fulfill(take(waiter.size));
    } else {
      waiters_.pop_front();
    }
  }
}

}  // namespace bigcast::rpc
