#include "server/upload.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/log.h"
#include "base/pages.h"
#include "server/announcements.h"
#include "server/copy_maker.h"
#include "server/replicas.h"

namespace bigcast {
namespace {

std::span<const std::byte> as_bytes(capnp::Data::Reader data, size_t size) {
  return {reinterpret_cast<const std::byte*>(data.begin()), size};
}

}  // namespace

UploadService::UploadService(kj::Own<SessionState> session, const BlobStat& stat,
                             uint64_t announce_from)
    : session_(kj::mv(session)),
      core_(*session_->core),
      live_(core_.live->get(stat.id)),
      id_(stat.id),
      name_(stat.name),
      chunk_size_(stat.chunk_size),
      size_(stat.size),
      announce_from_(stat.stripe.index == 0 ? announce_from : 0) {  // for all stripes
  live_->has_writer = true;
  session_->uploads++;
  core_.uploads.insert(this);
  core_.metrics->uploads_started++;
  // The other stripes are yet to be created; they are there when the first chunk comes.
  if (stat.stripe.count == 1) announce(size_.value_or(0));
}

UploadService::~UploadService() noexcept(false) {
  core_.uploads.erase(this);
  session_->uploads--;
  if (!sealed_ && !live_->ended()) {
    abort({ErrorCode::kAborted, fmt::format("the writer of '{}' gave up", name_)});
  }
  if (copies_) core_.replicas->not_making(id_);
}

kj::Promise<Result<void>> UploadService::start_copies(const BlobStat& stat,
                                                      const rpc::BlobRefData& whole, bool replace) {
  std::vector<rpc::Address> candidates;
  for (const auto& home : whole.of_stripe(stat.stripe.index).homes) {
    if (!core_.is_myself(home)) candidates.push_back(home);
  }
  const auto others = static_cast<uint32_t>(candidates.size());
  candidates.insert(candidates.end(), whole.spares.begin(), whole.spares.end());
  const auto purpose = replace ? CopyMaker::For::kUploadThatReplaces : CopyMaker::For::kUpload;
  copies_ = std::make_shared<CopyMaker>(core_, stat, whole, std::move(candidates), others, purpose);
  core_.replicas->making(id_);
  return copies_->start().attach(std::shared_ptr(copies_));
}

kj::Promise<Result<void>> UploadService::seal_copies(uint64_t size, uint32_t chunk_count,
                                                     Digest128 root) {
  if (!copies_ || sealed_) return Result<void>();
  return copies_->seal({size, chunk_count, root}).attach(std::shared_ptr(copies_));
}

void UploadService::announce(uint64_t size) {
  if (announce_from_ == 0 || size < announce_from_) return;
  announce_from_ = 0;
  if (const auto stat = core_.store->stat(id_)) core_.announcements->announce(*stat);
}

void UploadService::give_up(const Error& reason) {
  granted_.clear();
  core_.metrics->uploads_aborted++;
  core_.remove_blob(id_, reason);
}

void UploadService::abort(const Error& reason) {
  give_up(reason);
  if (copies_) core_.background(copies_->discard().attach(std::shared_ptr(copies_)));
}

std::optional<Error> UploadService::ended() const {
  if (live_->ended()) return live_->ended();
  if (sealed_) return Error{ErrorCode::kInvalidArgument, "the blob is sealed"};
  return std::nullopt;
}

void UploadService::check_progress(TimePoint now) {
  if (sealed_ || live_->ended() || granted_.empty()) return;
  const uint64_t bytes = session_->peer->bytes_received();
  if (bytes - progress_bytes_ >= limits::kProgressBytesMin && !is_overtaken()) {
    progress_at_ = now;
    progress_bytes_ = bytes;
  }
  const TimePoint since = std::max(granted_.front().at, progress_at_);
  if (now - since > std::chrono::milliseconds(limits::kProgressTimeoutMs)) {
    abort({ErrorCode::kAborted, fmt::format("the writer of '{}' asked for room and did not use it "
                                            "for {} ms",
                                            name_, limits::kProgressTimeoutMs)});
  }
}

bool UploadService::is_overtaken() const {
  const uint64_t passed = session_->peer->bytes_received() - granted_.front().bytes_received;
  return passed > limits::kOvertakenBytesMax;
}

Result<void> UploadService::check_credit(uint32_t bytes) const {
  if (const auto error = ended()) return fail(error->code, error->message);
  if (bytes == 0 || bytes > chunk_size_) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("credit: bytes must be 1 to {}, not {}", chunk_size_, bytes));
  }
  if (granted_.size() + credits_waiting_ >= limits::kCreditsPerUploadMax) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("credit: at most {} at once", limits::kCreditsPerUploadMax));
  }
  return {};
}

