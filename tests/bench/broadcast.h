#pragma once

#include <cstdint>
#include <deque>
#include <iosfwd>
#include <optional>
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
// What a node records says in place of "read" what each stream did. A chunk without a stream was
// read by somebody who had not said how he reads: another node, or who maps the blob.
//
//   {"t":1.5,"op":"open","blob":7,"stream":3,"order":"fixed"}     or "resident-first"
//   {"t":1.6,"op":"chunk","blob":7,"stream":3,"chunk":0,"bytes":4194304}
//   {"t":1.7,"op":"close","blob":7,"stream":3}
//   {"t":1.8,"op":"chunk","blob":7,"chunk":0,"bytes":4194304}
namespace bigcast::bench {

// Replays a trace against a cache. Loads take no time. A put loads nothing: it is the first read
// that does, as on a relay.
//
// A recorded stream reads a chunk whenever it did, and in the end the same ones. Which chunk comes
// when is not the record's where readers take resident chunks first: that depends on what is
// resident, which is what the cache decides.
class BroadcastReplay {
 public:
  // `order`: of all readers; none: a recorded stream's is what it said, others' is fixed.
  BroadcastReplay(Cache& cache, std::optional<eviction::ReadOrder> order)
      : cache_(cache), order_(order) {}

  // Reads the trace twice, from its beginning. INVALID_ARGUMENT names TRACE and the line.
  Result<void> run(std::istream& trace);

 private:
  struct Blob {
    uint64_t number = 0;
    uint64_t bytes = 0;
  };
  struct Chunk {
    uint32_t index = 0;
    uint64_t bytes = 0;
  };
  using Chunks = std::vector<Chunk>;
  struct Reader {
    Reader(const Blob& blob, uint64_t stream, eviction::ReadOrder order, Chunks chunks);
    bool is_done() const { return first_unread == chunks.size(); }

    uint64_t blob;
    uint64_t stream;
    eviction::ReadOrder order;
    Chunks chunks;  // in the order in which they are read if nothing is resident
    std::vector<bool> read;
    size_t first_unread = 0;
  };
  struct Step {
    double time = 0;
    uint64_t reader = 0;
    bool operator>(const Step& other) const {
      return time != other.time ? time > other.time : reader > other.reader;
    }
  };
  struct Line;

  void look_ahead(std::istream& trace);
  Result<void> apply(const Line& line);
  Result<void> apply_recorded(const Line& line, const Blob& blob);
  Result<void> open_recorded(const Line& line, const Blob& blob, uint64_t stream);
  void start_reader(const Blob& blob, double time);
  void run_until(double time);
  void step(Reader& reader);  // requires: not done
  size_t choose(const Reader& reader) const;

  Cache& cache_;
  const std::optional<eviction::ReadOrder> order_;
  // What each recorded stream will read; a number may be used again after a close.
  std::unordered_map<uint64_t, std::deque<Chunks>> recorded_;
  std::unordered_map<std::string, Blob> blobs_;
  std::unordered_map<uint64_t, Reader> readers_;
  std::priority_queue<Step, std::vector<Step>, std::greater<>> steps_;
  uint64_t streams_ = 0;
  double time_ = 0;
};

// The reference load of docs/BENCHMARKS.md, the same for the same seed on every machine.
void generate_broadcast(uint64_t seed, std::ostream& trace);

}  // namespace bigcast::bench
