#pragma once

#include <kj/async.h>

#include <cstdint>

#include "server/core.h"
#include "server/relay.h"

namespace bigcast {

// An open blob: answers its chunks, waiting for those that are still to be written (at home) or
// fetched (on a relay).
class BlobService final : public rpc::Blob::Server {
 public:
  // `relayed` is null if this node is the blob's home.
  BlobService(kj::Own<SessionState> session, BlobId id, kj::Own<LiveBlob> live,
              kj::Own<RelayBlob> relayed);
  ~BlobService() noexcept(false);

  kj::Promise<void> read(ReadContext context) override;
  kj::Promise<void> memory(MemoryContext context) override;
  kj::Promise<void> watch(WatchContext context) override;

 private:
  // What reading and sending one chunk takes. Members go last to first: the buffer goes before
  // the room that counts it, the node (and its pool) after both.
  struct Serving {
    Serving(kj::Own<NodeCore> core, kj::Own<CreditPool::Credit> room,
            kj::Own<rpc::BufferPool::Buffer> buffer)
        : core(kj::mv(core)), room(kj::mv(room)), buffer(kj::mv(buffer)) {}
    kj::Own<NodeCore> core;
    kj::Own<CreditPool::Credit> room;
    kj::Own<rpc::BufferPool::Buffer> buffer;
    Result<bigcast::ChunkMeta> meta;
  };

  kj::Promise<kj::Own<Serving>> acquire_serving(uint32_t chunk_size);
  kj::Promise<void> serve(ReadContext context, uint32_t rereads);
  kj::Promise<void> serve_absent(ReadContext context, uint32_t rereads);
  kj::Promise<void> serve_from_store(ReadContext context, uint32_t rereads);
  kj::Promise<void> serve_from_home(ReadContext context);
  void reply_located(ReadContext& context, const Location& location);
  void reply_end(ReadContext& context);
  void reply_chunk(ReadContext& context, const bigcast::ChunkMeta& meta,
                   const std::byte* padded_bytes, kj::Own<void> pin);

  kj::Own<SessionState> session_;
  NodeCore& core_;
  const BlobId id_;
  kj::Own<LiveBlob> live_;
  kj::Own<RelayBlob> relayed_;
  uint64_t drops_seen_;
};

}  // namespace bigcast
