#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstdint>
#include <optional>

#include "server/core.h"
#include "server/peer_link.h"

namespace bigcast {

// A node that a relay gets chunks of one blob from: its home, or another relay.
class ChunkSource final : public kj::Refcounted {
 public:
  using Response = capnp::Response<rpc::Blob::ReadResults>;

  ChunkSource(kj::Own<NodeCore> core, kj::Own<PeerLink> link, BlobId id, bool is_home);

  // The answer to a read of mode `bytes` or `checked`. DEADLINE_EXCEEDED when the node brings no
  // or too few bytes for limits::kPeerStallTimeoutMs (a home: kHomeStallTimeoutMs); its connection
  // is given up then.
  kj::Promise<Result<Response>> read(uint32_t index, rpc::ReadMode mode);
  void reopen() { opened_.reset(); }  // for the next read: what it had open is of no use

 private:
  struct Opened {
    rpc::Blob::Client blob;
    uint64_t generation;
    rpc::Connection::Handle connection;
  };
  kj::Promise<void> open();  // then opened_ is current, or error_ says why not
  kj::Promise<void> open_at(PeerLink::Open at);
  kj::Promise<Result<Response>> ask(uint32_t index, rpc::ReadMode mode);
  bool is_open() const;

  kj::Own<NodeCore> core_;
  kj::Own<PeerLink> link_;
  const BlobId id_;
  const bool is_home_;
  const uint32_t stall_timeout_ms_;
  std::optional<Opened> opened_;
  Error error_;
  bool opening_ = false;
  kj::Maybe<kj::ForkedPromise<void>> attempt_;
};

}  // namespace bigcast
