#include "server/blob_mapper.h"

#include <utility>

namespace bigcast {

Result<BlobStat> BlobMapper::check() {
  if (live_.ended()) return tl::unexpected(*live_.ended());
  BIGCAST_ASSIGN(BlobStat stat, core_.store->stat(live_.id));
  if (!stat.mappable) {
    return fail(ErrorCode::kNotMappable, "the blob was not written to be mapped (mappable)");
  }
  BIGCAST_TRY(core_.mappings->check_room());
  return stat;
}

kj::Promise<Result<BlobMapper::Mapped>> BlobMapper::run() {
  if (auto checked = check(); !checked) return Result<Mapped>(tl::unexpected(checked.error()));
  // A reader that can't be watched would hold the memory for good if it died.
  if (auto process = peer_.process(core_); !process) {
    return Result<Mapped>(fail(ErrorCode::kNotMappable, process.error().message));
  }
  return sealed().then([this](Result<void> is_sealed) -> kj::Promise<Result<Mapped>> {
    if (!is_sealed) return Result<Mapped>(tl::unexpected(is_sealed.error()));
    return core_.on_pool([store = core_.store, id = live_.id] { return store->hold(id); })
        .then([this](Result<std::shared_ptr<const Hold>> held) -> kj::Promise<Result<Mapped>> {
          if (!held) return Result<Mapped>(tl::unexpected(held.error()));
          hold_ = std::move(*held);
          return map(0);
        });
  });
}

kj::Promise<Result<void>> BlobMapper::sealed() {
  const auto stat = check();
  if (!stat) return Result<void>(tl::unexpected(stat.error()));
  if (stat->sealed) return Result<void>();
  // A relay hears of the end when it asks for what comes behind it.
  if (relayed_ != nullptr) return fetch_from(0);
  return live_.chunk_event(limits::kChunksPerBlobMax).then([this] { return sealed(); });
}

// In order, so that the relay fetches ahead as it does for a reader.
kj::Promise<Result<void>> BlobMapper::fetch_from(uint32_t index) {
  Presence presence = Presence::kEnd;
  for (;; ++index) {
    if (live_.ended()) return Result<void>(tl::unexpected(*live_.ended()));
    const auto location = core_.store->peek(live_.id, index);
    if (!location) return Result<void>(tl::unexpected(location.error()));
    presence = location->presence;
    if (presence == Presence::kEnd) return Result<void>();
    reader_->reads(index);
    if (presence == Presence::kAbsent) break;
  }
  return relayed_->fetch(index).then(
      [this, index](kj::Own<FetchedChunk> fetched) -> kj::Promise<Result<void>> {
        if (fetched->error) return Result<void>(tl::unexpected(*fetched->error));
        if (fetched->end) return Result<void>();
        if (!fetched->kept && hold_) {
          return Result<void>(fail(ErrorCode::kNotMappable, "not now: there is no room for it"));
        }
        return fetch_from(index + 1);
      });
}

kj::Promise<Result<BlobMapper::Mapped>> BlobMapper::map(uint32_t attempts) {
  kj::Promise<Result<void>> fetched = Result<void>();
  if (relayed_ != nullptr) fetched = fetch_from(0);
  return fetched
      .then([this](Result<void> all) -> kj::Promise<Result<File>> {
        if (!all) return Result<File>(tl::unexpected(all.error()));
        return core_.on_pool([store = core_.store, id = live_.id, hold = hold_]() -> Result<File> {
          BIGCAST_ASSIGN(const MappableFile file, store->map(id));
          return File{kj::AutoCloseFd(file.fd), file.size};
        });
      })
      .then([this, attempts](Result<File> file) -> kj::Promise<Result<Mapped>> {
        if (file) {
          auto process = peer_.process(core_);
          if (!process) return Result<Mapped>(tl::unexpected(process.error()));
          return Result<Mapped>(
              Mapped{kj::mv(file->fd), file->size, std::move(hold_), kj::mv(*process)});
        }
        const ErrorCode code = file.error().code;
        const bool again = code == ErrorCode::kNotFound && relayed_ != nullptr && !live_.ended();
        if (again && attempts < limits::kMapAttemptsMax) return map(attempts + 1);
        if (code == ErrorCode::kResourceExhausted || again) {
          return Result<Mapped>(fail(ErrorCode::kNotMappable, "not now: " + file.error().message));
        }
        return Result<Mapped>(tl::unexpected(file.error()));
      });
}

}  // namespace bigcast
