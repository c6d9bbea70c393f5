#include "server/mender.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/log.h"
#include "server/puller.h"
#include "server/replicas.h"

namespace bigcast {
namespace {

// The bytes of the answer, if they claim to be the chunk.
Result<std::span<const std::byte>> bytes_of(rpc::ReadResult::Reader result, const ChunkMeta& meta,
                                            uint32_t chunk_size) {
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  if (!result.isChunk()) return fail(ErrorCode::kNotFound, "the other home does not have it");
  BIGCAST_ASSIGN(const ChunkMeta theirs, rpc::read(result.getChunk().getMeta(), chunk_size));
  const auto data = result.getChunk().getData();
  if (theirs != meta || data.size() < meta.stored_size) {
    return fail(ErrorCode::kCorrupt, "the other home has another chunk");
  }
  return std::span(reinterpret_cast<const std::byte*>(data.begin()), meta.stored_size);
}

}  // namespace

void Mender::tick() {
  // A disk that takes no writes can't be mended.
  if (running_ || core_.clock.now() < next_at_ || core_.store->damaged_chunks(1).empty() ||
      !core_.store->disk_failure().empty()) {
    return;
  }
  running_ = true;
  after_.reset();
  away_.clear();
  mended_ = failed_ = 0;
  task_ = mend_next()
              .catch_([this](kj::Exception&& exception) {
                failed_++;
                log().warn("mending chunks: {}", rpc::to_error(exception).to_string());
              })
              .then([this] { end_round(); })
              .eagerlyEvaluate(nullptr);
}

void Mender::end_round() {
  running_ = false;
  if (mended_ > 0 || failed_ == 0) pause_ms_ = limits::kMendPauseMinMs;
  if (failed_ == 0 && mended_ > 0) return;
  next_at_ = core_.clock.now() + std::chrono::milliseconds(pause_ms_);
  pause_ms_ = std::min(2 * pause_ms_, limits::kMendPauseMaxMs);
}

kj::Promise<void> Mender::mend_next() {
  const auto damaged =
      core_.store->damaged_chunks(limits::kMendedPerTurn, after_ ? &*after_ : nullptr);
  for (const DamagedChunk& chunk : damaged) {
    after_ = chunk;
    auto homes = core_.replicas->homes_of(chunk.id);
    std::erase_if(homes, [this](const auto& home) { return home == core_.advertised; });
    const auto stat = core_.store->stat(chunk.id);
    if (homes.empty() || !stat) continue;
    return mend(chunk, *stat, std::move(homes)).then([this] { return mend_next(); });
  }
  if (damaged.empty()) return kj::READY_NOW;
  return kj::evalLater([this] { return mend_next(); });
}

kj::Promise<void> Mender::mend(const DamagedChunk& chunk, const BlobStat& stat,
                               std::vector<rpc::Address> homes) {
  std::erase_if(homes, [this](const auto& home) { return away_.contains(home.to_string()); });
  if (homes.empty()) {
    failed_++;
    return kj::READY_NOW;
  }
  const rpc::Address home = homes.front();
  homes.erase(homes.begin());
  return mend_from(home, chunk, stat)
      .then([this, home, chunk, stat,
             homes = std::move(homes)](const Result<void>& mended) mutable -> kj::Promise<void> {
        if (!mended) {
          log().info("blob {}/{}: chunk {}: {} can't repair it: {}", stat.name_space, stat.name,
                     chunk.meta.index, home.to_string(), mended.error().to_string());
          if (is_passing(mended.error().code)) away_.insert(home.to_string());
          return mend(chunk, stat, std::move(homes));
        }
        mended_++;
        core_.metrics->chunks_mended++;
        log().info("blob {}/{}: chunk {}: repaired with what {} has", stat.name_space, stat.name,
                   chunk.meta.index, home.to_string());
        return kj::READY_NOW;
      });
}

kj::Promise<Result<void>> Mender::mend_from(const rpc::Address& home, const DamagedChunk& chunk,
                                            const BlobStat& stat) {
  auto source = kj::refcounted<ChunkSource>(
      kj::addRef(core_), core_.replicas->link(stat.name_space, home), chunk.id, true);
  return core_.credits->acquire(chunk.meta.stored_size)
      .then([this, source = kj::mv(source), chunk,
             chunk_size = stat.chunk_size](kj::Own<CreditPool::Credit> credit) mutable {
        // Checked: so that it says if its own is damaged.
        auto read = source->read(chunk.meta.index, rpc::ReadMode::CHECKED);
        return read
            .then([this, chunk, chunk_size](Result<Response> response) {
              return put(chunk, chunk_size, kj::mv(response));
            })
            .attach(kj::mv(credit), kj::mv(source));
      });
}

kj::Promise<Result<void>> Mender::put(const DamagedChunk& chunk, uint32_t chunk_size,
                                      Result<Response> response) {
  if (!response) return Result<void>(tl::unexpected(response.error()));
  const auto bytes = bytes_of(response->getResult(), chunk.meta, chunk_size);
  if (!bytes) return Result<void>(tl::unexpected(bytes.error()));
  return core_.on_pool([store = core_.store, chunk, bytes = *bytes, held = kj::mv(*response)] {
    return store->put_chunk(chunk.id, chunk.meta, bytes);
  });
}

}  // namespace bigcast
