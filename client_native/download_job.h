#pragma once

#include <kj/async.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "client_native/stripe_sources.h"

namespace bigcast {

// The half of a download that lives on the I/O thread: a window of chunks ahead of the reader, each
// fetched from its stripe's source. When a source fails, what was under way is asked of the next;
// verified chunks stay. Gives up when a stripe has no source that makes progress.
class DownloadJob final : private StripeSources::Reader {
 public:
  DownloadJob(Nodes& nodes, rpc::BlobRefData ref);

  // What `open` answered at `address`: used as a source (of the first stripe) without opening it
  // again, unless a local node comes first.
  void adopt(const rpc::Address& address, kj::Own<NodeSession> session,
             rpc::OpenResult::Opened::Reader opened);
  kj::Promise<Result<void>> start();  // resolves when a source of each stripe is open
  kj::Promise<Result<std::span<const std::byte>>> next();
  std::optional<uint64_t> size() const;
  TransferStats stats() const;

 private:
  struct Slot {
    std::optional<FetchedChunk> chunk;  // once fetched
    kj::Promise<void> task = nullptr;
  };

  StripeSources& stripe_of(uint32_t index) { return *stripes_[index % stripes_.size()]; }
  const StripeSources& stripe_of(uint32_t index) const {
    return *stripes_[index % stripes_.size()];
  }
  void fill();
  Slot fetch(uint32_t index);
  void on_fetched(uint32_t index, Result<FetchedChunk> chunk);
  Result<void> check_end(uint32_t index, const FetchedChunk::End& end) const;
  Result<void> check_size(const ChunkMeta& meta) const;
  Result<std::span<const std::byte>> deliver(Slot slot);

  void source_left(StripeSources& stripe) override;
  void source_opened(const rpc::BlobRefData& ref) override;
  void sources_failed(Error error) override;

  kj::Promise<Result<std::span<const std::byte>>> finish();
  kj::Promise<void> learn_root_digest();

  kj::Promise<void> change();  // resolves when a chunk came, a source opened or all failed
  void notify();
  void set_error(Error error);

  const rpc::BlobRefData ref_;
  const std::shared_ptr<ChunkBuffers> buffers_;
  const std::shared_ptr<const ChunkSeal> seal_;  // null: not encrypted
  std::optional<FetchedChunk::End> end_;
  Digest128 root_digest_;  // zero: not known yet
  RootDigest delivered_digest_;

  std::optional<FetchedChunk> current_;  // what the reader holds
  uint32_t next_index_ = 0;              // what the reader gets next
  uint64_t delivered_ = 0;               // raw bytes as the sources count them
  bool finished_ = false;
  std::optional<Error> error_;
  TransferStats stats_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> changed_;

  std::map<uint32_t, Slot> slots_;
  std::vector<std::unique_ptr<StripeSources>> stripes_;  // last: its tasks use the above
};

}  // namespace bigcast
