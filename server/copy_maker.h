#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "server/core.h"
#include "server/peer_link.h"

namespace bigcast {

// Has copies of a blob of this home made at other nodes, which become homes of it. Those that are
// not sealed when it goes are freed. On the loop's thread; must outlive its promises.
class CopyMaker {
 public:
  struct Figures {
    uint64_t size = 0;
    uint32_t chunk_count = 0;
    Digest128 root_digest;  // zero: each home computes it
  };

  enum class For : uint8_t { kUpload, kUploadThatReplaces, kRepair };

  // `ref`: what the others are to know, this home first of its homes. `candidates`: where copies
  // may be, in order.
  CopyMaker(NodeCore& core, BlobStat stat, rpc::BlobRefData ref,
            std::vector<rpc::Address> candidates, uint32_t wanted, For purpose);

  // Begins as many as are wanted; a candidate that can't is left for the next one. What a node
  // refuses whatever its state is (ALREADY_EXISTS, INVALID_ARGUMENT) is the answer to a writer.
  kj::Promise<Result<void>> start();
  // Resolves when all are homes. A copy that gets lost, or gets no chunk and does not answer for
  // the time that a session may be silent, is made again where there is a candidate left; else its
  // error is the answer.
  kj::Promise<Result<void>> seal(Figures figures);
  // The blob is nobody's: frees those that are sealed, too. Resolves when they are gone, or after
  // limits::kReplicaAwayMs: who could not be told learns it from Replicas::given_up. No more copies
  // are made from then on.
  kj::Promise<void> discard();
  std::vector<rpc::Address> homes() const;  // where the copies are

 private:
  struct Making {
    rpc::Address at;
    kj::Own<PeerLink> link;
    rpc::Copy::Client copy;
    bool sealed = false;
  };
  kj::Promise<Result<Making>> start_at(const rpc::Address& candidate);
  void write_request(rpc::Session::CopyParams::Builder params) const;
  Result<void> add(Result<Making> made);
  kj::Promise<void> seal_one(Making& making, Figures figures);
  // Resolves when the copy has got none but `chunks` since then for too long.
  kj::Promise<void> stalled(Making& making, uint32_t chunks, TimePoint since);
  kj::Promise<uint32_t> chunks_at(Making& making);

  NodeCore& core_;
  const BlobStat stat_;
  const rpc::BlobRefData ref_;
  const std::vector<rpc::Address> candidates_;
  const uint32_t wanted_;
  const For purpose_;
  size_t next_ = 0;  // candidate
  bool is_discarded_ = false;
  Error error_{ErrorCode::kUnavailable, "replicas: no other node is known"};
  std::vector<kj::Own<Making>> makings_;
};

}  // namespace bigcast
