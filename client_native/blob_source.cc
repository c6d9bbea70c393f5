#include "client_native/blob_source.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <unistd.h>

#include <cerrno>

namespace bigcast {

namespace {

Result<void> read_at(int fd, std::span<std::byte> into, uint64_t offset) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::kIo, errno_message("read of a memory file", errno));
    if (got == 0) return fail(ErrorCode::kCorrupt, "a memory file ends early");
    done += static_cast<size_t>(got);
  }
  return {};
}

// Checks and, if need be, decrypts and decodes `stored` into a buffer of its own. On any thread.
Result<void> open_chunk(FetchedChunk& chunk, std::span<const std::byte> stored,
                        ChunkBuffers& buffers, const ChunkSeal* seal) {
  BIGCAST_TRY(verify_chunk(chunk.meta, stored));
  ChunkMeta meta = chunk.meta;
  if (seal != nullptr) {
    auto opened = buffers.take();
    BIGCAST_ASSIGN(meta, seal->open(chunk.meta, stored, opened->first(stored.size())));
    stored = opened->first(meta.stored_size);
    chunk.buffer = std::move(opened);
  }
  if (meta.codec == Codec::kRaw) {
    chunk.raw = stored;
    return {};
  }
  auto decoded = buffers.take();
  BIGCAST_TRY(decode_chunk(meta, stored, decoded->first(meta.raw_size)));
  chunk.raw = decoded->first(meta.raw_size);
  chunk.buffer = std::move(decoded);
  return {};
}

}  // namespace

BlobSource::MemoryFile::~MemoryFile() { close(fd); }

BlobSource::BlobSource(SourceOptions options, kj::Own<NodeSession> session, rpc::Blob::Client blob)
    : options_(std::move(options)),
      session_(kj::mv(session)),
      blob_(kj::mv(blob)),
      local_reads_(options_.local_reads && session_->connection->is_unix()) {}

kj::Promise<BlobSource::Answer> BlobSource::fetch(uint32_t index, WaitsFor waits_for) {
  const auto mode = local_reads_ ? rpc::ReadMode::PREFER_LOCATED : rpc::ReadMode::BYTES;
  return read(index, mode, waits_for)
      .then([this, index](Answer answer) -> kj::Promise<Answer> {
        if (answer || answer.error().code != ErrorCode::kCorrupt) return kj::mv(answer);
        return again(index);
      })
      .attach(kj::addRef(*this));
}

kj::Promise<BlobSource::Answer> BlobSource::again(uint32_t index) {
  return read(index, rpc::ReadMode::CHECKED).then([this, index](Answer answer) {
    if (answer) {
      answer->rereads = 1;
    } else if (answer.error().code == ErrorCode::kCorrupt) {
      answer.error().message =
          session_->address + ": chunk " + std::to_string(index) + ": " + answer.error().message;
    }
    return answer;
  });
}

kj::Promise<BlobSource::Answer> BlobSource::read(uint32_t index, rpc::ReadMode mode,
                                                 WaitsFor waits_for) {
  auto request = blob_.readRequest();
  request.setIndex(index);
  request.setMode(mode);
  return bounded<FetchedChunk>(*options_.loop, *session_, options_.timeout_ms,
                               request.send().then([this, index](Response&& response) {
                                 return use(index, kj::mv(response));
                               }),
                               waits_for);
}

kj::Promise<BlobSource::Answer> BlobSource::use(uint32_t index, Response response) {
  auto result = response.getResult();
  switch (result.which()) {
    case rpc::ReadResult::ERROR:
      return Answer(tl::unexpected(rpc::read(result.getError())));
    case rpc::ReadResult::END: {
      FetchedChunk chunk;
      chunk.end = {result.getEnd().getChunkCount(), result.getEnd().getSize()};
      return Answer(std::move(chunk));
    }
    case rpc::ReadResult::LOCATED: {
      auto meta = rpc::answered(rpc::read(result.getLocated().getMeta(), options_.chunk_size));
      if (!meta) return Answer(tl::unexpected(meta.error()));
      return use_located(index, *meta, result.getLocated().getGeneration());
    }
    case rpc::ReadResult::CHUNK:
      return use_bytes(index, kj::mv(response));
    case rpc::ReadResult::ABSENT:
      break;  // only asked for by nodes
  }
  return Answer(fail(ErrorCode::kUnsupported, session_->address + ": an answer of unknown kind"));
}

