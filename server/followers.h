#pragma once

#include <kj/async.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "server/core.h"
#include "server/swarm.h"

namespace bigcast {

// The relays that follow a blob at its home: where they are, and their long polls. The rules are
// Swarm's. Belongs to the LiveBlob; on the loop's thread.
class Followers final : private kj::TaskSet::ErrorHandler {
 public:
  // `stat`: what the home has when the first relay comes.
  Followers(NodeCore& core, LiveBlob& blob, const BlobStat& stat);

  // `held`: a bitmap, see rpc/bigcast.capnp. RESOURCE_EXHAUSTED when there are too many.
  Result<rpc::Follower::Client> join(kj::Own<SessionState> session,
                                     std::optional<rpc::Address> address, capnp::Data::Reader held);

  void chunk_came(uint32_t index);
  void changed();  // the blob was sealed or has ended

  // For show: what a relay has and what is on its way to it; valid during the call it is given to.
  struct Standing {
    const std::optional<rpc::Address>& address;
    const std::vector<bool>& held;
    std::vector<uint32_t> coming;
  };
  // Calls it for at most `limit` of the relays.
  void for_some(size_t limit, kj::FunctionParam<void(const Standing&)> visit) const;

 private:
  friend class FollowerService;
  // An assignment as a relay needs it.
  struct Task {
    uint32_t index = 0;
    std::optional<rpc::Address> peer;  // none: the home
    bigcast::ChunkMeta meta;
  };
  using Tasks = std::vector<Task>;
  struct Waiting {
    uint32_t room = 0;
    Tasks tasks;
    kj::Own<kj::PromiseFulfiller<Tasks>> fulfiller;
  };
  struct Follower {
    std::optional<rpc::Address> address;
    bool knows_end = false;  // was told that the blob is sealed, and its figures
    kj::Maybe<Waiting> waiting;
    TimePoint heard_at;
  };

  void leave(Swarm::Member member);
  void heard(Swarm::Member member);
  bool has_news(const Follower& follower) const;
  // Resolves with what there is to fetch; with nothing when the blob is sealed or ended.
  kj::Promise<Tasks> next(Swarm::Member member, uint32_t room);
  void hand_out_soon();  // once, however much changes until then
  void hand_out();
  void taskFailed(kj::Exception&& exception) override;
  Task task_of(const Swarm::Assignment& assignment);
  bool give_one(Swarm::Member member, Follower& follower);
  kj::Promise<void> watch_silence();

  NodeCore& core_;
  LiveBlob& blob_;
  Swarm swarm_;
  std::map<Swarm::Member, Follower> followers_;
  Swarm::Member turn_ = 0;  // who was given something last
  bool handing_out_ = false;
  kj::Promise<void> watcher_;
  kj::TaskSet tasks_;
};

}  // namespace bigcast
