#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "rpc/convert.h"
#include "server/core.h"
#include "server/home_link.h"

namespace bigcast {

class Relays;
class RelayGroup;

// What a fetch brought: a chunk's bytes, the end of the blob, or an error.
struct FetchedChunk final : kj::Refcounted {
  struct End {
    uint32_t chunk_count = 0;
    uint64_t size = 0;
  };
  std::optional<Error> error;
  std::optional<End> end;
  bigcast::ChunkMeta meta;
  std::span<const std::byte> bytes;  // stored bytes, readable up to the next multiple of 8
  // Keep `bytes`; the credit counts them until the last reader is served.
  kj::Own<CreditPool::Credit> credit;
  kj::Maybe<capnp::Response<rpc::Blob::ReadResults>> response;
};

// A blob that this node fetches from its homes. Each chunk is fetched once however many readers
// wait for it. Its chunks stay in the store while a session of its lease is attached, and for the
// lease's grace after that.
class RelayBlob final : public kj::Refcounted {
 public:
  RelayBlob(Relays& relays, const rpc::BlobRefData& ref);
  ~RelayBlob() noexcept(false);

  BlobId id() const { return id_; }
  kj::Own<LiveBlob> live() { return kj::addRef(*live_); }
  void use_by(kj::Own<RelayGroup> group);
  // Makes sure that the blob is in the store, asking a home for it the first time.
  kj::Promise<Result<void>> prepare();
  kj::Promise<kj::Own<FetchedChunk>> fetch(uint32_t index);
  // True once nobody has been attached, or no home was heard of, for the grace.
  bool expired(TimePoint now);
  void end(const Error& reason);  // for all who read it; frees its chunks

 private:
  struct Home {
    rpc::Blob::Client blob;
    kj::Own<HomeLink> link;
    uint64_t generation;
  };
  struct Fetch {
    std::vector<kj::Own<kj::PromiseFulfiller<kj::Own<FetchedChunk>>>> waiters;
    kj::Maybe<kj::Promise<void>> task;
    uint32_t corrupt = 0;                    // answers that failed their checksum
    std::optional<TimePoint> failing_since;  // no answer since then
    uint32_t backoff_ms = limits::kReconnectBackoffMinMs;
  };

  RelayGroup* attached_group();
  bool home_is_current() const;
  kj::Promise<void> find_home();  // then home_ is current, or home_error_ says why not
  kj::Promise<void> try_home(size_t index);
  kj::Promise<void> open_at(kj::Own<HomeLink> link, HomeLink::Open open);
  kj::Promise<void> learn(rpc::BlobInfo::Reader info);
  Result<void> create_in_store(uint32_t chunk_size);

  kj::Promise<void> run_fetch(uint32_t index);
  kj::Promise<kj::Own<FetchedChunk>> pull(uint32_t index);
  kj::Promise<kj::Own<FetchedChunk>> pull_bytes(uint32_t index);
  kj::Promise<kj::Own<FetchedChunk>> keep(uint32_t index,
                                          capnp::Response<rpc::Blob::ReadResults> response,
                                          kj::Own<CreditPool::Credit> credit);
  kj::Promise<kj::Own<FetchedChunk>> pull_end(const FetchedChunk::End& end);
  kj::Promise<void> after_pull(uint32_t index, kj::Own<FetchedChunk> fetched);
  kj::Promise<void> fetch_again(uint32_t index, uint32_t delay_ms);
  void finish_fetch(uint32_t index, kj::Own<FetchedChunk> fetched);

  void start_watch();
  kj::Promise<void> watch(uint32_t backoff_ms);
  kj::Promise<void> on_event(rpc::BlobEvent event);

  Relays& relays_;
  kj::Own<NodeCore> core_;
  const BlobId id_;
  const rpc::BlobRefData ref_;
  kj::Own<LiveBlob> live_;
  std::vector<kj::Own<RelayGroup>> groups_;
  TimePoint last_held_;  // attached, with a home that answers
  bool created_ = false;
  bool sealed_ = false;
  kj::Maybe<Home> home_;
  Error home_error_{ErrorCode::kUnavailable, "no home was asked yet"};
  bool finding_ = false;
  kj::Maybe<kj::ForkedPromise<void>> find_attempt_;
  std::map<uint32_t, kj::Own<Fetch>> fetches_;
  std::unordered_set<uint32_t> fetched_before_;
  bool watching_ = false;
  kj::Maybe<kj::Promise<void>> watcher_;
};

// The sessions here of one namespace and lease, and their links to homes. The links live as long
// as a session is attached: a relay must not renew an application's lease after its readers left.
class RelayGroup final : public kj::Refcounted {
 public:
  RelayGroup(Relays& relays, std::string name_space, LeaseId lease)
      : name_space(std::move(name_space)), lease(lease), relays_(relays) {}
  ~RelayGroup() noexcept(false);

  const std::string name_space;
  const LeaseId lease;
  bool is_attached() const { return sessions_ > 0; }
  void attach() { sessions_++; }
  void detach();
  kj::Own<HomeLink> link(const rpc::Address& address);

 private:
  friend class Relays;
  Relays& relays_;
  size_t sessions_ = 0;
  std::map<std::string, kj::Own<HomeLink>> links_;
};

// All that this node relays. Must outlive the sessions and blobs that it gave out.
class Relays {
 public:
  explicit Relays(NodeCore& core) : core_(core) {}
  ~Relays() noexcept(false);

  // Says that a session of this namespace and lease is attached until the result is dropped.
  kj::Own<void> use(const std::string& name_space, LeaseId lease);
  // Requires: a use() of that namespace and lease. NOT_FOUND, UNAVAILABLE, ...
  kj::Promise<Result<kj::Own<RelayBlob>>> open(const rpc::BlobRefData& ref,
                                               const std::string& name_space, LeaseId lease);
  void tick(TimePoint now);  // ends what has expired; call it every now and then
  size_t size() const { return blobs_.size(); }
  void clear() { blobs_.clear(); }  // the node stops

 private:
  friend class RelayBlob;
  friend class RelayGroup;
  using GroupKey = std::pair<std::string, LeaseId>;
  bool is_myself(const rpc::Address& address) const;
  void forget(BlobId id);

  NodeCore& core_;
  std::map<GroupKey, RelayGroup*> groups_;
  std::unordered_map<BlobId, kj::Own<RelayBlob>> blobs_;
};

}  // namespace bigcast
