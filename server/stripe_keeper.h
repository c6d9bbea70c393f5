#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include "server/core.h"
#include "server/peer_link.h"

namespace bigcast {

// The stripes at this node whose blob's stripe 0 is elsewhere. That home decides for all: it has
// the name, so what removes, replaces or gives up the blob is said to it alone. Each other home
// watches stripe 0 as a relay does and does the same with its own, also after it was cut off for a
// while: it asks until that home answers. Belongs to the node; on the loop's thread.
class StripeKeeper final : private kj::TaskSet::ErrorHandler {
 public:
  explicit StripeKeeper(NodeCore& core)
      : core_(core),
        links_(core),
        tasks_(kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this))) {}

  // `id`: of a stripe here; `whole`: the ref of its blob, whose stripe 0 exists.
  void keep(BlobId id, const rpc::BlobRefData& whole);
  void clear();  // the node stops; nothing is kept from then on

 private:
  // Where stripe 0 is, and what is tied to it.
  struct Tie {
    BlobId head;
    kj::Own<LiveBlob> live;
    kj::Own<PeerLink> link;
    uint64_t generation = 0;
    uint32_t backoff_ms = limits::kReconnectBackoffMinMs;
  };
  kj::Promise<void> follow(Tie& tie);
  kj::Promise<void> open(Tie& tie);
  kj::Promise<void> watch(Tie& tie, rpc::Blob::Client head);
  kj::Promise<void> ended(Tie& tie);
  kj::Promise<void> follow_later(Tie& tie);
  void remove(Tie& tie, const Error& reason);
  void taskFailed(kj::Exception&& exception) override;

  NodeCore& core_;
  PeerLinks links_;
  kj::Own<kj::TaskSet> tasks_;
};

}  // namespace bigcast
