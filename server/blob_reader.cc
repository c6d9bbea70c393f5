#include "server/blob_reader.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/pages.h"
#include "server/blob_mapper.h"
#include "server/followers.h"

namespace bigcast {
namespace {

Stripe stripe_of(const BlobStore& store, BlobId id) {
  const auto stat = store.stat(id);
  return stat ? stat->stripe : Stripe{};
}

// How the reader goes through the blob, if it says so.
std::optional<ReadOrder> read_order(rpc::ReadOrder order) {
  switch (order) {
    case rpc::ReadOrder::ASCENDING:
      return ReadOrder::kAscending;
    case rpc::ReadOrder::RESIDENT_FIRST:
      return ReadOrder::kResidentFirst;
    case rpc::ReadOrder::UNKNOWN:
      break;
  }
  return std::nullopt;
}

uint64_t open_stream(BlobStore& store, BlobId id, std::optional<ReadOrder> order) {
  return order ? store.open_stream(id, *order).value_or(0) : 0;
}

// Hands out one descriptor of a blob's memory file.
class MemoryFileService final : public rpc::MemoryFile::Server {
 public:
  explicit MemoryFileService(int fd) : fd_(fd) {}
  ~MemoryFileService() noexcept(false) { close(fd_); }
  kj::Maybe<int> getFd() override { return fd_; }

 private:
  int fd_;
};

}  // namespace

BlobService::BlobService(kj::Own<SessionState> session, kj::Own<LiveBlob> live, Kind kind,
                         rpc::ReadOrder order)
    : session_(kj::mv(session)),
      core_(*session_->core),
      kind_(kind),
      live_(kj::mv(live)),
      id_(live_->id),
      stripe_(stripe_of(*core_.store, id_)),
      stream_(open_stream(*core_.store, id_, read_order(order))),
      drops_seen_(live_->drops()) {
  session_->opens++;
  if (stream_ == 0 || !core_.trace) return;
  traced_ = core_.trace->number_of(id_);
  core_.trace->opened(traced_, stream_, *read_order(order));
}

BlobService::BlobService(kj::Own<SessionState> session, kj::Own<RelayBlob> relayed,
                         rpc::ReadOrder order)
    : BlobService(kj::mv(session), relayed->live(), Kind::kRelayed, order) {
  relayed_ = kj::mv(relayed);
  reader_ = relayed_->new_reader();
}

BlobService::~BlobService() noexcept(false) {
  session_->opens--;
  if (stream_ == 0) return;
  core_.store->close_stream(stream_);
  if (core_.trace) core_.trace->closed(traced_, stream_);
}

void BlobService::record(const bigcast::ChunkMeta& meta) {
  if (!core_.trace) return;
  if (traced_ == 0) traced_ = core_.trace->number_of(id_);
  core_.trace->read(traced_, stream_, meta);
}

// To the trace a mapping is a read of all that it shows.
void BlobService::record_mapped(uint64_t size, uint32_t chunk_size) {
  if (!core_.trace) return;
  for (uint32_t index = 0; index < chunks_in(size, chunk_size); index++) {
    const auto location = core_.store->peek(id_, index);
    if (location && location->is_here()) record(location->meta);
  }
}

Result<void> BlobService::check_index(uint32_t index) const {
  if (index >= limits::kChunksPerBlobMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("read: index must be below {}", limits::kChunksPerBlobMax));
  }
  if (!stripe_.has(index)) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("read: chunk {} is not of stripe {} of {}",
                                                         index, stripe_.index, stripe_.count));
  }
  return {};
}

kj::Promise<void> BlobService::read(ReadContext context) {
  context.allowCancellation();
  session_->heard();
  if (auto checked = check_index(context.getParams().getIndex()); !checked) {
    reply_error(context.getResults().initResult(), checked.error());
    return kj::READY_NOW;
  }
  if (kind_ == Kind::kRelayed) reader_->reads(context.getParams().getIndex());
  return serve(context, 0).attach(core_.count_running(), core_.time(core_.metrics->calls.read));
}

