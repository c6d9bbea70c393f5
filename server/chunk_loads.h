#pragma once

#include <kj/async.h>
#include <kj/refcount.h>

#include <cstdint>
#include <map>
#include <utility>

#include "base/ids.h"
#include "blobstore/blob_store.h"
#include "rpc/buffer_pool.h"

namespace bigcast {

class NodeCore;

// A chunk's stored bytes, copied into the serve reserve and verified; shared by all who asked while
// it was read. The buffer goes back when the last of them lets go.
struct LoadedChunk final : kj::Refcounted {
  explicit LoadedChunk(kj::Own<NodeCore> core);
  ~LoadedChunk() noexcept(false);
  kj::Own<LoadedChunk> addRef() { return kj::addRef(*this); }  // for each who awaits the load

  kj::Own<NodeCore> core;  // the buffer's owner
  kj::Own<rpc::BufferPool::Buffer> buffer;
  Result<ChunkMeta> meta;
  const std::byte* bytes = nullptr;  // padded with zeros to a multiple of 8
};

// Reads of chunks that can't be sent from where they rest: one at a time of each chunk, however
// many readers ask. It may bring the chunk back into memory (BlobStore::load_chunk). What bounds
// them is the serve reserve, so they go on when no memory is free. On the loop's thread only.
class ChunkLoads {
 public:
  explicit ChunkLoads(NodeCore& core) : core_(core) {}

  kj::Promise<kj::Own<LoadedChunk>> load(BlobId id, uint32_t index, uint32_t chunk_size);

 private:
  kj::Promise<kj::Own<LoadedChunk>> read(BlobId id, uint32_t index, uint32_t chunk_size);

  NodeCore& core_;
  std::map<std::pair<BlobId, uint32_t>, kj::ForkedPromise<kj::Own<LoadedChunk>>> under_way_;
};

}  // namespace bigcast
