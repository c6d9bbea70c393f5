#pragma once

#include <kj/async.h>

#include <cstdint>
#include <optional>

#include "server/core.h"
#include "server/relay.h"

namespace bigcast {

// A home in the making, as the home sees it that has the chunks: follows that one as a relay does,
// while the blob is written, and keeps what it gets. Dropping it before it is sealed frees the
// blob.
class CopyService final : public rpc::Copy::Server {
 public:
  // `relayed` keeps the blob; null: all of it is here and sealed.
  CopyService(kj::Own<SessionState> session, BlobId id, kj::Maybe<kj::Own<RelayBlob>> relayed,
              kj::Own<void> relay_use);
  ~CopyService() noexcept(false);

  kj::Promise<void> seal(SealContext context) override;
  kj::Promise<void> discard(DiscardContext context) override;

 private:
  struct Figures {
    uint64_t size;
    uint32_t chunk_count;
    std::optional<Digest128> root_digest;
  };
  kj::Promise<Result<void>> seal(Figures figures);
  kj::Promise<Result<void>> seal_in_store(Figures figures);
  void become_home(const BlobStat& stat);

  kj::Own<SessionState> session_;
  NodeCore& core_;
  const BlobId id_;
  const bool is_ours_;       // it came by this copy
  kj::Own<void> relay_use_;  // links to where it comes from
  kj::Maybe<kj::Own<RelayBlob>> relayed_;
};

}  // namespace bigcast
