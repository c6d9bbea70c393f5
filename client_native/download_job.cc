#include "client_native/download_job.h"

#include <algorithm>

namespace bigcast {

namespace {

using Span = std::span<const std::byte>;

std::shared_ptr<const ChunkSeal> seal_of(const Nodes& nodes, const rpc::BlobRefData& ref) {
  if (ref.key_id.is_zero()) return nullptr;
  return std::make_shared<const ChunkSeal>(nodes.targets().chunk_secret, ref.key_id);
}

Error begins_too_late(const ByteRange& range) {
  return {ErrorCode::kInvalidArgument,
          "range: the blob has no byte " + std::to_string(range.first)};
}

}  // namespace

DownloadJob::DownloadJob(Nodes& nodes, rpc::BlobRefData ref, rpc::ReadOrder order,
                         std::optional<ByteRange> range)
    : ref_(std::move(ref)),
      in_order_(order != rpc::ReadOrder::RESIDENT_FIRST),
      buffers_(std::make_shared<ChunkBuffers>(encode_bound(ref_.chunk_size))),
      seal_(seal_of(nodes, ref_)),
      root_digest_(ref_.root_digest) {
  const uint32_t count = ref_.stripe ? 1 : ref_.stripes;
  StripeSources::Reader& reader = *this;
  for (uint32_t i = 0; i < count; i++) {
    stripes_.push_back(
        std::make_unique<StripeSources>(nodes, ref_.of_stripe(i), order, buffers_, seal_, reader));
  }
  const bool sealed = root_digest_ != Digest128{};
  if (sealed && ref_.size) {
    end_ = {static_cast<uint32_t>(chunks_in(*ref_.size, ref_.chunk_size)), *ref_.size};
  }
  if (range) set_range(*range);
}

uint32_t DownloadJob::raw_chunk_size() const {
  return ref_.chunk_size - (seal_ ? static_cast<uint32_t>(kSealOverhead) : 0);
}

void DownloadJob::set_range(const ByteRange& range) {
  range_ = range;
  const auto total = size();
  if (range.last > 0 && !total) {
    return set_error({ErrorCode::kInvalidArgument,
                      "range: the last bytes of a blob that is still written are not known yet"});
  }
  if (total) range_ = range.from_front(*total);
  first_chunk_ = static_cast<uint32_t>(
      std::min<uint64_t>(range_->first / raw_chunk_size(), limits::kChunksPerBlobMax));
  ask_from_ = first_chunk_;
}

// While nobody knows where the blob ends, the first chunk tells (deliver).
Result<void> DownloadJob::check_range() {
  const auto total = size();
  if (!range_ || !total || range_->first < *total) return {};
  set_error(begins_too_late(*range_));
  return tl::unexpected(*error_);
}

std::optional<uint32_t> DownloadJob::end_chunk() const {
  constexpr uint64_t kMost = limits::kChunksPerBlobMax + 1;
  const auto end = end_ ? std::optional(end_->chunk_count) : std::nullopt;
  if (!range_ || range_->end >= kMost * raw_chunk_size()) return end;
  const auto last = static_cast<uint32_t>(chunks_in(range_->end, raw_chunk_size()));
  return end ? std::min(*end, last) : last;
}

void DownloadJob::adopt(const rpc::Address& address, kj::Own<NodeSession> session,
                        rpc::OpenResult::Opened::Reader opened) {
  stripes_.front()->adopt(address, kj::mv(session), opened);
}

kj::Promise<Result<void>> DownloadJob::start() {
  if (error_) return Result<void>(tl::unexpected(*error_));
  for (const auto& stripe : stripes_) stripe->start();
  if (std::ranges::all_of(stripes_, [](const auto& stripe) { return stripe->is_open(); })) {
    return Result<void>();
  }
  return change().then([this]() { return start(); });
}

std::optional<uint64_t> DownloadJob::size() const {
  const auto size = end_ ? std::optional(end_->size) : ref_.size;
  return size && seal_ ? unsealed_size(*size, ref_.chunk_size) : size;
}

TransferStats DownloadJob::stats() const {
  TransferStats stats = stats_;
  if (seal_) stats.chunks_forged = seal_->refused();
  return stats;
}

kj::Promise<Result<Span>> DownloadJob::next() {
  current_.reset();
  if (error_) return Result<Span>(tl::unexpected(*error_));
  if (finished_) return Result<Span>(Span());
  if (auto valid = check_range(); !valid) return Result<Span>(tl::unexpected(valid.error()));
  if (const auto end = end_chunk(); end && first_chunk_ + stats_.chunks >= *end) return finish();
  if (const auto found = ready_slot(); found != slots_.end()) {
    Slot slot = std::move(found->second);
    slots_.erase(found);
    return deliver(std::move(slot));
  }
  fill();
  return change().then([this]() { return next(); });
}

std::map<uint32_t, DownloadJob::Slot>::iterator DownloadJob::ready_slot() {
  if (in_order_) {
    const auto next = slots_.find(first_chunk_ + stats_.chunks);
    return next != slots_.end() && next->second.chunk ? next : slots_.end();
  }
  return std::ranges::find_if(slots_,
                              [](const auto& slot) { return slot.second.chunk.has_value(); });
}

Result<Span> DownloadJob::deliver(Slot slot) {
  current_ = std::move(*slot.chunk);
  const uint32_t index = current_->meta.index;
  offset_ = uint64_t{index} * raw_chunk_size();
  if (index >= delivered_.size()) {
    delivered_.resize(index + 1);
    digests_.resize(index + 1);
  }
  delivered_[index] = true;
  digests_[index] = current_->meta.digest;
  const Span wanted = wanted_of(current_->raw);
  if (wanted.empty()) {
    set_error(begins_too_late(*range_));
    return tl::unexpected(*error_);
  }
  stats_.raw_bytes += wanted.size();
  stats_.stored_bytes += current_->meta.stored_size;
  ++stats_.chunks;
  fill();
  return wanted;
}

// Moves offset_ to where they begin.
Span DownloadJob::wanted_of(Span chunk) {
  if (!range_) return chunk;
  const uint64_t skipped = range_->first > offset_ ? range_->first - offset_ : 0;
  const Span rest = chunk.subspan(std::min<uint64_t>(skipped, chunk.size()));
  offset_ += skipped;
  return rest.first(std::min<uint64_t>(rest.size(), range_->end - offset_));
}

void DownloadJob::fill() {
  while (!error_ && slots_.size() < limits::kDownloadWindowChunks) {
    const auto index = next_to_ask();
    if (!index) return;
    slots_.emplace(*index, fetch(*index));
  }
}

bool DownloadJob::is_taken(uint32_t index) const {
  return slots_.contains(index) || (index < delivered_.size() && delivered_[index]);
}

std::optional<uint32_t> DownloadJob::next_to_ask() {
  for (auto at = resident_.begin(); at != resident_.end(); at = resident_.erase(at)) {
    const bool wanted = *at >= first_chunk_ && *at < end_chunk().value_or(UINT32_MAX);
    if (wanted && stripe_of(*at).is_open() && !is_taken(*at)) return *at;
  }
  while (is_taken(ask_from_)) ++ask_from_;
  // Other stripes go on while one has no source.
  const uint32_t limit = std::min(ask_from_ + limits::kDownloadWindowChunks,
                                  end_chunk().value_or(limits::kChunksPerBlobMax + 1));
  for (uint32_t index = ask_from_; index < limit; ++index) {
    if (stripe_of(index).is_open() && !is_taken(index)) return index;
  }
  return std::nullopt;
}

DownloadJob::Slot DownloadJob::fetch(uint32_t index) {
  Slot slot;
  StripeSources& stripe = stripe_of(index);
  slot.task =
      stripe.fetch(index, end_ ? WaitsFor::kNode : WaitsFor::kWriter)
          .then([this, index](Result<FetchedChunk> chunk) { on_fetched(index, std::move(chunk)); })
          .eagerlyEvaluate(
              [&stripe](kj::Exception&& exception) { stripe.leave(rpc::to_error(exception)); });
  return slot;
}

void DownloadJob::on_fetched(uint32_t index, Result<FetchedChunk> chunk) {
  StripeSources& stripe = stripe_of(index);
  if (!stripe.is_open()) return;  // from a source that was left; its slot is about to go
  if (!chunk) return stripe.leave(chunk.error());
  if (chunk->end) {
    if (auto valid = check_end(index, *chunk->end); !valid) return stripe.leave(valid.error());
    end_ = chunk->end;
    return notify();
  }
  if (auto valid = check_size(chunk->meta); !valid) return stripe.leave(valid.error());
  stripe.progressed();
  stats_.chunks_reread += chunk->rereads;
  if (chunk->located) ++stats_.chunks_located;
  if (stripe.is_local()) stats_.through_local_node = true;
  slots_[index].chunk = std::move(*chunk);
  notify();
}

Result<void> DownloadJob::check_end(uint32_t index, const FetchedChunk::End& end) const {
  const bool consistent = end.size <= limits::kBlobSizeMax && index >= end.chunk_count &&
                          end.chunk_count >= delivered_.size() &&
                          chunks_in(end.size, ref_.chunk_size) == end.chunk_count &&
                          (!ref_.size || *ref_.size == end.size) &&
                          (!end_ || end_->size == end.size);
  if (consistent) return {};
  return fail(ErrorCode::kCorrupt,
              stripe_of(index).address() + ": says that the blob ends where it does not");
}

Result<void> DownloadJob::check_size(const ChunkMeta& meta) const {
  const uint64_t offset = uint64_t{meta.index} * ref_.chunk_size;
  const auto total = end_ ? std::optional(end_->size) : ref_.size;
  const uint64_t expected =
      total ? std::min<uint64_t>(ref_.chunk_size, *total > offset ? *total - offset : 0)
            : meta.raw_size;
  if (meta.raw_size == expected) return {};
  return fail(ErrorCode::kCorrupt, stripe_of(meta.index).address() + ": chunk " +
                                       std::to_string(meta.index) + " has the wrong size");
}

// ---- Sources ----

void DownloadJob::source_left(StripeSources& stripe) {
  for (auto slot = slots_.begin(); slot != slots_.end();) {
    const bool keep = slot->second.chunk.has_value() || &stripe_of(slot->first) != &stripe;
    if (!keep) ++stats_.chunks_reread;
    if (!keep) ask_from_ = std::min(ask_from_, slot->first);
    slot = keep ? std::next(slot) : slots_.erase(slot);
  }
}

void DownloadJob::source_opened(const rpc::BlobRefData& ref, capnp::Data::Reader resident) {
  if (!in_order_) {
    const auto chunks = std::min<size_t>(resident.size() * 8, limits::kChunksPerBlobMax);
    for (uint32_t index = 0; index < chunks; ++index) {
      if ((resident[index / 8] >> index % 8 & 1) != 0) resident_.insert(index);
    }
  }
  if (root_digest_ == Digest128{}) root_digest_ = ref.root_digest;
  fill();
  notify();
}

void DownloadJob::sources_failed(Error error) { set_error(std::move(error)); }

// ---- The end ----

kj::Promise<Result<Span>> DownloadJob::finish() {
  if (!range_) return finish_whole();
  finished_ = true;
  slots_.clear();
  return Result<Span>(Span());
}

kj::Promise<Result<Span>> DownloadJob::finish_whole() {
  if (root_digest_ == Digest128{}) {
    return learn_root_digest().then([this]() { return next(); });
  }
  RootDigest delivered;
  for (const Digest128& digest : digests_) delivered.add(digest);
  const uint64_t seals = seal_ ? uint64_t{kSealOverhead} * stats_.chunks : 0;
  if (stats_.raw_bytes + seals != end_->size || delivered.finish() != root_digest_) {
    set_error(Error{ErrorCode::kCorrupt, "blob " + ref_.id.to_string() +
                                             ": what was read does not match its root digest"});
    return Result<Span>(tl::unexpected(*error_));
  }
  finished_ = true;
  slots_.clear();
  return Result<Span>(Span());
}

// The ref was made before the blob was sealed: ask again now that it is.
kj::Promise<void> DownloadJob::learn_root_digest() {
  StripeSources& first = *stripes_.front();
  if (!first.is_open()) return change();
  return first.ask_ref().then([this, &first](Result<rpc::BlobRefData> ref) -> kj::Promise<void> {
    if (!first.is_open() || error_) return kj::READY_NOW;
    if (ref && ref->root_digest != Digest128{}) {
      root_digest_ = ref->root_digest;
      return kj::READY_NOW;
    }
    first.leave(ref ? Error{ErrorCode::kUnavailable,
                            first.address() + ": does not know the blob's root digest yet"}
                    : ref.error());
    return change();
  });
}

// ---- Waiting ----

kj::Promise<void> DownloadJob::change() {
  auto waiter = kj::newPromiseAndFulfiller<void>();
  changed_ = kj::mv(waiter.fulfiller);
  return kj::mv(waiter.promise);
}

void DownloadJob::notify() {
  KJ_IF_MAYBE (waiter, changed_) {
    auto fulfiller = kj::mv(*waiter);
    changed_ = nullptr;
    fulfiller->fulfill();
  }
}

void DownloadJob::set_error(Error error) {
  if (!error_) error_ = std::move(error);
  notify();
}

}  // namespace bigcast
