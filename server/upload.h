#pragma once

#include <kj/async.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "server/core.h"

namespace bigcast {

class CopyMaker;

// One blob being written here. Dropping it before it is sealed frees the blob.
//
// Room comes in two kinds: a reservation in the store (whole at create, or in steps) and credit,
// the node's bound on bytes that are on their way. Credit is held from its grant until the chunk
// it was used for is stored.
class UploadService final : public rpc::Upload::Server {
 public:
  // The blob exists in the store already. `announce_from`: raw bytes, 0: never.
  UploadService(kj::Own<SessionState> session, const BlobStat& stat, uint64_t announce_from);
  ~UploadService() noexcept(false);

  // The blob is to have other homes, too, as `whole` names them: they follow this one from now on.
  // Each of them, or a spare in its place; else the error. To be called once, before all else.
  kj::Promise<Result<void>> start_copies(const BlobStat& stat, const rpc::BlobRefData& whole,
                                         bool replace);

  kj::Promise<void> credit(CreditContext context) override;
  kj::Promise<void> put(PutContext context) override;
  kj::Promise<void> seal(SealContext context) override;

  BlobId id() const { return id_; }
  bool is_open() const { return !sealed_ && !live_->ended(); }
  uint32_t credits_waiting() const { return credits_waiting_; }
  // Ends the upload if it sits on credit that others may be waiting for: if nothing came for
  // limits::kProgressTimeoutMs since the oldest grant or the last progress. Progress is a chunk, or
  // limits::kProgressBytesMin on the connection while the chunk may still be queued behind them.
  void check_progress(TimePoint now);

 private:
  struct Granted {
    kj::Own<CreditPool::Credit> credit;
    TimePoint at;
    uint64_t bytes_received;  // on the connection by then
  };

  std::optional<Error> ended() const;
  Result<void> check_credit(uint32_t bytes) const;
  kj::Promise<Result<void>> reserve(uint64_t bytes);
  kj::Promise<Result<void>> reserve_until(TimePoint deadline);
  Result<void> reserve_now();
  Result<bigcast::ChunkMeta> check_put(rpc::Upload::PutParams::Reader params);
  Result<kj::Own<CreditPool::Credit>> use_credit(uint32_t bytes);
  Result<void> check_seal(uint64_t size, uint32_t chunk_count) const;
  kj::Promise<Result<void>> seal_copies(uint64_t size, uint32_t chunk_count, Digest128 root);
  void finish_seal(const BlobStat& stat);
  // The blob failed to become one with all its homes: nothing is left of it.
  kj::Promise<Result<BlobStat>> fail_seal(Error error);
  void give_up(const Error& reason);  // the caller discards the copies
  void abort(const Error& reason);
  void announce(uint64_t size);  // once it is known to have so many bytes
  // So much has come since the oldest grant that its chunk can't be on the way any more.
  bool is_overtaken() const;

  kj::Own<SessionState> session_;
  NodeCore& core_;
  kj::Own<LiveBlob> live_;
  const BlobId id_;
  const std::string name_;
  const uint32_t chunk_size_;
  const std::optional<uint64_t> size_;
  uint64_t announce_from_;  // 0: never, or done
  bool sealed_ = false;
  std::shared_ptr<CopyMaker> copies_;  // null: this is the only home
  uint64_t bytes_wanted_ = 0;          // granted or waited for, in whole pages; unknown size only
  uint64_t bytes_reserved_ = 0;        // unknown size only
  uint32_t credits_waiting_ = 0;
  std::vector<Granted> granted_;  // oldest first
  TimePoint progress_at_{};
  uint64_t progress_bytes_ = 0;          // received on the connection by then
  std::optional<uint32_t> short_chunk_;  // a chunk below chunk_size: must be the last
  uint32_t index_max_ = 0;
};

}  // namespace bigcast
