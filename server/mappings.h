#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "rpc/polled_fd.h"
#include "server/core.h"

namespace bigcast {

// A reader's process, watched by a descriptor of it. Its mappings are given back when it ends, not
// when its connection does: what it has mapped it can read without one. On the loop's thread only.
class MappingProcess final : public kj::Refcounted {
 public:
  MappingProcess(NodeCore& core, int fd);  // takes over fd
  int pid() const;                         // as this process sees it; 0: it can't

 private:
  NodeCore& core_;
  rpc::PolledFd ended_;
  kj::Promise<void> watch_;
};

// What readers have mapped of this node's blobs. Each mapping keeps its blob in the store until it
// was given back or its process has ended. On the loop's thread only.
class Mappings {
 public:
  explicit Mappings(NodeCore& core) : core_(core) {}

  // NOT_MAPPABLE if there are limits::kMappingsMax.
  Result<void> check_room() const;
  // Returns the token to give it back with.
  Id128 add(kj::Own<MappingProcess> process, std::string name_space, BlobId id,
            std::shared_ptr<const Hold> hold);
  void give_back(std::string_view name_space, Id128 token);
  void process_ended(const MappingProcess& process);
  // Ends a hold where it may take its time.
  void let_go(std::shared_ptr<const Hold> hold);
  // Warns once of each mapping whose blob went Config::mapped_warning ago: its reader may have
  // stopped, and nobody else can have that memory. Call it every now and then.
  void tick(TimePoint now);
  size_t size() const { return mappings_.size(); }

 private:
  struct Mapping {
    kj::Own<MappingProcess> process;
    std::string name_space;
    BlobId id;
    std::shared_ptr<const Hold> hold;
    std::optional<TimePoint> left_at;  // its blob went from here, as a tick saw it
    bool warned = false;
  };
  void end(Mapping mapping);

  NodeCore& core_;
  std::map<Id128, Mapping> mappings_;
};

}  // namespace bigcast
