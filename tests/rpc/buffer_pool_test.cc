#include "rpc/buffer_pool.h"

#include <doctest/doctest.h>

#include <cstring>
#include <utility>
#include <vector>

#include "rpc/uv_loop.h"

using namespace bigcast::rpc;

namespace {
constexpr size_t kKiB = 1024;
}

TEST_CASE("buffers are granted in order and never above the bound") {
  UvLoop loop;
  auto& scope = loop.wait_scope();
  BufferPool pool(256 * kKiB);
  auto a = pool.acquire(100 * kKiB).wait(scope);
  CHECK(a->capacity() == 128 * kKiB);
  CHECK(reinterpret_cast<uintptr_t>(a->bytes().data()) % 4096 == 0);
  auto b = pool.acquire(1).wait(scope);
  CHECK(pool.bytes_used() == 192 * kKiB);
  std::vector<int> order;
  auto big = pool.acquire(128 * kKiB).then([&](auto buffer) {
    order.push_back(1);
    return kj::mv(buffer);
  });
  // Would fit, but must not overtake the big one, which would starve.
  auto small = pool.acquire(64 * kKiB).then([&](auto buffer) {
    order.push_back(2);
    return kj::mv(buffer);
  });
  CHECK_FALSE(small.poll(scope));
  CHECK_FALSE(big.poll(scope));
  b = nullptr;
  auto got_big = big.wait(scope);
  CHECK(pool.bytes_used() == 256 * kKiB);
  CHECK_FALSE(small.poll(scope));
  a = nullptr;
  auto got_small = small.wait(scope);
  CHECK(order == std::vector<int>{1, 2});
  std::memset(got_big->bytes().data(), 1, got_big->capacity());
}

TEST_CASE("a waiter that gives up makes way, and a buffer granted to nobody comes back") {
  UvLoop loop;
  auto& scope = loop.wait_scope();
  BufferPool pool(128 * kKiB);
  auto a = pool.acquire(64 * kKiB).wait(scope);
  auto big = pool.acquire(128 * kKiB);
  auto small = pool.acquire(64 * kKiB);
  CHECK_FALSE(small.poll(scope));
  { auto dropped = kj::mv(big); }
  CHECK(small.poll(scope));
  { auto dropped = kj::mv(small); }
  CHECK(pool.bytes_used() == 64 * kKiB);
  std::byte* const data = a->bytes().data();
  a = nullptr;
  CHECK(pool.bytes_used() == 0);
  CHECK(pool.acquire(64 * kKiB).wait(scope)->bytes().data() != nullptr);
  (void)data;
}

TEST_CASE("a buffer is reused; buffers of another size make room") {
  UvLoop loop;
  auto& scope = loop.wait_scope();
  BufferPool pool(128 * kKiB);
  auto a = pool.acquire(64 * kKiB).wait(scope);
  std::byte* const data = a->bytes().data();
  a = nullptr;
  a = pool.acquire(60 * kKiB).wait(scope);
  CHECK(a->bytes().data() == data);
  a = nullptr;
  auto whole = pool.acquire(128 * kKiB).wait(scope);
  CHECK(pool.bytes_used() == pool.bytes_max());
}

TEST_CASE("more than the pool has is refused") {
  UvLoop loop;
  BufferPool pool(64 * kKiB);
  CHECK_THROWS(pool.acquire(64 * kKiB + 1).wait(loop.wait_scope()));
}
