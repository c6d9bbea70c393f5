#pragma once

#include <kj/async.h>

#include <cstdint>
#include <memory>

#include "server/core.h"
#include "server/relay.h"

namespace bigcast {

// An open blob: answers its chunks, waiting for those that are still to be written (at home) or
// fetched (on a relay).
class BlobService final : public rpc::Blob::Server {
 public:
  enum class Kind : uint8_t {
    kHome,     // waits for the writer
    kRelayed,  // waits for the home
    kCopy,     // what is here, for other nodes; never waits
  };
  // kHome, kCopy
  BlobService(kj::Own<SessionState> session, kj::Own<LiveBlob> live, Kind kind,
              rpc::ReadOrder order);
  // kRelayed
  BlobService(kj::Own<SessionState> session, kj::Own<RelayBlob> relayed, rpc::ReadOrder order);
  ~BlobService() noexcept(false);

  kj::Promise<void> read(ReadContext context) override;
  kj::Promise<void> memory(MemoryContext context) override;
  kj::Promise<void> watch(WatchContext context) override;
  kj::Promise<void> follow(FollowContext context) override;
  kj::Promise<void> map(MapContext context) override;

 private:
  // What reading and sending one chunk takes, within the peer's share of the serve reserve. Members
  // go last to first: the bytes go before the room that counts them, the node (its store and its
  // buffers) last.
  struct Serving {
    Serving(kj::Own<NodeCore> core, kj::Own<CreditPool::Credit> room)
        : core(kj::mv(core)), room(kj::mv(room)) {}
    // False: it takes a load.
    bool view(BlobStore& store, BlobId id, uint32_t index);

    kj::Own<NodeCore> core;
    kj::Own<CreditPool::Credit> room;
    kj::Own<CreditPool::Credit> load_room;  // null: it takes no load
    kj::Own<LoadedChunk> loaded;
    std::shared_ptr<const void> pin;
    Result<bigcast::ChunkMeta> meta;
    const std::byte* bytes = nullptr;  // stored bytes, padded with zeros
  };

  Result<void> check_index(uint32_t index) const;
  kj::Promise<kj::Own<Serving>> load_to_serve(ReadContext context, uint32_t chunk_size,
                                              kj::Own<Serving> serving);
  kj::Promise<void> serve(ReadContext context, uint32_t rereads);
  kj::Promise<void> serve_absent(ReadContext context, uint32_t rereads);
  kj::Promise<void> serve_from_store(ReadContext context, uint32_t rereads);
  kj::Promise<void> serve_from_home(ReadContext context, uint32_t rereads);
  void record(const bigcast::ChunkMeta& meta);
  void record_mapped(uint64_t size, uint32_t chunk_size);
  bool takes_located(ReadContext& context) const;
  bool reply_located_if_loaded(ReadContext& context);
  void reply_located(ReadContext& context, const Location& location);
  void reply_end(ReadContext& context);
  void reply_chunk(ReadContext& context, const bigcast::ChunkMeta& meta,
                   const std::byte* padded_bytes, kj::Own<void> pin);

  kj::Own<SessionState> session_;
  NodeCore& core_;
  const Kind kind_;
  kj::Own<LiveBlob> live_;
  const BlobId id_;
  const Stripe stripe_;
  const uint64_t stream_;       // in the store; 0: none
  uint64_t traced_ = 0;         // the blob's number in the recorded trace; 0: none yet
  kj::Own<RelayBlob> relayed_;  // of kRelayed, as is the reader
  kj::Own<Puller::Reader> reader_;
  uint64_t drops_seen_;
};

}  // namespace bigcast
