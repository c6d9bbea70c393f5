#pragma once

#include <kj/async.h>
#include <kj/function.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/ids.h"

namespace bigcast {

class Followers;
class LiveBlobs;

// What the loop knows of a blob beyond the store: who waits for its chunks or for its end. It
// exists while an upload, a reader or the relay refers to it. Use it on the loop's thread only.
class LiveBlob final : public kj::Refcounted {
 public:
  LiveBlob(kj::Own<LiveBlobs> all, BlobId id);
  ~LiveBlob() noexcept(false);

  const BlobId id;
  bool has_writer = false;               // an upload here that was neither sealed nor given up
  std::unique_ptr<Followers> followers;  // the relays, at its home; null while there was none

  // Set once the blob was removed or its writer gave up.
  const std::optional<Error>& ended() const { return ended_; }
  uint64_t drops() const { return drops_; }  // how often relays were asked to drop their copies

  // Resolves when chunk `index` may have come, the blob was sealed or it ended: look again.
  kj::Promise<void> chunk_event(uint32_t index);
  // Resolves at the next drop of copies or the end.
  kj::Promise<void> watch_event();

  void chunk_came(uint32_t index);
  void sealed();
  void drop_copies();

 private:
  friend class LiveBlobs;
  using Waiters = std::vector<kj::Own<kj::PromiseFulfiller<void>>>;
  static void wake(Waiters waiters);
  void wake_all_chunks();
  void end(Error error);

  kj::Own<LiveBlobs> all_;
  std::optional<Error> ended_;
  uint64_t drops_ = 0;
  std::unordered_map<uint32_t, Waiters> chunk_waiters_;
  Waiters watchers_;
};

// All live blobs of a node by id.
class LiveBlobs final : public kj::Refcounted {
 public:
  kj::Own<LiveBlob> get(BlobId id);  // makes it if there is none
  LiveBlob* find(BlobId id);         // null if nobody refers to it
  // Calls it for at most `limit` of them, any.
  void for_some(size_t limit, kj::FunctionParam<void(const LiveBlob&)> visit) const;
  // Tells everybody who refers to the blob that it ended, and forgets it: what is opened under
  // the id later is another LiveBlob.
  void end(BlobId id, const Error& error);

 private:
  friend class LiveBlob;
  std::unordered_map<BlobId, LiveBlob*> blobs_;
};

}  // namespace bigcast
