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

Mender::Outcome Mender::not_given(Error error) { return {std::move(error), false}; }

Mender::Outcome Mender::not_taken(Error error) { return {std::move(error), true}; }

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
  is_over_ = false;
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
  links_.close_unused();
  if (mended_ > 0 || failed_ == 0) pause_ms_ = limits::kMendPauseMinMs;
  if (failed_ == 0 && mended_ > 0) return;
  next_at_ = core_.clock.now() + std::chrono::milliseconds(pause_ms_);
  pause_ms_ = std::min(2 * pause_ms_, limits::kMendPauseMaxMs);
}

void Mender::clear() {
  task_ = nullptr;
  links_.clear();
}

kj::Promise<void> Mender::mend_next() {
  if (is_over_) return kj::READY_NOW;
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
             homes = std::move(homes)](const Outcome& outcome) mutable -> kj::Promise<void> {
        if (!outcome.error) {
          mended_++;
          core_.metrics->chunks_mended++;
          log().info("blob {}/{}: chunk {}: repaired with what {} has", stat.name_space, stat.name,
                     chunk.meta.index, home.to_string());
          return kj::READY_NOW;
        }
        if (outcome.is_ours) {
          on_not_taken(chunk, stat, *outcome.error);
          return kj::READY_NOW;
        }
        log().info("blob {}/{}: chunk {}: {} can't repair it: {}", stat.name_space, stat.name,
                   chunk.meta.index, home.to_string(), outcome.error->to_string());
        if (is_passing(outcome.error->code)) away_.insert(home.to_string());
        return mend(chunk, stat, std::move(homes));
      });
}

// No other home can help. What is being moved or is mapped has its turn in the next round.
void Mender::on_not_taken(const DamagedChunk& chunk, const BlobStat& stat, const Error& error) {
  if (error.code == ErrorCode::kNotFound) return;  // the blob was removed meanwhile
  failed_++;
  // Nor will the next chunk find a disk that works, room, or a descriptor.
  is_over_ = error.code == ErrorCode::kIo || error.code == ErrorCode::kResourceExhausted;
  log().warn("damaged blob {}/{}: chunk {}: can't be repaired here: {}", stat.name_space, stat.name,
             chunk.meta.index, error.to_string());
}

kj::Promise<Mender::Outcome> Mender::mend_from(const rpc::Address& home, const DamagedChunk& chunk,
                                               const BlobStat& stat) {
  auto link = links_.get(stat.name_space, home);
  auto source = kj::refcounted<ChunkSource>(kj::addRef(core_), kj::addRef(*link), chunk.id, true);
  return core_.credits->acquire(chunk.meta.stored_size)
      .then([this, link = kj::mv(link), source = kj::mv(source), chunk,
             chunk_size = stat.chunk_size](kj::Own<CreditPool::Credit> credit) mutable {
        // Checked: so that it says if its own is damaged.
        auto read = source->read(chunk.meta.index, rpc::ReadMode::CHECKED);
        return read
            .then([this, &link = *link, chunk,
                   chunk_size](Result<Response> response) -> kj::Promise<Outcome> {
              if (response) return put(chunk, chunk_size, kj::mv(*response));
              const Error* unconnected = link.failure();
              const bool no_socket = unconnected != nullptr && unconnected->code == ErrorCode::kIo;
              return no_socket ? not_taken(*unconnected) : not_given(response.error());
            })
            .attach(kj::mv(credit), kj::mv(source), kj::mv(link));
      });
}

kj::Promise<Mender::Outcome> Mender::put(const DamagedChunk& chunk, uint32_t chunk_size,
                                         Response response) {
  const auto bytes = bytes_of(response.getResult(), chunk.meta, chunk_size);
  if (!bytes) return not_given(bytes.error());
  return core_.put_on_pool(
      [store = core_.store, chunk, bytes = *bytes, held = kj::mv(response)]() -> Outcome {
        if (auto right = verify_chunk(chunk.meta, bytes); !right) return not_given(right.error());
        const auto stored = store->put_chunk(chunk.id, chunk.meta, bytes);
        return stored ? Outcome() : not_taken(stored.error());
      });
}

}  // namespace bigcast
