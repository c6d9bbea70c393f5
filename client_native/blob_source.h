#pragma once

#include <kj/async.h>
#include <kj/refcount.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "client_native/chunk_buffers.h"
#include "client_native/node_link.h"
#include "codec/chunk_seal.h"
#include "codec/codec.h"

namespace bigcast {

// What a source answered for one index: a verified, decoded chunk, or the blob's end.
struct FetchedChunk {
  struct End {
    uint32_t chunk_count;
    uint64_t size;
  };
  std::optional<End> end;
  ChunkMeta meta;                       // as its source has it
  std::span<const std::byte> raw;       // in one of the two below
  std::shared_ptr<ChunkBuffer> buffer;  // what was decoded or read from a descriptor
  // Raw chunks are used where they arrived. Destroyed on the I/O thread.
  std::optional<capnp::Response<rpc::Blob::ReadResults>> message;
  bool located = false;
  uint32_t rereads = 0;
};

struct SourceOptions {
  rpc::UvLoop* loop;
  uint32_t timeout_ms;
  bool local_reads;
  uint32_t chunk_size;
  std::shared_ptr<ChunkBuffers> buffers;            // of encode_bound(chunk_size)
  std::shared_ptr<const ChunkSeal> seal = nullptr;  // if the blob is encrypted
};

// A blob opened at one node. On the I/O thread only; promises may outlive it.
class BlobSource : public kj::Refcounted {
 public:
  BlobSource(SourceOptions options, kj::Own<NodeSession> session, rpc::Blob::Client blob);

  // Chunk `index`, verified and decoded; waits while it is still to be written: as long as the node
  // is there if `waits_for` is the writer. What fails verification is read once more; CORRUPT if
  // that fails, too.
  kj::Promise<Result<FetchedChunk>> fetch(uint32_t index, WaitsFor waits_for);
  NodeSession& session() { return *session_; }

 private:
  struct MemoryFile {
    int fd;
    uint32_t generation;
    MemoryFile(int fd_in, uint32_t generation_in) : fd(fd_in), generation(generation_in) {}
    ~MemoryFile();
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
  };
  using MemoryFilePtr = std::shared_ptr<MemoryFile>;
  using Response = capnp::Response<rpc::Blob::ReadResults>;
  using Answer = Result<FetchedChunk>;

  kj::Promise<Answer> read(uint32_t index, rpc::ReadMode mode,
                           WaitsFor waits_for = WaitsFor::kNode);
  kj::Promise<Answer> use(uint32_t index, Response response);
  kj::Promise<Answer> use_bytes(uint32_t index, Response response);
  kj::Promise<Answer> use_located(uint32_t index, ChunkMeta meta, uint32_t generation);
  kj::Promise<Answer> use_file(MemoryFilePtr file, ChunkMeta meta);
  kj::Promise<Answer> again(uint32_t index);  // checked there, after a failed verification
  // The file of that generation, or none: then bytes have to do.
  kj::Promise<MemoryFilePtr> memory_file(uint32_t generation);
  kj::Promise<void> ask_memory_file();

  const SourceOptions options_;
  kj::Own<NodeSession> session_;
  rpc::Blob::Client blob_;
  bool local_reads_;
  MemoryFilePtr file_;
  kj::Maybe<kj::ForkedPromise<void>> asking_;
  bool asking_runs_ = false;
};

}  // namespace bigcast
