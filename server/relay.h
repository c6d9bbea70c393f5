#pragma once

#include <kj/async.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "rpc/convert.h"
#include "server/announcements.h"
#include "server/core.h"
#include "server/peer_link.h"
#include "server/puller.h"

namespace bigcast {

class Relays;
class RelayGroup;

// A blob that this node fetches from its homes. Each chunk is fetched once however many readers
// wait for it. Its chunks stay in the store while a session of its lease is attached, and for the
// lease's grace after that. One that `keeps` is about to be a home itself (server/copy.h).
class RelayBlob final : public kj::Refcounted {
 public:
  struct Home {
    rpc::Blob::Client blob;
    kj::Own<PeerLink> link;
    uint64_t generation;
  };

  // keeps: all of it is fetched, and kept, by the home that the store has of it already.
  RelayBlob(Relays& relays, const rpc::BlobRefData& ref, bool keeps);
  ~RelayBlob() noexcept(false);

  BlobId id() const { return id_; }
  const std::string& name_space() const { return ref_.name_space; }
  kj::Own<LiveBlob> live() { return kj::addRef(*live_); }
  void use_by(kj::Own<RelayGroup> group);
  // Makes sure that the blob is in the store, asking a home for it the first time.
  kj::Promise<Result<void>> prepare();
  kj::Own<Puller::Reader> new_reader() { return kj::heap<Puller::Reader>(puller_); }
  kj::Promise<kj::Own<FetchedChunk>> fetch(uint32_t index);
  void prefetch() { puller_.prefetch(); }
  // True once nobody has been attached, or no home was heard of, for the grace.
  bool expired(TimePoint now);
  Error expiry();                 // what it then ends with
  void end(const Error& reason);  // for all who read it; frees its chunks
  // Of one that keeps: what others need to know of it before it is a home.
  kj::Promise<Result<void>> until_whole(FetchedChunk::End end);
  void settle();  // it is a home now: whoever has it open finds all of it in the store

  // For the puller.
  bool ended() const { return live_->ended().has_value(); }
  bool is_attached() { return attached_group() != nullptr; }
  uint32_t chunk_size() const { return ref_.chunk_size; }
  Stripe stripe() const { return {ref_.stripe.value_or(0), ref_.stripes}; }
  const std::optional<FetchedChunk::End>& sealed_end() const { return sealed_end_; }
  kj::Promise<void> find_home();  // then home() is there, or home_error() says why not
  Home* home();                   // null if it is not connected
  const std::vector<rpc::Address>& homes() const { return ref_.homes; }  // known by now
  bool is_home_current(uint64_t generation);
  void home_lost(uint64_t generation);
  // The home answered that it does not have it (any more): another may, else this is its end.
  void home_gone(const Error& why);
  bool keeps() const { return keeps_; }
  const Error& home_error() const { return home_error_; }
  void set_home_error(Error error) { home_error_ = std::move(error); }
  kj::Promise<void> learn(rpc::BlobInfo::Reader info);
  // Nothing if no session is attached any more.
  kj::Maybe<kj::Own<PeerLink>> bulk_link(const rpc::Address& address);

 private:
  RelayGroup* attached_group();
  kj::Promise<void> try_home(size_t index);
  void no_home_found();
  kj::Promise<Result<void>> until_whole(uint32_t from);
  kj::Promise<void> open_at(kj::Own<PeerLink> link, PeerLink::Open open);
  Result<void> create_in_store(uint32_t chunk_size, bool mappable);

  void start_watch();
  kj::Promise<void> watch(uint32_t backoff_ms);
  kj::Promise<void> on_event(rpc::BlobEvent event);

  Relays& relays_;
  kj::Own<NodeCore> core_;
  const BlobId id_;
  rpc::BlobRefData ref_;  // with the homes that are known by now
  const bool keeps_;
  bool settled_ = false;
  kj::Own<LiveBlob> live_;
  std::vector<kj::Own<RelayGroup>> groups_;
  TimePoint last_held_;  // attached, with a home that answers
  bool created_ = false;
  std::optional<FetchedChunk::End> sealed_end_;
  kj::Maybe<Home> home_;
  Error home_error_{ErrorCode::kUnavailable, "no home was asked yet"};
  size_t homes_gone_ = 0;             // of those asked by the attempt under way: it is not there
  std::optional<Error> home_missed_;  // ... and one of them could not be reached
  bool finding_ = false;
  kj::Maybe<kj::ForkedPromise<void>> find_attempt_;
  Puller puller_;
  bool watching_ = false;
  kj::Maybe<kj::Promise<void>> watcher_;
};

// The sessions here of one namespace and lease, and their links to homes and peers. The links live
// as long as a session is attached: a relay must not renew an application's lease after its readers
// left.
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
  kj::Own<PeerLink> link(const rpc::Address& address, PeerLink::Kind kind);
  // Fetches what this home announces, until the last session has left.
  Result<void> follow_home(const rpc::Address& home);
  void close_idle_links(TimePoint now);
  void for_links(kj::FunctionParam<void(const PeerLink&)>& visit) const;

 private:
  friend class Relays;
  Relays& relays_;
  size_t sessions_ = 0;
  std::map<std::pair<PeerLink::Kind, std::string>, kj::Own<PeerLink>> links_;
  std::map<std::string, kj::Own<HomeListener>> listeners_;
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
  // The blob that `ref` names, a home of which the store has here, is fetched from its other homes.
  // Requires: a use() of its namespace and no lease. ALREADY_EXISTS if it is fetched here already.
  Result<kj::Own<RelayBlob>> keep(const rpc::BlobRefData& ref);
  // Ends what is relayed of it here, if anything, and resolves when that is gone.
  kj::Promise<void> make_way(BlobId id);
  // Requires: a use() of that namespace and lease.
  Result<void> follow_home(const rpc::Address& home, const std::string& name_space, LeaseId lease);
  NodeCore& core() { return core_; }
  void tick(TimePoint now);  // ends what has expired; call it every now and then
  size_t size() const { return blobs_.size(); }
  // For show: some of the blobs, and the links to other nodes.
  std::vector<BlobId> some(size_t limit) const;
  void for_links(kj::FunctionParam<void(const PeerLink&)> visit) const;
  void clear() { blobs_.clear(); }  // the node stops
  bool in_use() const { return !groups_.empty(); }

 private:
  friend class RelayBlob;
  friend class RelayGroup;
  using GroupKey = std::pair<std::string, LeaseId>;
  void forget(BlobId id);

  NodeCore& core_;
  std::map<GroupKey, RelayGroup*> groups_;
  std::unordered_map<BlobId, kj::Own<RelayBlob>> blobs_;
};

}  // namespace bigcast