kj::Promise<void> BlobService::serve(ReadContext context, uint32_t rereads) {
  if (live_->ended() && kind_ == Kind::kCopy) return serve_absent(context, rereads);
  if (live_->ended()) {
    reply_error(context.getResults().initResult(), *live_->ended());
    return kj::READY_NOW;
  }
  const auto location = core_.store->locate(id_, context.getParams().getIndex(), stream_);
  if (!location) {
    reply_error(context.getResults().initResult(), location.error());
    return kj::READY_NOW;
  }
  switch (location->presence) {
    case Presence::kEnd:
      if (kind_ == Kind::kCopy) return serve_absent(context, rereads);
      reply_end(context);
      return kj::READY_NOW;
    case Presence::kAbsent:
      return serve_absent(context, rereads);
    case Presence::kMemfd:
      if (takes_located(context)) {
        reply_located(context, *location);
        return kj::READY_NOW;
      }
      break;
    case Presence::kElsewhere:
      break;
  }
  return serve_from_store(context, rereads);
}

kj::Promise<void> BlobService::serve_absent(ReadContext context, uint32_t rereads) {
  if (kind_ == Kind::kRelayed) return serve_from_home(context, rereads);
  if (kind_ == Kind::kCopy) {
    context.getResults().initResult().setAbsent();
    return kj::READY_NOW;
  }
  if (!live_->has_writer) {  // sealed, and yet not there: the store lost it
    reply_error(
        context.getResults().initResult(),
        {ErrorCode::kCorrupt, fmt::format("chunk {} of blob {} is lost",
                                          context.getParams().getIndex(), id_.to_string())});
    return kj::READY_NOW;
  }
  return live_->chunk_event(context.getParams().getIndex())
      .then([this, context, rereads]() mutable { return serve(context, rereads); });
}

kj::Promise<void> BlobService::serve_from_store(ReadContext context, uint32_t rereads) {
  const auto stat = core_.store->stat(id_);
  if (!stat) {
    reply_error(context.getResults().initResult(), stat.error());
    return kj::READY_NOW;
  }
  return session_->peer->acquire_serve_room(stat->chunk_size)
      .attach(core_.count_in(core_.metrics->serves_waiting))
      .then(
          [this, context, chunk_size = stat->chunk_size](kj::Own<CreditPool::Credit> room) mutable {
            auto serving = kj::heap<Serving>(kj::addRef(core_), kj::mv(room));
            const auto params = context.getParams();
            const bool viewed = params.getMode() != rpc::ReadMode::CHECKED &&
                                serving->view(*core_.store, id_, params.getIndex());
            return viewed ? kj::Promise<kj::Own<Serving>>(kj::mv(serving))
                          : load_to_serve(context, chunk_size, kj::mv(serving));
          })
      .then([this, context, rereads](kj::Own<Serving> serving) mutable -> kj::Promise<void> {
        if (serving->meta) {
          if (reply_located_if_loaded(context)) return kj::READY_NOW;
          core_.metrics->served_inline.count(serving->meta->stored_size);
          if (session_->is_peer) core_.metrics->bytes_served_peer += serving->meta->stored_size;
          const ChunkMeta meta = *serving->meta;
          const std::byte* bytes = serving->bytes;
          reply_chunk(context, meta, bytes, kj::mv(serving));
          return kj::READY_NOW;
        }
        // Evicted, demoted or damaged meanwhile: a relay can ask its home, a home looks again
        // where the chunk went.
        const Error error = serving->meta.error();
        serving = nullptr;
        if (kind_ == Kind::kCopy) return serve_absent(context, rereads);
        if (kind_ == Kind::kRelayed && error.code == ErrorCode::kCorrupt) {
          return serve_from_home(context, rereads + 1);
        }
        if (error.code == ErrorCode::kNotFound && rereads < limits::kRereadsMax) {
          return serve(context, rereads + 1);
        }
        reply_error(context.getResults().initResult(), error);
        return kj::READY_NOW;
      });
}

