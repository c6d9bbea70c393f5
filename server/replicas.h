#pragma once

#include <kj/async.h>
#include <kj/memory.h>

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "server/core.h"
#include "server/peer_link.h"

namespace bigcast {

// The blobs here that other homes have, too. The homes of a blob are equals once it is sealed: each
// looks at the others it knows of, frees what one of them removed, and of those that are in touch
// the one with the least address has a copy made elsewhere when there are too few. Contents can't
// differ: an id is bound to one writer's chunks and digests. docs/adr/0020-homes-copy-by-pull.md.
//
// Who could not be told of a removal asks later and is told then; a home that is restarted has
// forgotten it. Belongs to the node; on the loop's thread.
class Replicas final : private kj::TaskSet::ErrorHandler {
 public:
  explicit Replicas(NodeCore& core);

  // From now on watches the other homes of a sealed blob. No-op if it is to have one home.
  // `made`: which they are, if this home knows first-hand.
  void keep(const BlobStat& stat, const std::vector<rpc::Address>& made = {});
  // A blob that is written here, until it is kept: if it is removed, it is so for all homes.
  void making(BlobId id) { making_.insert(id); }
  void not_making(BlobId id) { making_.erase(id); }
  void removed(BlobId id);      // here, and so for all homes
  void given_up(BlobId id);     // the same, of a copy that is not kept here
  void lost(BlobId id);         // only here
  void drop_copies(BlobId id);  // relays follow this home or another
  // Those that readers should know, in order; none if the blob is not kept.
  std::vector<rpc::Address> homes_of(BlobId id) const;

  // What another home asks (rpc::Session::compareBlobs).
  void compare(SessionState& session, rpc::Session::CompareBlobsParams::Reader params,
               rpc::Session::CompareBlobsResults::Builder out);
  // The way to another node, shared by all who use it at a time.
  kj::Own<PeerLink> link(const std::string& name_space, const rpc::Address& address) {
    return links_.get(name_space, address);
  }
  void clear();  // the node stops; nothing is kept from then on

 private:
  enum class Standing : uint8_t { kUnknown, kHas, kLost, kAway };
  struct Blob {
    rpc::BlobRefData plan;                      // of this home: id, copies wanted and spares
    std::vector<rpc::Address> homes;            // in order, this one among them
    std::map<std::string, Standing> standings;  // of the others
    bool copying = false;
    TimePoint retry_at{};
  };
  // Another node that is a home of blobs here.
  struct Other {
    std::string name_space;
    rpc::Address address;
    kj::Own<PeerLink> link;
    uint64_t generation = 0;
    std::set<BlobId> blobs;
    std::vector<BlobId> untold;  // removed here
    bool compare_now = true;
    TimePoint compared_at{};
    std::optional<TimePoint> away_since;
    kj::Promise<void> task = nullptr;
  };
  using OtherKey = std::pair<std::string, std::string>;  // namespace, address

  static std::optional<Standing> standing_of(const Blob& blob, const rpc::Address& address);
  void add_home(Blob& blob, const rpc::Address& address, Standing standing);
  void judge(Blob& blob);  // and then repair_some(), once for all that were judged
  void repair_some();
  kj::Promise<void> repair(BlobId id);
  std::vector<rpc::Address> candidates(const Blob& blob) const;

  kj::Promise<void> watch(Other& other);
  kj::Promise<void> look(Other& other);
  kj::Promise<void> compare_with(Other& other, PeerLink::Open open, std::vector<BlobId> blobs);
  void learn(Other& other, BlobId id, rpc::BlobState state);
  void unreachable(Other& other);
  void forget(BlobId id, bool tell);
  void taskFailed(kj::Exception&& exception) override;

  NodeCore& core_;
  std::unordered_map<BlobId, Blob> blobs_;
  std::map<OtherKey, kj::Own<Other>> others_;
  PeerLinks links_;
  std::set<BlobId> lacking_;  // of blobs_, those that too few other homes have
  uint32_t copying_ = 0;
  std::unordered_set<BlobId> making_;
  std::deque<BlobId> removed_order_;
  std::unordered_set<BlobId> removed_;
  kj::Own<kj::TaskSet> tasks_;  // null: stopped
};

}  // namespace bigcast
