#include <doctest/doctest.h>

#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>

#include "base/limits.h"
#include "tests/bench/broadcast.h"
#include "tests/bench/cache.h"

namespace bigcast::bench {
namespace {

constexpr auto kFixed = eviction::ReadOrder::kAscending;
constexpr auto kResidentFirst = eviction::ReadOrder::kResidentFirst;

std::string generated(uint64_t seed) {
  std::ostringstream trace;
  generate_broadcast(seed, trace);
  return trace.str();
}

Cache::Counts replay(const std::string& trace, const char* policy, uint64_t capacity,
                     std::optional<eviction::ReadOrder> order) {
  Cache cache(eviction::make_policy(policy, capacity), capacity, false);
  std::istringstream lines(trace);
  const auto done = BroadcastReplay(cache, order).run(lines);
  REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
  return cache.counts();
}

std::string error_of(const std::string& trace) {
  Cache cache(eviction::make_policy("lru", 1), 1, false);
  std::istringstream lines(trace);
  const auto done = BroadcastReplay(cache, kFixed).run(lines);
  return done ? "" : done.error().message;
}

double refetched(const std::string& trace, const char* policy, uint64_t gib,
                 eviction::ReadOrder order) {
  return static_cast<double>(replay(trace, policy, gib * limits::kGiB, order).bytes_refetched);
}

}  // namespace

TEST_CASE("demand refetches much less than lru on broadcast loads") {
  for (const uint64_t seed : {uint64_t{1}, uint64_t{3}, uint64_t{std::random_device()()}}) {
    INFO("seed " << seed);
    const std::string trace = generated(seed);
    const double lru = refetched(trace, "lru", 8, kFixed);
    CHECK(refetched(trace, "demand", 8, kFixed) <= 0.70 * lru);
    CHECK(refetched(trace, "demand", 8, kResidentFirst) <= 0.62 * lru);
  }
}

TEST_CASE("demand is not behind lru in smaller and larger caches") {
  const std::string trace = generated(1);
  for (const uint64_t gib : {4, 24}) {
    CAPTURE(gib);
    const double lru = refetched(trace, "lru", gib, kFixed);
    CHECK(refetched(trace, "demand", gib, kFixed) <= 1.05 * lru);
    CHECK(refetched(trace, "demand", gib, kResidentFirst) <= 1.05 * lru);
  }
}

TEST_CASE("the reference load depends on nothing but its seed") {
  const std::string trace = generated(7);
  CHECK(trace == generated(7));
  CHECK(trace != generated(8));
  CHECK(trace.starts_with(R"({"t":348.094275,"op":"put","blob":1159,"app":47,"bytes":13803})"
                          "\n"));
}

TEST_CASE("a reader takes a blob in chunks of 64 MiB, and a late one is behind it") {
  // 100 MiB: two chunks each. The second reader comes while the first is at its second chunk.
  const std::string trace =
      R"({"t":0,"op":"put","blob":"a","app":1,"bytes":104857600}
{"t":1,"op":"read","blob":"a","app":1}
{"t":1.03,"op":"read","blob":"a","app":1}
)";
  auto counts = replay(trace, "lru", limits::kGiB, kFixed);
  CHECK(counts.reads == 4);
  CHECK(counts.misses == 2);
  CHECK(counts.bytes_read == 209715200);
  CHECK(counts.bytes_missed == 104857600);
  CHECK(counts.bytes_refetched == 0);
  // With room for one chunk: 0 (both), 1 (both): they are 30 ms apart, a chunk takes 62.5.
  counts = replay(trace, "lru", 64 * limits::kMiB, kFixed);
  CHECK(counts.misses == 2);
}

TEST_CASE("readers that take resident chunks first read what is there, then the rest") {
  // Room for one chunk of the two. The second reader finds chunk 1, reads it, and fetches chunk 0
  // again; in fixed order it fetches both again.
  const std::string trace =
      R"({"t":0,"op":"put","blob":1,"app":1,"bytes":134217728}
{"t":1,"op":"read","blob":1,"app":1}
{"t":2,"op":"read","blob":1,"app":1}
{"t":9,"op":"release","blob":1}
)";
  CHECK(replay(trace, "lru", 64 * limits::kMiB, kFixed).bytes_refetched == 134217728);
  CHECK(replay(trace, "lru", 64 * limits::kMiB, kResidentFirst).bytes_refetched == 67108864);
}