kj::Promise<void> UploadService::credit(CreditContext context) {
  context.allowCancellation();
  session_->heard();
  const uint32_t bytes = context.getParams().getBytes();
  if (auto checked = check_credit(bytes); !checked) {
    reply_void(context.getResults().initResult(), checked);
    return kj::READY_NOW;
  }
  credits_waiting_++;
  return reserve(bytes)
      .then([this, bytes](Result<void> reserved) -> kj::Promise<Result<void>> {
        if (!reserved) return reserved;
        return core_.credits->acquire(bytes).then(
            [this](kj::Own<CreditPool::Credit> credit) -> Result<void> {
              if (const auto error = ended()) return fail(error->code, error->message);
              const uint64_t received = session_->peer->bytes_received();
              if (granted_.empty()) progress_bytes_ = received;
              granted_.push_back({kj::mv(credit), core_.clock.now(), received});
              return {};
            });
      })
      .then([context](const Result<void>& result) mutable {
        reply_void(context.getResults().initResult(), result);
      })
      .attach(kj::defer([this] { credits_waiting_--; }), core_.time(core_.metrics->calls.credit));
}

kj::Promise<Result<void>> UploadService::reserve(uint64_t bytes) {
  if (size_) return Result<void>();  // reserved whole at create
  bytes_wanted_ += whole_pages(bytes);
  return reserve_until(core_.clock.now() +
                       std::chrono::milliseconds(limits::kReservationTimeoutMs));
}

Result<void> UploadService::reserve_now() {
  if (const auto error = ended()) return fail(error->code, error->message);
  if (bytes_wanted_ <= bytes_reserved_) return {};
  const uint64_t missing = bytes_wanted_ - bytes_reserved_;
  Result<void> result;
  const StoreUsage usage = core_.store->usage();
  // Small stores take small steps, so that one upload does not keep all others out; and when there
  // is no room for a whole step there may be for a smaller one.
  const uint64_t budget = usage.memory_budget + usage.disk_budget;
  for (uint64_t step = std::min(limits::kReservationStep, budget / 16);; step /= 4) {
    const uint64_t total = bytes_reserved_ + std::max(step, missing);
    result = core_.store->reserve(id_, total);
    if (result) {
      bytes_reserved_ = total;
      return result;
    }
    if (step <= missing || result.error().code != ErrorCode::kResourceExhausted) return result;
  }
}

kj::Promise<Result<void>> UploadService::reserve_until(TimePoint deadline) {
  auto result = reserve_now();
  if (result || result.error().code != ErrorCode::kResourceExhausted ||
      core_.clock.now() >= deadline) {
    return kj::mv(result);
  }
  return core_.loop.timer()
      .afterDelay(limits::kReservationRetryMs * kj::MILLISECONDS)
      .then([this, deadline] { return reserve_until(deadline); });
}

Result<bigcast::ChunkMeta> UploadService::check_put(rpc::Upload::PutParams::Reader params) {
  if (const auto error = ended()) return fail(error->code, error->message);
  BIGCAST_ASSIGN(const bigcast::ChunkMeta meta, rpc::read(params.getMeta(), chunk_size_));
  const uint64_t data_size = params.getData().size();
  // Like a read's answer it may be padded to a multiple of 8.
  if (data_size < meta.stored_size || data_size - meta.stored_size >= 8) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk {}: {} bytes came, its meta says {}", meta.index, data_size,
                            meta.stored_size));
  }
  const uint64_t end = uint64_t{meta.index} * chunk_size_ + meta.raw_size;
  const uint64_t end_max = size_.value_or(limits::kBlobSizeMax);
  if (end > end_max) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("chunk {}: ends at {}, beyond the blob's {} bytes", meta.index, end, end_max));
  }
  const bool is_short = meta.raw_size < chunk_size_;
  const bool after_short = short_chunk_ && meta.index > *short_chunk_;
  const bool second_short = is_short && short_chunk_ && meta.index != *short_chunk_;
  if (after_short || second_short || (is_short && meta.index < index_max_)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk {}: only the last chunk may be short", meta.index));
  }
  return meta;
}

// The smallest credit that is enough: sizes differ when several chunks are on their way.
Result<kj::Own<CreditPool::Credit>> UploadService::use_credit(uint32_t bytes) {
  auto best = granted_.end();
  for (auto it = granted_.begin(); it != granted_.end(); ++it) {
    if (it->credit->bytes() < bytes) continue;
    if (best == granted_.end() || it->credit->bytes() < best->credit->bytes()) best = it;
  }
  if (best == granted_.end()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("put: {} bytes without credit for them", bytes));
  }
  if (!is_overtaken()) progress_at_ = core_.clock.now();
  auto credit = kj::mv(best->credit);
  granted_.erase(best);
  return credit;
}

