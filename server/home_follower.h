#pragma once

#include <kj/async.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "server/core.h"

namespace bigcast {

class Puller;
class RelayBlob;

// This node's part in how a home spreads its chunks of a blob (rpc::Follower): tells the home what
// is wanted, came or failed, and passes on to the puller what the home says to fetch. Belongs to a
// Puller.
class HomeFollower final : private kj::TaskSet::ErrorHandler {
 public:
  HomeFollower(NodeCore& core, RelayBlob& blob, Puller& puller)
      : core_(core), blob_(blob), puller_(puller), tasks_(*this) {}

  // Brings the home up to date: `wanted` is what to fetch of its chunks now. Joins if there is
  // something to want, or to give to others.
  void step(std::vector<uint32_t> wanted);
  // The end of an assignment, told to the home with the next step.
  void gained(uint32_t index) { gained_.push_back(index); }
  void failed(uint32_t index, rpc::FetchFailure why) { failed_.emplace_back(index, why); }
  void leave();

 private:
  bool is_following() const;
  void join();
  kj::Promise<void> follow();
  void on_no_home();
  void send_update(std::vector<uint32_t> wanted);
  void poll();
  void on_next(rpc::NextResult::Reader result);
  kj::Promise<void> beat();
  void taskFailed(kj::Exception&& exception) override;

  NodeCore& core_;
  RelayBlob& blob_;
  Puller& puller_;
  kj::Maybe<rpc::Follower::Client> follower_;
  uint64_t generation_ = 0;  // of the connection that it was made on
  bool joining_ = false;
  std::optional<TimePoint> no_home_since_;
  uint32_t backoff_ms_ = limits::kReconnectBackoffMinMs;
  std::vector<uint32_t> told_wanted_;
  std::vector<uint32_t> gained_;
  std::vector<std::pair<uint32_t, rpc::FetchFailure>> failed_;
  kj::Maybe<kj::Promise<void>> poll_;
  bool beating_ = false;
  bool beat_due_ = false;
  kj::TaskSet tasks_;
};

}  // namespace bigcast