// Sends what rests in memory from where it is: a copy would cost more than all the rest.
bool BlobService::Serving::view(BlobStore& store, BlobId id, uint32_t index) {
  auto found = store.view_chunk(id, index);
  if (!found) return false;
  meta = found->meta;
  bytes = found->bytes.data();
  pin = std::move(found->pin);
  return true;
}

kj::Promise<kj::Own<BlobService::Serving>> BlobService::load_to_serve(ReadContext context,
                                                                      uint32_t chunk_size,
                                                                      kj::Own<Serving> serving) {
  return session_->peer->acquire_load_room(chunk_size)
      .attach(core_.count_in(core_.metrics->serves_waiting))
      .then([this, context, chunk_size,
             &serving = *serving](kj::Own<CreditPool::Credit> room) mutable {
        serving.load_room = kj::mv(room);
        return core_.loads.load(id_, context.getParams().getIndex(), chunk_size);
      })
      .then([serving = kj::mv(serving)](kj::Own<LoadedChunk> loaded) mutable {
        serving->meta = loaded->meta;
        serving->bytes = loaded->bytes;
        serving->loaded = kj::mv(loaded);
        return kj::mv(serving);
      });
}

kj::Promise<void> BlobService::serve_from_home(ReadContext context, uint32_t rereads) {
  return relayed_->fetch(context.getParams().getIndex())
      .then([this, context, rereads](kj::Own<FetchedChunk> fetched) mutable -> kj::Promise<void> {
        if (fetched->error) {
          reply_error(context.getResults().initResult(), *fetched->error);
          return kj::READY_NOW;
        }
        if (fetched->end) {
          auto end = context.getResults().initResult().initEnd();
          end.setChunkCount(fetched->end->chunk_count);
          end.setSize(fetched->end->size);
          return kj::READY_NOW;
        }
        // From the store, so that a slow reader holds its own share of the serve reserve and not
        // the receive reserve, which all fetches need.
        if (fetched->kept && rereads < limits::kRereadsMax) {
          fetched = nullptr;
          return serve(context, rereads + 1);
        }
        core_.metrics->served_relay.count(fetched->meta.stored_size);
        const bigcast::ChunkMeta meta = fetched->meta;
        const std::byte* bytes = fetched->bytes.data();
        reply_chunk(context, meta, bytes, kj::mv(fetched));
        return kj::READY_NOW;
      });
}

// Reads through the descriptor cost less than the answer's way through the socket.
bool BlobService::reply_located_if_loaded(ReadContext& context) {
  if (!takes_located(context)) return false;
  const auto location = core_.store->peek(id_, context.getParams().getIndex());
  if (!location || location->presence != Presence::kMemfd) return false;
  reply_located(context, *location);
  return true;
}

bool BlobService::takes_located(ReadContext& context) const {
  return context.getParams().getMode() == rpc::ReadMode::PREFER_LOCATED &&
         session_->peer->is_unix();
}

void BlobService::reply_located(ReadContext& context, const Location& location) {
  core_.metrics->served_located.count(location.meta.stored_size);
  record(location.meta);
  auto located = context.getResults().initResult().initLocated();
  rpc::write(location.meta, located.initMeta());
  located.setGeneration(location.generation);
}

void BlobService::reply_end(ReadContext& context) {
  const auto stat = core_.store->stat(id_);
  if (!stat) {
    reply_error(context.getResults().initResult(), stat.error());
    return;
  }
  const uint64_t size = stat->size.value_or(0);
  auto end = context.getResults().initResult().initEnd();
  end.setChunkCount(static_cast<uint32_t>(chunks_in(size, stat->chunk_size)));
  end.setSize(size);
}

