#pragma once

#include <kj/async.h>
#include <kj/io.h>

#include <cstdint>
#include <memory>

#include "server/core.h"
#include "server/mappings.h"
#include "server/relay.h"

namespace bigcast {

// One call of Blob.map: waits until the blob is sealed, holds it in the store, has a relay fetch
// what is missing, and has the store make one file of it. Destroying it gives up. On the loop's
// thread.
class BlobMapper {
 public:
  struct Mapped {
    kj::AutoCloseFd file;
    uint64_t size = 0;
    std::shared_ptr<const Hold> hold;
    kj::Own<MappingProcess> process;
  };

  // `relayed` and `reader`: null at the blob's home. All must outlive the promise.
  BlobMapper(NodeCore& core, Peer& peer, LiveBlob& live, RelayBlob* relayed, Puller::Reader* reader)
      : core_(core), peer_(peer), live_(live), relayed_(relayed), reader_(reader) {}
  ~BlobMapper() noexcept(false) { core_.mappings->let_go(std::move(hold_)); }
  KJ_DISALLOW_COPY(BlobMapper);

  // NOT_MAPPABLE: let the reader copy. Else what reading the blob would say.
  kj::Promise<Result<Mapped>> run();

 private:
  struct File {
    kj::AutoCloseFd fd;
    uint64_t size = 0;
  };
  Result<BlobStat> check();
  kj::Promise<Result<void>> sealed();
  kj::Promise<Result<void>> fetch_from(uint32_t index);
  kj::Promise<Result<Mapped>> map(uint32_t attempts);

  NodeCore& core_;
  Peer& peer_;
  LiveBlob& live_;
  RelayBlob* const relayed_;
  Puller::Reader* const reader_;
  std::shared_ptr<const Hold> hold_;
};

}  // namespace bigcast
