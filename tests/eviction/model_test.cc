// Every policy under random use: against a naive model where its rules are short, and for what
// must hold of all of them.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <list>
#include <new>
#include <optional>
#include <random>
#include <set>

#include "tests/eviction/support.h"

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
namespace {

// The rules of the four policies with one queue, on a plain list from oldest to newest.
class Model {
 public:
  explicit Model(std::string_view name) : name_(name) {}

  bool has(Entry entry) { return find(entry) != items_.end(); }
  size_t size() const { return items_.size(); }
  void insert(Entry entry) { items_.push_back({entry}); }
  void hit(Entry entry) {
    const auto item = find(entry);
    if (item == items_.end()) return;
    item->visited = true;
    if (name_ == "lru") items_.splice(items_.end(), items_, item);
  }
  void erase(Entry entry) {
    const auto item = find(entry);
    if (item != items_.end()) remove(item);
  }
  std::optional<Entry> evict() {
    if (items_.empty()) return std::nullopt;
    auto item = items_.begin();
    if (name_ == "clock") {
      for (; item->visited; item = items_.begin()) {
        item->visited = false;
        items_.splice(items_.end(), items_, item);
      }
    } else if (name_ == "sieve") {
      item = hand_;
      if (item == items_.end()) item = items_.begin();
      while (item->visited) {
        item->visited = false;
        if (++item == items_.end()) item = items_.begin();
      }
      hand_ = item;
    }
    const Entry entry = item->entry;
    remove(item);
    return entry;
  }

 private:
  struct Item {
    Entry entry = 0;
    bool visited = false;
  };
  using Items = std::list<Item>;

  Items::iterator find(Entry entry) {
    return std::find_if(items_.begin(), items_.end(),
                        [entry](const Item& item) { return item.entry == entry; });
  }
  void remove(Items::iterator item) {
    if (item == hand_) ++hand_;
    items_.erase(item);
  }

  const std::string_view name_;
  Items items_;
  Items::iterator hand_ = items_.end();
};

constexpr uint64_t kSeed = 42;

}  // namespace

TEST_CASE("fifo, lru, clock and sieve agree with a naive list on random use") {
  for (const std::string_view name : {"fifo", "lru", "clock", "sieve"}) {
    CAPTURE(name);
    const auto policy = make_policy(name, 64);
    Model model(name);
    std::mt19937_64 random(kSeed);
    for (int step = 0; step < 50'000; ++step) {
      CAPTURE(step);
      const Entry entry = random() % 64 << 55 | random() % 2;  // also in bits that few hashes see
      switch (random() % 4) {
        case 0:
          if (model.has(entry)) break;
          policy->insert(entry, 1);
          model.insert(entry);
          break;
        case 1:
          policy->hit(entry);
          model.hit(entry);
          break;
        case 2:
          policy->erase(entry);
          model.erase(entry);
          break;
        default:
          REQUIRE(policy->evict() == model.evict());
      }
      REQUIRE(policy->size() == model.size());
    }
  }
}

TEST_CASE("every policy evicts each resident entry once, whatever happened to it") {
  for (const std::string_view name : kPolicyNames) {
    CAPTURE(name);
    constexpr uint64_t kCapacity = 1000;
    const auto policy = make_policy(name, kCapacity);
    CHECK(policy->name() == name);
    std::set<Entry> resident;
    std::mt19937_64 random(kSeed);
    for (int step = 0; step < 50'000; ++step) {
      const Entry entry = entry_of(random() % 8, static_cast<uint32_t>(random() % 100));
      const uint64_t stream = random() % 16;
      switch (random() % 12) {
        case 0:
        case 1:
        case 2:
        case 3:
          if (resident.contains(entry)) break;
          policy->expect(entry, 1 + entry % 10);
          if (random() % 2 == 0) break;  // it did not come after all
          policy->insert(entry, 1 + entry % 10);
          resident.insert(entry);
          break;
        case 4:
          policy->hit(entry);
          break;
        case 5:
          policy->erase(entry);
          resident.erase(entry);
          break;
        case 6:
          policy->open_stream(stream, blob_of(entry),
                              stream % 2 == 0 ? ReadOrder::kAscending : ReadOrder::kResidentFirst);
          break;
        case 7:
        case 8:
          policy->advance_stream(stream, chunk_of(entry));
          break;
        case 9:
          policy->close_stream(stream);
          if (random() % 8 == 0) policy->release_blob(blob_of(entry));
          break;
        case 10:
          policy->mark_prefetched(entry);
          break;
        default:
          const auto victim = policy->evict();
          REQUIRE(victim.has_value() == !resident.empty());
          if (victim) REQUIRE(resident.erase(*victim) == 1);
      }
      REQUIRE(policy->size() == resident.size());
    }
    while (const auto victim = policy->evict()) REQUIRE(resident.erase(*victim) == 1);
    CHECK(resident.empty());
    CHECK(policy->size() == 0);
  }
}

TEST_CASE("every policy ignores hits and erasures of what it does not hold, ghosts included") {
  for (const std::string_view name : kPolicyNames) {
    CAPTURE(name);
    const auto policy = make_policy(name, 100);
    policy->hit(7);
    policy->erase(7);
    CHECK_FALSE(policy->evict());
    policy->insert(7, 1);
    CHECK(policy->evict() == 7);
    policy->hit(7);
    policy->erase(7);
    CHECK(policy->size() == 0);
    CHECK_FALSE(policy->evict());
    policy->insert(7, 1);
    CHECK(policy->size() == 1);
  }
}

TEST_CASE("a hit allocates nothing") {
  constexpr uint32_t kEntries = 1000;
  for (const std::string_view name : kPolicyNames) {
    CAPTURE(name);
    const auto policy = make_policy(name, kEntries);
    policy->open_stream(1, 0, ReadOrder::kAscending);
    for (uint32_t chunk = 0; chunk < kEntries; ++chunk) policy->insert(entry_of(0, chunk), 1);
    const size_t before = allocations.load();
    for (uint32_t chunk = 0; chunk < 2 * kEntries; ++chunk) {
      policy->hit(entry_of(0, chunk));
      policy->advance_stream(1, chunk);
    }
    CHECK(allocations.load() == before);
  }
}

TEST_CASE("what a policy remembers is bounded by its capacity") {
  constexpr uint64_t kCapacity = 100;
  for (const std::string_view name : kPolicyNames) {
    CAPTURE(name);
    const auto policy = make_policy(name, kCapacity);
    uint64_t number = 0;
    const auto allocated_by = [&](int reads) {
      const size_t before = allocations.load();
      for (int i = 0; i < reads; ++i) {
        const Entry entry = entry_of(number++, 0);
        policy->expect(entry, 1);
        if (policy->size() == kCapacity) policy->evict();
        policy->insert(entry, 1);
      }
      return allocations.load() - before;
    };
    allocated_by(10'000);
    // Were anything kept for good, tables would grow, and more rarely the larger they are.
    const size_t by_few = allocated_by(10'000);
    CHECK(allocated_by(100'000) == 10 * by_few);
  }
}

TEST_CASE("policies are found by name") {
  for (const std::string_view name : kPolicyNames) REQUIRE(make_policy(name, 1));
  CHECK_FALSE(make_policy("LRU", 1));
  CHECK_FALSE(make_policy("", 1));
}

}  // namespace bigcast::eviction
