#pragma once

#include <kj/async.h>

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "blobstore/blob_store.h"
#include "server/peer_link.h"

namespace bigcast {

class RelayGroup;
class Relays;

// Blobs of this home that their writers want on every host before anybody reads them. Relays learn
// of them by a long poll; at most limits::kAnnouncedMax are kept, and one that is left out is
// fetched when it is read. On the loop's thread.
class Announcements {
 public:
  struct News {
    std::vector<BlobId> blobs;
    uint64_t seen = 0;  // to be given to the next call
  };

  void announce(const BlobStat& stat);  // again: a no-op; without a lease: nobody would hear it
  void withdraw(BlobId id);
  // What was announced for the namespace and lease after `seen` (0: all that still counts). Waits
  // while there is nothing.
  kj::Promise<News> next(const std::string& name_space, LeaseId lease, uint64_t seen);

 private:
  struct Announced {
    BlobId id;
    std::string name_space;
    LeaseId lease;
  };
  struct Waiter {
    std::string name_space;
    LeaseId lease;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };

  std::map<uint64_t, Announced> announced_;  // by order
  std::unordered_map<BlobId, uint64_t> orders_;
  uint64_t last_ = 0;
  std::vector<Waiter> waiters_;
};

// Fetches what a home announces to a group's sessions, as it is written. Belongs to the group.
class HomeListener {
 public:
  HomeListener(Relays& relays, RelayGroup& group, rpc::Address home);

 private:
  kj::Promise<void> listen();
  kj::Promise<void> ask(kj::Own<PeerLink> link, PeerLink::Open open);
  kj::Promise<void> pause();
  void fetch(rpc::BlobRef::Reader announced);
  void fetch(const rpc::BlobRefData& ref);

  Relays& relays_;
  RelayGroup& group_;
  const rpc::Address home_;
  uint64_t generation_ = 0;  // of the connection that `seen_` is about
  uint64_t seen_ = 0;
  uint32_t backoff_ms_ = limits::kReconnectBackoffMinMs;
  kj::Promise<void> listening_;
};

}  // namespace bigcast
