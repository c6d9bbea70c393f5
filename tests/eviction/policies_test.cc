// Short traces worked out by hand from the rules in each policy's source.
#include "tests/eviction/support.h"

namespace bigcast::eviction {

TEST_CASE("fifo evicts in order of arrival, whatever is read") {
  UnitCache cache("fifo", 3);
  CHECK(cache.read_all("abcaad") == "a");
  CHECK(cache.read_all("bbe") == "b");
  CHECK(drain(cache.policy()) == "cde");
}

TEST_CASE("lru evicts what was read longest ago") {
  UnitCache cache("lru", 3);
  CHECK(cache.read_all("abcad") == "b");
  CHECK(cache.read_all("ce") == "a");
  CHECK(drain(cache.policy()) == "dce");
}

TEST_CASE("clock gives a second chance, once for each time round") {
  UnitCache cache("clock", 3);
  CHECK(cache.read_all("abcaad") == "b");  // a moves behind c, its bit is spent
  CHECK(cache.read_all("e") == "c");
  CHECK(cache.read_all("f") == "a");
  CHECK(drain(cache.policy()) == "def");
}

TEST_CASE("clock whose entries were all read goes round once") {
  UnitCache cache("clock", 3);
  CHECK(cache.read_all("abccbad") == "a");
  CHECK(drain(cache.policy()) == "bcd");
}

TEST_CASE("sieve's hand keeps its place, and what was read keeps its own") {
  // Figure 1 of the paper: the queue from the newest is H E! G! C! B A! (! visited), the hand at A.
  UnitCache cache("sieve", 6);
  CHECK(cache.read_all("ABCGEHACGE").empty());
  // A is spared, B goes and the hand points at C; then C, G and E are spared and H goes.
  CHECK(cache.read_all("I") == "B");
  CHECK(cache.read_all("J") == "H");
  CHECK(cache.read_all("A").empty());
  CHECK(cache.read_all("K") == "I");  // the hand moved towards the newest
  CHECK(cache.read_all("L") == "J");
  CHECK(cache.read_all("M") == "K");
}

TEST_CASE("sieve's hand survives the erasure of what it points at") {
  UnitCache cache("sieve", 4);
  CHECK(cache.read_all("abcda").empty());
  CHECK(cache.policy().evict() == 'b');  // now at c
  cache.policy().erase('c');
  CHECK(cache.policy().evict() == 'd');  // past the newest: at the oldest
  CHECK(cache.policy().evict() == 'a');
  CHECK_FALSE(cache.policy().evict());
}

TEST_CASE("s3fifo fills main behind a full small queue until something is evicted") {
  UnitCache cache("s3fifo", 20);  // small 2, main 18, ghosts 18
  CHECK(cache.read_all("abcdefghijklmnopqrst").empty());
  CHECK(cache.read_all("u") == "a");  // main is not above its share: small gives
  CHECK(cache.read_all("v") == "b");  // c to t went to main
  CHECK(cache.read_all("w") == "u");
}

TEST_CASE("s3fifo promotes what was hit twice, and takes ghosts back into main") {
  UnitCache cache("s3fifo", 20);
  CHECK(cache.read_all("abcdefghijklmnopqrst").empty());
  CHECK(cache.read_all("aab").empty());
  CHECK(cache.read_all("u") == "b");  // a is promoted, one hit is too few; main has 19 now
  CHECK(cache.read_all("v") == "c");  // ... which is above its share
  CHECK(cache.read_all("w") == "u");
  CHECK(cache.read_all("u") == "v");  // u was a ghost and returns to main, which has 19 again
  CHECK(cache.read_all("x") == "d");
}

TEST_CASE("s3fifo's main queue takes a hit off for each time round") {
  UnitCache cache("s3fifo", 20);
  CHECK(cache.read_all("abcdefghijklmnopqrst").empty());
  CHECK(cache.read_all("ccdaabb").empty());
  CHECK(cache.read_all("u") == "e");  // a and b were promoted, c and d spared
  CHECK(cache.read_all("v") == "f");
}

TEST_CASE("s3fifo refuses what the small queue can't hold") {
  const auto s3fifo = make_policy("s3fifo", 1000);
  CHECK(s3fifo->admits(99));
  CHECK_FALSE(s3fifo->admits(100));
  CHECK(make_policy("lru", 1000)->admits(1000));
}

TEST_CASE("arc's ghosts move the target between recency and frequency") {
  UnitCache cache("arc", 4);
  CHECK(cache.read_all("abab").empty());  // T2 = a b
  CHECK(cache.read_all("cd").empty());    // T1 = c d
  CHECK(cache.read_all("e") == "c");      // p = 0: T1 gives; B1 = c
  CHECK(cache.read_all("c") == "d");      // B1 hit: p = 1, T1 (d e) is above it; c in T2
  CHECK(cache.read_all("f") == "a");      // T1 (e) is not above 1: T2 (a b c) gives; B2 = a
  CHECK(cache.read_all("a") == "e");      // B2 hit: p = 0, T1 (e f) gives
}

TEST_CASE("arc that saw everything once forgets the oldest without a ghost") {
  UnitCache cache("arc", 3);
  CHECK(cache.read_all("abcd") == "a");
  CHECK(cache.read_all("a") == "b");  // no ghost of a: it is new again, in T1
  CHECK(cache.read_all("e") == "c");
  CHECK(cache.read_all("b") == "d");
}

TEST_CASE("gdsf prefers small and often read entries, and ages the others") {
  const auto gdsf = make_policy("gdsf", 100);
  gdsf->insert('a', 10);  // 0.1
  gdsf->insert('b', 2);   // 0.5
  gdsf->insert('c', 4);   // 0.25
  gdsf->hit('a');         // 0.2
  CHECK(gdsf->evict() == 'a');
  gdsf->insert('d', 10);  // 0.2 + 0.1: behind c only
  CHECK(gdsf->evict() == 'c');
  CHECK(gdsf->evict() == 'd');
  CHECK(gdsf->evict() == 'b');
}

TEST_CASE("gdsf counts a new entry with the age at which it was asked for") {
  const auto gdsf = make_policy("gdsf", 100);
  gdsf->insert('a', 2);         // 0.5
  gdsf->insert('b', 1);         // 1
  gdsf->expect('c', 4);         // 0 + 0.25
  CHECK(gdsf->evict() == 'a');  // the age is 0.5 now
  gdsf->insert('c', 4);
  gdsf->insert('d', 8);  // 0.5 + 0.125
  CHECK(drain(*gdsf) == "cdb");
}

TEST_CASE("gdsf evicts the one read longest ago among equals") {
  const auto gdsf = make_policy("gdsf", 100);
  for (const Entry entry : {u'a', u'b', u'c'}) gdsf->insert(entry, 1);
  for (const Entry entry : {u'c', u'a', u'b'}) gdsf->hit(entry);
  CHECK(drain(*gdsf) == "cab");
}

}  // namespace bigcast::eviction
