#include "server/chunk_loads.h"

#include <kj/debug.h>

#include <cstring>

#include "base/pages.h"
#include "server/core.h"

namespace bigcast {

LoadedChunk::LoadedChunk(kj::Own<NodeCore> core) : core(kj::mv(core)) {}

LoadedChunk::~LoadedChunk() noexcept(false) = default;

kj::Promise<kj::Own<LoadedChunk>> ChunkLoads::load(BlobId id, uint32_t index, uint32_t chunk_size) {
  const auto found = under_way_.find({id, index});
  if (found != under_way_.end()) return found->second.addBranch();
  // The promise is what runs then, and perhaps nobody else's any more: it goes in a later turn.
  const auto end = [this, id, index] {
    auto ended = under_way_.extract({id, index});
    kj::evalLater([ended = kj::mv(ended)]() mutable {
      const auto gone = kj::mv(ended);
    }).detach([](kj::Exception&&) {});
  };
  auto reading = read(id, index, chunk_size)
                     .then(
                         [this, end](kj::Own<LoadedChunk> loaded) {
                           end();
                           core_.make_room_ahead();
                           return loaded;
                         },
                         [end](kj::Exception&& exception) -> kj::Own<LoadedChunk> {
                           end();
                           kj::throwFatalException(kj::mv(exception));
                         });
  const auto entry = under_way_.emplace(std::pair(id, index), reading.fork()).first;
  auto loaded = entry->second.addBranch();
  // It goes to its end though all who asked may have gone.
  core_.background(entry->second.addBranch().ignoreResult());
  return loaded;
}

kj::Promise<kj::Own<LoadedChunk>> ChunkLoads::read(BlobId id, uint32_t index, uint32_t chunk_size) {
  return core_.serve_buffers.acquire(chunk_size)
      .attach(core_.count_in(core_.metrics->serves_waiting))
      .then([this, id, index](kj::Own<rpc::BufferPool::Buffer> buffer) {
        auto loaded = kj::refcounted<LoadedChunk>(kj::addRef(core_));
        loaded->buffer = kj::mv(buffer);
        return core_.on_pool([store = core_.store, id, index, loaded = kj::mv(loaded)]() mutable {
          const auto into = loaded->buffer->bytes();
          loaded->meta = store->load_chunk(id, index, into);
          if (loaded->meta) {
            const size_t size = loaded->meta->stored_size;
            std::memset(into.data() + size, 0, whole_words(size) - size);
            loaded->bytes = into.data();
          }
          return kj::mv(loaded);
        });
      });
}

}  // namespace bigcast
