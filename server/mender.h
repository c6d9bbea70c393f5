#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/chunk_source.h"
#include "server/core.h"
#include "server/peer_link.h"

namespace bigcast {

// Repairs what the store has in quarantine with what other homes of the blob have, one chunk at a
// time: it fetches the chunk, and the store takes it if it has the digest that it knows. What
// nobody can give now is asked for again later, less and less often. Belongs to the node; on the
// loop's thread.
class Mender {
 public:
  explicit Mender(NodeCore& core) : core_(core), links_(core) {}

  // To be called every now and then: begins a round, unless it is at one.
  void tick();
  void clear();  // the node stops

 private:
  using Response = ChunkSource::Response;
  // What came of a chunk at one home. No error: it is mended.
  struct Outcome {
    std::optional<Error> error;
    bool is_ours = false;  // this node could not ask or could not take it: nobody else can help
  };
  static Outcome not_given(Error error);
  static Outcome not_taken(Error error);
  kj::Promise<void> mend_next();
  void end_round();
  kj::Promise<void> mend(const DamagedChunk& chunk, const BlobStat& stat,
                         std::vector<rpc::Address> homes);
  kj::Promise<Outcome> mend_from(const rpc::Address& home, const DamagedChunk& chunk,
                                 const BlobStat& stat);
  kj::Promise<Outcome> put(const DamagedChunk& chunk, uint32_t chunk_size, Response response);
  void on_not_taken(const DamagedChunk& chunk, const BlobStat& stat, const Error& error);

  NodeCore& core_;
  PeerLinks links_;  // of its own: what homes ask each other must not wait behind chunks
  std::optional<DamagedChunk> after_;  // the last that was looked at, in this round
  std::set<std::string> away_;         // homes that did not answer in it
  uint32_t mended_ = 0;                // in it
  uint32_t failed_ = 0;
  bool is_over_ = false;  // the round ends: this node can take nothing
  uint32_t pause_ms_ = limits::kMendPauseMinMs;
  TimePoint next_at_{};
  bool running_ = false;
  kj::Maybe<kj::Promise<void>> task_;
};

}  // namespace bigcast