kj::Promise<void> UploadService::put(PutContext context) {
  // Never cancelled: the pool reads the bytes straight from the call's message.
  session_->heard();
  auto meta = check_put(context.getParams());
  if (!meta) {
    reply_void(context.getResults().initResult(), fail(meta.error().code, meta.error().message));
    return kj::READY_NOW;
  }
  auto credit = use_credit(meta->stored_size);
  if (!credit) {
    reply_void(context.getResults().initResult(),
               fail(credit.error().code, credit.error().message));
    return kj::READY_NOW;
  }
  index_max_ = std::max(index_max_, meta->index);
  if (meta->raw_size < chunk_size_) short_chunk_ = meta->index;
  announce(size_.value_or(uint64_t{meta->index} * chunk_size_ + meta->raw_size));
  const auto stored = as_bytes(context.getParams().getData(), meta->stored_size);
  return core_
      .put_on_pool([store = core_.store, id = id_, meta = *meta, stored] {
        return store->put_chunk(id, meta, stored);
      })
      .then([this, context, meta = *meta, running = core_.count_running(),
             timing = core_.time(core_.metrics->calls.put),
             credit = kj::mv(*credit)](Result<void> result) mutable {
        if (result) {
          core_.metrics->received[static_cast<size_t>(meta.codec)].count(meta.stored_size);
          live_->chunk_came(meta.index);
          core_.make_room_ahead();
        } else if (result.error().code == ErrorCode::kCorrupt) {
          core_.metrics->checksum_failures++;
        } else if (live_->ended()) {
          result = fail(live_->ended()->code, live_->ended()->message);
        }
        context.releaseParams();
        reply_void(context.getResults().initResult(), result);
      });
}

Result<void> UploadService::check_seal(uint64_t size, uint32_t chunk_count) const {
  if (live_->ended()) return fail(live_->ended()->code, live_->ended()->message);
  const uint64_t expected = chunks_in(size, chunk_size_);
  if (size > limits::kBlobSizeMax || chunk_count != expected) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("seal: {} bytes are {} chunks of {}, not {}", size, expected,
                            chunk_size_, chunk_count));
  }
  if (size_ && *size_ != size) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("seal: {} bytes, but {} were declared", size, *size_));
  }
  return {};
}

kj::Promise<void> UploadService::seal(SealContext context) {
  const uint64_t size = context.getParams().getSize();
  const uint32_t chunk_count = context.getParams().getChunkCount();
  if (auto checked = check_seal(size, chunk_count); !checked) {
    reply_error(context.getResults().initResult(), checked.error());
    return kj::READY_NOW;
  }
  const Digest128 given{context.getParams().getRootDigestHi(),
                        context.getParams().getRootDigestLo()};
  const auto root = given == Digest128{} ? std::nullopt : std::optional(given);
  return seal_copies(size, chunk_count, given)
      .then([this, size, chunk_count, root](Result<void> copied) -> kj::Promise<Result<BlobStat>> {
        if (!copied) return Result<BlobStat>(tl::unexpected<Error>(copied.error()));
        return core_.seal_on_pool(id_, [store = core_.store, id = id_, size, chunk_count, root] {
          return store->seal(id, size, chunk_count, root);
        });
      })
      .then([this](Result<BlobStat> sealed) -> kj::Promise<Result<BlobStat>> {
        if (live_->ended()) return fail_seal(*live_->ended());  // removed meanwhile
        if (!sealed) return fail_seal(sealed.error());
        return sealed;
      })
      .then([this, context, running = core_.count_running(),
             timing = core_.time(core_.metrics->calls.seal)](Result<BlobStat> sealed) mutable {
        if (!sealed) {
          session_->audit("put", name_, id_, size_, sealed.error().to_string());
          reply_error(context.getResults().initResult(), sealed.error());
          return;
        }
        if (!sealed_) {
          finish_seal(*sealed);
          session_->audit("put", name_, id_, sealed->size);
        }
        write_ref(core_, *sealed, context.getResults().initResult().initRef());
      });
}

kj::Promise<Result<BlobStat>> UploadService::fail_seal(Error error) {
  if (!copies_) return Result<BlobStat>(tl::unexpected<Error>(std::move(error)));
  if (!live_->ended()) give_up(error);
  return copies_->discard()
      .attach(std::shared_ptr(copies_))
      .then([error = std::move(error)]() -> Result<BlobStat> { return tl::unexpected(error); });
}

void UploadService::finish_seal(const BlobStat& stat) {
  sealed_ = true;
  if (copies_) {
    core_.replicas->keep(stat, copies_->homes());
    core_.replicas->not_making(id_);
  }
  copies_.reset();
  granted_.clear();
  core_.metrics->uploads_sealed++;
  live_->sealed();
  if (stat.replaced) {
    core_.remove_blob(*stat.replaced,
                      {ErrorCode::kNotFound, fmt::format("'{}' was replaced", name_)});
  }
}

}  // namespace bigcast
