#pragma once

#include <kj/async.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/limits.h"
#include "client_native/blob_source.h"
#include "client_native/client_core.h"

namespace bigcast {

// The half of a download that lives on the I/O thread: a window of chunks ahead of the reader,
// fetched from one source at a time. When a source fails, what was under way is asked of the next;
// verified chunks stay. Gives up when no source makes progress any more.
class DownloadJob {
 public:
  DownloadJob(Nodes& nodes, rpc::BlobRefData ref);

  // What `open` answered at `address`: used as a source without opening it again, unless a local
  // node comes first.
  void adopt(const rpc::Address& address, kj::Own<NodeSession> session,
             rpc::OpenResult::Opened::Reader opened);
  kj::Promise<Result<void>> start();  // resolves when a source is open
  kj::Promise<Result<std::span<const std::byte>>> next();
  std::optional<uint64_t> size() const;
  TransferStats stats() const { return stats_; }

 private:
  enum class Kind : uint8_t { kLocal, kHome, kServer };
  struct Source {
    rpc::Address address;
    Kind kind;
    uint32_t failures = 0;  // since the last progress
    std::optional<Error> error;
  };
  struct Slot {
    std::optional<FetchedChunk> chunk;  // once fetched
    kj::Promise<void> task = nullptr;
  };
  using OpenResponse = capnp::Response<rpc::Session::OpenResults>;

  void add_source(const rpc::Address& address, Kind kind);
  void fill();
  Slot fetch(uint32_t index);
  void on_fetched(uint32_t index, Result<FetchedChunk> chunk);
  Result<void> check_end(uint32_t index, const FetchedChunk::End& end) const;
  Result<void> check_size(const ChunkMeta& meta) const;
  Result<std::span<const std::byte>> deliver(Slot slot);

  // Leaving a source for the next one, in the background.
  void leave_source(Error error);
  kj::Promise<void> try_next_source(Error error);
  kj::Promise<void> try_source();
  std::optional<size_t> next_source() const;
  void give_up();
  kj::Promise<Result<OpenResponse>> ask_open(kj::Own<NodeSession> session);
  kj::Promise<Result<void>> open_source();
  Result<void> use_opened(kj::Own<NodeSession> session, rpc::OpenResult::Opened::Reader opened);

  kj::Promise<Result<std::span<const std::byte>>> finish();
  kj::Promise<void> learn_root_digest();

  kj::Promise<void> change();  // resolves when a chunk came, a source opened or all failed
  void notify();
  void set_error(Error error);

  Nodes& nodes_;
  const rpc::BlobRefData ref_;
  const std::shared_ptr<ChunkBuffers> buffers_;
  std::vector<Source> sources_;
  size_t source_ = 0;
  kj::Maybe<kj::Own<BlobSource>> open_;
  std::optional<FetchedChunk::End> end_;
  Digest128 root_digest_;  // zero: not known yet
  RootDigest delivered_digest_;

  std::optional<FetchedChunk> current_;  // what the reader holds
  uint32_t next_index_ = 0;              // what the reader gets next
  bool finished_ = false;
  std::optional<Error> error_;
  TransferStats stats_;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> changed_;

  std::map<uint32_t, Slot> slots_;
  bool switching_ = false;
  kj::Promise<void> switch_ = nullptr;
};

}  // namespace bigcast
