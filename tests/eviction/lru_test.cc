#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <list>
#include <new>
#include <random>

#include "eviction/policy.h"

namespace {
std::atomic<size_t> allocations{0};
}  // namespace

// Counts every allocation of this binary, so that a test can show that there was none.
void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace bigcast::eviction {

TEST_CASE("lru evicts in order of last use") {
  const auto lru = make_lru();
  for (uint64_t entry : {1, 2, 3, 4}) lru->insert(entry, 1);
  lru->hit(1);
  lru->hit(3);
  lru->erase(2);
  CHECK(lru->size() == 3);
  CHECK(lru->evict() == 4);
  CHECK(lru->evict() == 1);
  CHECK(lru->evict() == 3);
  CHECK_FALSE(lru->evict());
  CHECK(lru->size() == 0);
}

TEST_CASE("lru ignores hits and erasures of what it does not hold") {
  const auto lru = make_lru();
  lru->hit(7);
  lru->erase(7);
  CHECK_FALSE(lru->evict());
  lru->insert(7, 1);
  CHECK(lru->evict() == 7);
  lru->hit(7);
  CHECK(lru->size() == 0);
  lru->insert(7, 1);
  CHECK(lru->size() == 1);
}

TEST_CASE("a hit allocates nothing") {
  const auto lru = make_lru();
  for (uint64_t entry = 0; entry < 1000; ++entry) lru->insert(entry, 1);
  const size_t before = allocations.load();
  for (uint64_t entry = 0; entry < 2000; ++entry) lru->hit(entry);
  CHECK(allocations.load() == before);
}

TEST_CASE("lru agrees with a naive list on random use") {
  const auto lru = make_lru();
  std::list<uint64_t> naive;  // oldest first
  std::mt19937_64 random(42);
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t entry = random() % 64;
    const auto found = std::find(naive.begin(), naive.end(), entry);
    switch (random() % 4) {
      case 0:
        if (found == naive.end()) {
          lru->insert(entry, 1);
          naive.push_back(entry);
        }
        break;
      case 1:
        lru->hit(entry);
        if (found != naive.end()) naive.splice(naive.end(), naive, found);
        break;
      case 2:
        lru->erase(entry);
        if (found != naive.end()) naive.erase(found);
        break;
      default:
        if (naive.empty()) {
          REQUIRE_FALSE(lru->evict());
        } else {
          REQUIRE(lru->evict() == naive.front());
          naive.pop_front();
        }
    }
    REQUIRE(lru->size() == naive.size());
  }
}

TEST_CASE("policies are found by name") {
  REQUIRE(make_policy("lru"));
  CHECK(make_policy("lru")->name() == "lru");
  CHECK_FALSE(make_policy("LRU"));
  CHECK_FALSE(make_policy(""));
}

}  // namespace bigcast::eviction
