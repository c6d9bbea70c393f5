#include <map>
#include <random>
#include <set>

#include "eviction/index_set.h"
#include "tests/eviction/support.h"

namespace bigcast::eviction {
namespace {

constexpr auto kAscending = ReadOrder::kAscending;
constexpr auto kResidentFirst = ReadOrder::kResidentFirst;

// `demand` with chunks of blobs 1 and 2; evictions are given as "1.3": blob 1, chunk 3.
struct Fixture {
  std::unique_ptr<Policy> demand = make_policy("demand", 100);

  void insert(uint64_t blob, uint32_t begin, uint32_t end) {
    for (uint32_t chunk = begin; chunk < end; ++chunk) demand->insert(entry_of(blob, chunk), 1);
  }
  void read(uint64_t stream, uint64_t blob, uint32_t begin, uint32_t end) {
    for (uint32_t chunk = begin; chunk < end; ++chunk) {
      demand->hit(entry_of(blob, chunk));
      demand->advance_stream(stream, chunk);
    }
  }
  std::string evict(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      const auto entry = demand->evict();
      if (!entry) return text + "none";
      text += std::to_string(blob_of(*entry)) + "." + std::to_string(chunk_of(*entry)) + " ";
    }
    return text;
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "demand without streams is lru") {
  insert(1, 0, 3);
  insert(2, 0, 1);
  demand->hit(entry_of(1, 0));
  CHECK(evict(5) == "1.1 1.2 2.0 1.0 none");
}

TEST_CASE_FIXTURE(Fixture, "what no stream will read leaves before what one will") {
  insert(1, 0, 2);
  insert(2, 0, 2);
  demand->open_stream(7, 1, kAscending);
  CHECK(evict(2) == "2.0 2.1 ");
}

TEST_CASE_FIXTURE(Fixture, "the chunk farthest from the nearest stream leaves first") {
  insert(1, 0, 4);
  insert(2, 0, 3);
  demand->open_stream(7, 1, kAscending);
  demand->open_stream(8, 2, kAscending);
  CHECK(evict(2) == "1.3 1.2 ");
  read(7, 1, 0, 1);
  // 1.0 is read; 2.2 is 2 away, 2.1 is 1 away.
  CHECK(evict(3) == "1.0 2.2 2.1 ");
}

TEST_CASE_FIXTURE(Fixture, "a stream that follows needs what the first has read") {
  insert(1, 0, 7);
  demand->open_stream(7, 1, kAscending);
  read(7, 1, 0, 4);
  demand->open_stream(8, 1, kAscending);
  // Stream 8 is 3 away from chunk 3; stream 7 is 2 away from chunk 6.
  CHECK(evict(1) == "1.3 ");
  read(8, 1, 0, 2);
  CHECK(evict(4) == "1.0 1.1 1.6 1.5 ");
}

TEST_CASE_FIXTURE(Fixture, "a stream that overtakes takes its place in the order") {
  insert(1, 0, 12);
  demand->open_stream(7, 1, kAscending);
  demand->open_stream(8, 1, kAscending);
  read(7, 1, 0, 2);
  read(8, 1, 0, 6);
  // 0 and 1 are read by both; 7 needs 2 to 5 and 8 the rest.
  CHECK(evict(2) == "1.0 1.1 ");
  CHECK(evict(2) == "1.11 1.10 ");
  read(8, 1, 6, 8);
  // Stream 7 is 5 away from chunk 7.
  CHECK(evict(3) == "1.7 1.6 1.5 ");
}

TEST_CASE_FIXTURE(Fixture, "what a closed stream had to read is lru again, behind the others") {
  insert(1, 0, 2);
  insert(2, 0, 2);
  demand->open_stream(7, 1, kAscending);
  CHECK(evict(1) == "2.0 ");  // 1.0 and 1.1 were older and are set aside
  demand->close_stream(7);
  CHECK(evict(3) == "2.1 1.0 1.1 ");
}

TEST_CASE_FIXTURE(Fixture, "closing the first of two streams leaves the other's need") {
  insert(1, 0, 4);
  insert(2, 0, 1);
  demand->open_stream(7, 1, kAscending);
  demand->open_stream(8, 1, kAscending);
  read(8, 1, 0, 2);
  CHECK(evict(1) == "2.0 ");
  demand->close_stream(7);
  CHECK(evict(4) == "1.0 1.1 1.3 1.2 ");
}

TEST_CASE_FIXTURE(Fixture, "chunks that come while a stream is open are needed too") {
  demand->open_stream(7, 1, kAscending);
  insert(1, 0, 3);
  insert(2, 0, 1);
  CHECK(evict(4) == "2.0 1.2 1.1 1.0 ");
}

TEST_CASE_FIXTURE(Fixture, "a stream that takes resident chunks first needs what it has not read") {
  insert(1, 0, 4);
  insert(2, 0, 2);
  demand->open_stream(7, 1, kResidentFirst);
  read(7, 1, 2, 3);
  CHECK(evict(3) == "2.0 2.1 1.2 ");
  demand->open_stream(8, 1, kResidentFirst);
  read(7, 1, 0, 2);
  insert(2, 3, 4);
  CHECK(evict(1) == "2.3 ");  // stream 8 needs what 7 has read
  demand->close_stream(8);
  CHECK(evict(3) == "1.0 1.1 1.3 ");
}

TEST_CASE_FIXTURE(Fixture, "released blobs leave first, unless an open stream needs them") {
  insert(2, 0, 1);
  insert(1, 0, 3);
  demand->open_stream(7, 1, kAscending);
  read(7, 1, 0, 2);
  demand->release_blob(1);
  CHECK(evict(4) == "1.0 1.1 2.0 1.2 ");
}

TEST_CASE_FIXTURE(Fixture, "unread prefetch leaves after released blobs and before what was read") {
  insert(1, 0, 2);
  insert(2, 0, 3);
  insert(3, 0, 1);
  for (uint32_t chunk = 0; chunk < 3; ++chunk) demand->mark_prefetched(entry_of(2, chunk));
  demand->hit(entry_of(2, 1));
  demand->release_blob(3);
  CHECK(evict(6) == "3.0 2.0 2.2 1.0 1.1 2.1 ");
}

TEST_CASE_FIXTURE(Fixture, "prefetch that an open stream comes to is needed") {
  insert(1, 0, 2);
  insert(2, 0, 2);
  for (uint32_t chunk = 0; chunk < 2; ++chunk) demand->mark_prefetched(entry_of(2, chunk));
  demand->open_stream(7, 2, kAscending);
  CHECK(evict(4) == "1.0 1.1 2.1 2.0 ");
}

// The same rules without any of the shortcuts: looks at every chunk and stream.
TEST_CASE("demand agrees with a search over all chunks and streams on random use") {
  struct Naive {
    std::map<uint64_t, std::pair<uint64_t, uint32_t>> streams;  // blob, next
    std::optional<uint32_t> distance(Entry entry) const {
      std::optional<uint32_t> least;
      for (const auto& [number, stream] : streams) {
        if (stream.first != blob_of(entry) || stream.second > chunk_of(entry)) continue;
        const uint32_t away = chunk_of(entry) - stream.second;
        least = std::min(least.value_or(away), away);
      }
      return least;
    }
  };
  Fixture fixture;
  Policy& demand = *fixture.demand;
  Naive naive;
  std::set<Entry> resident;
  std::mt19937_64 random(42);
  for (int step = 0; step < 100'000; ++step) {
    CAPTURE(step);
    const Entry entry = entry_of(random() % 4, static_cast<uint32_t>(random() % 80));
    const uint64_t stream = random() % 12;
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        if (resident.insert(entry).second) demand.insert(entry, 1);
        break;
      case 3:
        demand.open_stream(stream, blob_of(entry), kAscending);
        naive.streams.try_emplace(stream, blob_of(entry), 0);
        break;
      case 4:
      case 5:
        if (const auto it = naive.streams.find(stream); it != naive.streams.end()) {
          const uint32_t chunk = it->second.second + static_cast<uint32_t>(random() % 3);
          demand.advance_stream(stream, chunk);
          it->second.second = chunk + 1;
        }
        break;
      case 6:
        if (random() % 4 != 0) break;
        demand.close_stream(stream);
        naive.streams.erase(stream);
        break;
      default:
        const auto victim = demand.evict();
        REQUIRE(victim.has_value() == !resident.empty());
        if (!victim) break;
        REQUIRE(resident.contains(*victim));
        // None is better to evict: without need, or farther away.
        const auto distance = naive.distance(*victim);
        for (const Entry other : resident) {
          const auto away = naive.distance(other);
          if (distance) REQUIRE((away && *away <= *distance));
        }
        resident.erase(*victim);
    }
  }
}

TEST_CASE("an index set finds its neighbours as a sorted set does") {
  IndexSet set;
  std::set<uint32_t> model;
  std::mt19937_64 random(42);
  for (int step = 0; step < 50'000; ++step) {
    const auto any = static_cast<uint32_t>(random() % (1u << 20));
    const uint32_t index = random() % 2 == 0 ? any : any % 300;
    if (model.insert(index).second) {
      set.add(index);
    } else {
      model.erase(index);
      set.remove(index);
    }
    if (step % 3 == 0 && !model.empty()) {
      set.remove(*model.begin());
      model.erase(model.begin());
    }
    const auto after = model.lower_bound(any);
    REQUIRE(set.first_from(any) == (after == model.end() ? std::nullopt : std::optional(*after)));
    REQUIRE(set.last_before(any) ==
            (after == model.begin() ? std::nullopt : std::optional(*std::prev(after))));
    REQUIRE(set.empty() == model.empty());
  }
}

}  // namespace bigcast::eviction