kj::Promise<BlobSource::Answer> BlobSource::use_bytes(uint32_t index, Response response) {
  auto body = response.getResult().getChunk();
  auto meta = rpc::answered(rpc::read(body.getMeta(), options_.chunk_size));
  if (!meta) return Answer(tl::unexpected(meta.error()));
  const auto data = body.getData();
  if (meta->index != index || data.size() < meta->stored_size) {
    return Answer(fail(ErrorCode::kCorrupt, "the answer is not the chunk that was asked for"));
  }
  const std::span<const std::byte> stored(reinterpret_cast<const std::byte*>(data.begin()),
                                          meta->stored_size);
  auto work = [meta = *meta, stored, response = kj::mv(response), buffers = options_.buffers,
               seal = options_.seal]() mutable -> Answer {
    FetchedChunk chunk;
    chunk.meta = meta;
    BIGCAST_TRY(open_chunk(chunk, stored, *buffers, seal.get()));
    if (!chunk.buffer) chunk.message = kj::mv(response);
    return chunk;
  };
  return options_.loop->run_on_pool(std::move(work));
}

kj::Promise<BlobSource::Answer> BlobSource::use_located(uint32_t index, ChunkMeta meta,
                                                        uint32_t generation) {
  if (meta.index != index) {
    return Answer(fail(ErrorCode::kCorrupt, "the answer is not the chunk that was asked for"));
  }
  return memory_file(generation)
      .then([this, index, meta](MemoryFilePtr file) -> kj::Promise<Answer> {
        if (!file) return read(index, rpc::ReadMode::BYTES);
        return use_file(std::move(file), meta);
      });
}

kj::Promise<BlobSource::Answer> BlobSource::use_file(MemoryFilePtr file, ChunkMeta meta) {
  auto work = [file = std::move(file), meta, chunk_size = options_.chunk_size,
               buffers = options_.buffers, seal = options_.seal]() -> Answer {
    auto copy = buffers->take();
    const auto stored = copy->first(meta.stored_size);
    FetchedChunk chunk;
    chunk.meta = meta;
    chunk.located = true;
    BIGCAST_TRY(read_at(file->fd, stored, uint64_t{meta.index} * chunk_size));
    BIGCAST_TRY(open_chunk(chunk, stored, *buffers, seal.get()));
    if (!chunk.buffer) chunk.buffer = std::move(copy);
    return chunk;
  };
  return options_.loop->run_on_pool(std::move(work));
}

kj::Promise<BlobSource::MemoryFilePtr> BlobSource::memory_file(uint32_t generation) {
  if (file_ && file_->generation == generation) return file_;
  if (!asking_runs_) {
    asking_runs_ = true;
    asking_ = ask_memory_file().fork();
  }
  return KJ_ASSERT_NONNULL(asking_).addBranch().then(
      [this, generation]() { return file_ && file_->generation == generation ? file_ : nullptr; });
}

kj::Promise<void> BlobSource::ask_memory_file() {
  return blob_.memoryRequest()
      .send()
      .then([this](capnp::Response<rpc::Blob::MemoryResults>&& response)
                -> kj::Promise<MemoryFilePtr> {
        if (!response.hasFile()) return MemoryFilePtr();  // all of it was evicted meanwhile
        auto file = response.getFile();
        return file.getFd().then([this, file, generation = response.getGeneration()](
                                     kj::Maybe<int> fd) mutable -> MemoryFilePtr {
          KJ_IF_MAYBE (number, fd) {
            const int own = fcntl(*number, F_DUPFD_CLOEXEC, 0);
            if (own >= 0) return std::make_shared<MemoryFile>(own, generation);
          }
          // None arrives here, now or later: a sandbox, or descriptors ran out.
          local_reads_ = false;
          return nullptr;
        });
      })
      .catch_([](kj::Exception&&) { return MemoryFilePtr(); })
      .then([this](MemoryFilePtr file) {
        asking_runs_ = false;
        file_ = std::move(file);
      });
}

}  // namespace bigcast