TEST_CASE("recorded streams are replayed as they were") {
  const std::string trace =
      R"({"t":0,"op":"put","blob":"9f","app":"a","bytes":3000}
{"t":0.1,"op":"open","blob":"9f","stream":1}
{"t":0.2,"op":"chunk","blob":"9f","stream":1,"chunk":0,"bytes":1000}
{"t":0.2,"op":"chunk","blob":"9f","stream":1,"chunk":1,"bytes":1000}
{"t":0.3,"op":"chunk","blob":"9f","stream":1,"chunk":0,"bytes":1000}
{"t":0.4,"op":"close","blob":"9f","stream":1}
)";
  const auto counts = replay(trace, "demand", 1000, kFixed);
  CHECK(counts.reads == 3);
  CHECK(counts.misses == 3);
  CHECK(counts.bytes_refetched == 1000);
}

TEST_CASE("a recorded stream that takes resident chunks first takes those of the replay") {
  // Room for one chunk of the two. Where this was recorded chunk 0 was resident at the second read.
  const auto trace = [](const std::string& order) {
    return R"({"t":0,"op":"put","blob":1,"bytes":0}
{"t":1,"op":"open","blob":1,"stream":1}
{"t":1,"op":"chunk","blob":1,"stream":1,"chunk":0,"bytes":1000}
{"t":1,"op":"chunk","blob":1,"stream":1,"chunk":1,"bytes":900}
{"t":1,"op":"close","blob":1,"stream":1}
{"t":2,"op":"open","blob":1,"stream":2)" +
           order + R"(}
{"t":2,"op":"chunk","blob":1,"stream":2,"chunk":0,"bytes":1000}
{"t":2,"op":"chunk","blob":1,"stream":2,"chunk":1,"bytes":900}
{"t":2,"op":"close","blob":1,"stream":2}
{"t":3,"op":"chunk","blob":1,"chunk":0,"bytes":1000}
)";
  };
  const std::string fixed = trace(R"(,"order":"fixed")");
  const std::string resident_first = trace(R"(,"order":"resident-first")");
  for (const std::string& each : {trace(""), fixed, resident_first}) {
    CHECK(replay(each, "lru", 1000, kFixed).bytes_refetched == 2900);
    // The second stream finds chunk 1 and fetches chunk 0, which the last reader then finds.
    CHECK(replay(each, "lru", 1000, kResidentFirst).bytes_refetched == 1000);
  }
  CHECK(replay(trace(""), "lru", 1000, std::nullopt).bytes_refetched == 2900);
  CHECK(replay(fixed, "lru", 1000, std::nullopt).bytes_refetched == 2900);
  CHECK(replay(resident_first, "lru", 1000, std::nullopt).bytes_refetched == 1000);
  CHECK(replay(resident_first, "lru", 1000, std::nullopt).reads == 5);
}

TEST_CASE("a stream's number may be used again") {
  std::string trace = R"({"t":0,"op":"put","blob":1,"bytes":0})"
                      "\n";
  for (const char* chunk : {"3", "5"}) {
    trace += R"({"t":1,"op":"open","blob":1,"stream":1})"
             "\n";
    trace += R"({"t":1,"op":"chunk","blob":1,"stream":1,"chunk":)" + std::string(chunk) +
             R"(,"bytes":7})"
             "\n"
             R"({"t":1,"op":"close","blob":1,"stream":1})"
             "\n";
  }
  const auto counts = replay(trace, "lru", 1000, kResidentFirst);
  CHECK(counts.misses == 2);
  CHECK(counts.bytes_refetched == 0);
}

TEST_CASE("a bad broadcast trace is refused by line and key") {
  const std::string put = R"({"t":1,"op":"put","blob":1,"app":1,"bytes":1})";
  CHECK(error_of("nonsense") == "TRACE: line 1: is no JSON object");
  CHECK(error_of(put + "\n{}") == "TRACE: line 2: t: must be a number");
  CHECK(error_of(R"({"t":1,"op":"put"})") == "TRACE: line 1: blob: must be a string or a number");
  CHECK(error_of(put + "\n" + put) == "TRACE: line 2: blob: 1 was put before");
  CHECK(error_of(R"({"t":1,"op":"read","blob":2,"app":1})") ==
        "TRACE: line 1: blob: 2 was not put");
  CHECK(error_of(put + "\n" + R"({"t":0,"op":"read","blob":1,"app":1})") ==
        "TRACE: line 2: t: 0 is before 1");
  CHECK(error_of(R"({"t":1,"op":"put","blob":1,"app":1,"bytes":-1})")
            .starts_with("TRACE: line 1: bytes: must be a number from 0"));
  CHECK(error_of(put + "\n" + R"({"t":1,"op":"peek","blob":1})")
            .starts_with("TRACE: line 2: op: \"peek\" is none of"));
  CHECK(error_of(put + "\n" + R"({"t":1,"op":"open","blob":1})")
            .starts_with("TRACE: line 2: stream: must be a number"));
  CHECK(error_of(put + "\n" + R"({"t":1,"op":"open","blob":1,"stream":1,"order":"any"})") ==
        "TRACE: line 2: order: \"any\" is neither fixed nor resident-first");
}

}  // namespace bigcast::bench