void BlobService::reply_chunk(ReadContext& context, const bigcast::ChunkMeta& meta,
                              const std::byte* padded_bytes, kj::Own<void> pin) {
  record(meta);
  const capnp::Data::Reader bytes(reinterpret_cast<const kj::byte*>(padded_bytes),
                                  whole_words(meta.stored_size));
  auto chunk = context.getResults(capnp::MessageSize{32, 0}).initResult().initChunk();
  rpc::reply_external(chunk, bytes, kj::mv(pin));
  rpc::write(meta, chunk.initMeta());
}

kj::Promise<void> BlobService::memory(MemoryContext context) {
  if (!session_->peer->is_unix()) return kj::READY_NOW;
  const auto file = core_.store->memory_file(id_);
  if (!file) return kj::READY_NOW;  // nothing in memory: no capability
  auto results = context.getResults();
  results.setFile(kj::heap<MemoryFileService>(file->fd));
  results.setGeneration(file->generation);
  return kj::READY_NOW;
}

kj::Promise<void> BlobService::map(MapContext context) {
  context.allowCancellation();
  session_->heard();
  if (kind_ == Kind::kCopy) {
    reply_error(context.getResults().initResult(),
                {ErrorCode::kNotMappable, "map: not of another node's copy"});
    return kj::READY_NOW;
  }
  auto mapper = kj::heap<BlobMapper>(core_, *session_->peer, *live_, relayed_.get(), reader_.get());
  auto mapping = mapper->run();
  return mapping.attach(kj::mv(mapper), core_.count_running())
      .then([this, context](Result<BlobMapper::Mapped> mapped) mutable {
        auto result = context.getResults().initResult();
        if (!mapped) {
          reply_error(result, mapped.error());
          return;
        }
        core_.metrics->served_mapped.bytes += mapped->size;
        if (const auto stat = core_.store->stat(id_)) {
          core_.metrics->served_mapped.chunks += stat->chunk_count;
          record_mapped(mapped->size, stat->chunk_size);
        }
        auto out = result.initMapped();
        out.setFile(kj::heap<MemoryFileService>(mapped->file.release()));
        out.setSize(mapped->size);
        rpc::write(core_.mappings->add(kj::mv(mapped->process), session_->name_space, id_,
                                       std::move(mapped->hold)),
                   out.initToken());
      });
}

kj::Promise<void> BlobService::follow(FollowContext context) {
  session_->heard();
  auto follower = [&]() -> Result<rpc::Follower::Client> {
    if (live_->ended()) return tl::unexpected(*live_->ended());
    if (kind_ != Kind::kHome) return fail(ErrorCode::kInvalidArgument, "follow: only at the home");
    BIGCAST_ASSIGN(const BlobStat stat, core_.store->stat(id_));
    if (!live_->followers) live_->followers = std::make_unique<Followers>(core_, *live_, stat);
    std::optional<rpc::Address> address;
    if (auto at = rpc::read(context.getParams().getAt())) address = std::move(*at);
    return live_->followers->join(kj::addRef(*session_), std::move(address),
                                  context.getParams().getHeld());
  }();
  auto result = context.getResults().initResult();
  if (follower) {
    result.setFollower(kj::mv(*follower));
  } else {
    reply_error(result, follower.error());
  }
  return kj::READY_NOW;
}

kj::Promise<void> BlobService::watch(WatchContext context) {
  context.allowCancellation();
  if (live_->ended()) {
    context.getResults().setEvent(rpc::BlobEvent::REMOVED);
    return kj::READY_NOW;
  }
  if (live_->drops() != drops_seen_) {
    drops_seen_ = live_->drops();
    context.getResults().setEvent(rpc::BlobEvent::DROP_COPIES);
    return kj::READY_NOW;
  }
  return live_->watch_event().then([this, context]() mutable { return watch(context); });
}

}  // namespace bigcast
