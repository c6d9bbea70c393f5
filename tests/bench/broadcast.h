#pragma once

#include <cstdint>
#include <iosfwd>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "tests/bench/cache.h"

// Broadcast traces: JSON lines in order of time `t`, in seconds.
//
//   {"t":0.5,"op":"put","blob":7,"app":1,"bytes":1048576}
//   {"t":1.5,"op":"read","blob":7,"app":1}      one reader reads all of it, at 1 GiB/s, in chunks
//   {"t":9.5,"op":"release","blob":7}           of 64 MiB
//
// What a node records says in place of "read" what each stream did:
//
//   {"t":1.5,"op":"open","blob":7,"stream":3}
//   {"t":1.6,"op":"chunk","blob":7,"stream":3,"chunk":0,"bytes":4194304}
//   {"t":1.7,"op":"close","blob":7,"stream":3}
namespace bigcast::bench {

// Replays a trace against a cache. Loads take no time. A put loads nothing: it is the first read
// that does, as on a relay.
class BroadcastReplay {
 public:
  BroadcastReplay(Cache& cache, eviction::ReadOrder order) : cache_(cache), order_(order) {}

  // INVALID_ARGUMENT names TRACE and the line.
  Result<void> run(std::istream& trace);

 private:
  struct Blob {
    uint64_t number = 0;
    uint64_t bytes = 0;
  };
  struct Reader {
    const Blob* blob = nullptr;
    uint64_t stream = 0;
    std::vector<bool> read;
    uint32_t first_unread = 0;
  };
  struct Step {
    double time = 0;
    uint64_t reader = 0;
    bool operator>(const Step& other) const {
      return time != other.time ? time > other.time : reader > other.reader;
    }
  };
  struct Line;

  Result<void> apply(const Line& line);
  Result<void> apply_recorded(const Line& line, const Blob& blob);
  void start_reader(const Blob& blob, double time);
  void run_until(double time);
  bool step(Reader& reader);  // false once all is read
  uint32_t choose(Reader& reader) const;

  Cache& cache_;
  const eviction::ReadOrder order_;
  std::unordered_map<std::string, Blob> blobs_;
  std::unordered_map<uint64_t, Reader> readers_;
  std::priority_queue<Step, std::vector<Step>, std::greater<>> steps_;
  uint64_t streams_ = 0;
  double time_ = 0;
};

// The reference load of docs/BENCHMARKS.md, the same for the same seed on every machine.
void generate_broadcast(uint64_t seed, std::ostream& trace);

}  // namespace bigcast::bench
