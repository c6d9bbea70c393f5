#pragma once

#include <kj/async.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/limits.h"
#include "client_native/stripe_sources.h"

namespace bigcast {

// The half of a download that lives on the I/O thread: a window of chunks ahead of the reader, each
// fetched from its stripe's source. In ascending order, or what sources have in memory first and
// whatever comes first. When a source fails, what was under way is asked of the next;
// verified chunks stay. Gives up when a stripe has no source that makes progress.
class DownloadJob final : private StripeSources::Reader {
 public:
  DownloadJob(Nodes& nodes, rpc::BlobRefData ref, rpc::ReadOrder order,
              std::optional<ByteRange> range);

  // What `open` answered at `address`: used as a source (of the first stripe) without opening it
  // again, unless a local node comes first.
  void adopt(const rpc::Address& address, kj::Own<NodeSession> session,
             rpc::OpenResult::Opened::Reader opened);
  kj::Promise<Result<void>> start();  // resolves when a source of each stripe is open
  kj::Promise<Result<std::span<const std::byte>>> next();
  uint64_t offset() const { return offset_; }  // of what next() gave last
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
  uint32_t raw_chunk_size() const;
  void set_range(const ByteRange& range);
  Result<void> check_range();
  // Beyond the last chunk that is wanted, as far as is known.
  std::optional<uint32_t> end_chunk() const;
  void fill();
  std::optional<uint32_t> next_to_ask();
  bool is_taken(uint32_t index) const;
  std::map<uint32_t, Slot>::iterator ready_slot();
  std::span<const std::byte> wanted_of(std::span<const std::byte> chunk);
  Slot fetch(uint32_t index);
  void on_fetched(uint32_t index, Result<FetchedChunk> chunk);
  Result<void> check_end(uint32_t index, const FetchedChunk::End& end) const;
  Result<void> check_size(const ChunkMeta& meta) const;
  Result<std::span<const std::byte>> deliver(Slot slot);

  void source_left(StripeSources& stripe) override;
  void source_opened(const rpc::BlobRefData& ref, capnp::Data::Reader resident) override;
  void sources_failed(Error error) override;

  kj::Promise<Result<std::span<const std::byte>>> finish();
  kj::Promise<Result<std::span<const std::byte>>> finish_whole();
  kj::Promise<void> learn_root_digest();

  kj::Promise<void> change();  // resolves when a chunk came, a source opened or all failed
  void notify();
  void set_error(Error error);

  const rpc::BlobRefData ref_;
  const bool in_order_;
  const std::shared_ptr<ChunkBuffers> buffers_;
  const std::shared_ptr<const ChunkSeal> seal_;  // null: not encrypted
  std::optional<ByteRange> range_;  // nothing: all of it; `last` is 0 once it is resolved
  uint32_t first_chunk_ = 0;        // of the range
  std::optional<FetchedChunk::End> end_;
  Digest128 root_digest_;        // zero: not known yet
  std::vector<bool> delivered_;  // by index, as are
  std::vector<Digest128> digests_;

  std::optional<FetchedChunk> current_;  // what the reader holds
  uint64_t offset_ = 0;                  // ... of it in the blob
  std::set<uint32_t> resident_;          // asked for before all others; of no use in order
  uint32_t ask_from_ = 0;                // all before it are taken
  bool finished_ = false;
  std::optional<Error> error_;
  TransferStats stats_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> changed_;

  std::map<uint32_t, Slot> slots_;
  std::vector<std::unique_ptr<StripeSources>> stripes_;  // last: its tasks use the above
};

}  // namespace bigcast
