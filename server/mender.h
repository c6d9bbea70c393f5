#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include <optional>
#include <vector>

#include "server/chunk_source.h"
#include "server/core.h"

namespace bigcast {

// Repairs what the store has in quarantine with what other homes of the blob have, one chunk at a
// time: it fetches the chunk, and the store takes it if it has the digest that it knows. What nobody
// can give now is asked for again after limits::kMendPauseMs. Belongs to the node; on the loop's
// thread.
class Mender {
 public:
  explicit Mender(NodeCore& core) : core_(core) {}

  // To be called every now and then: begins, unless it is at it.
  void tick();
  void clear() { task_ = nullptr; }  // the node stops

 private:
  using Response = ChunkSource::Response;
  kj::Promise<void> mend_next();
  kj::Promise<void> mend(const DamagedChunk& chunk, const BlobStat& stat,
                         std::vector<rpc::Address> homes);
  kj::Promise<Result<void>> mend_from(const rpc::Address& home, const DamagedChunk& chunk,
                                      const BlobStat& stat);
  kj::Promise<Result<void>> put(const DamagedChunk& chunk, uint32_t chunk_size,
                                Result<Response> response);

  NodeCore& core_;
  std::optional<DamagedChunk> after_;  // the last that was looked at
  bool failed_ = false;                // since it began
  TimePoint retry_at_{};
  bool running_ = false;
  kj::Maybe<kj::Promise<void>> task_;
};

}  // namespace bigcast
