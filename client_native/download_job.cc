#include "client_native/download_job.h"

#include <kj/debug.h>

#include <algorithm>
#include <array>

namespace bigcast {

namespace {

using Span = std::span<const std::byte>;

uint32_t chunk_count_of(uint64_t size, uint32_t chunk_size) {
  return static_cast<uint32_t>((size + chunk_size - 1) / chunk_size);
}

// Which of several sources' failures says most about the blob.
size_t rank(const Error& error) {
  constexpr std::array kOrder = {ErrorCode::kAborted, ErrorCode::kCorrupt,
                                 ErrorCode::kUnauthenticated, ErrorCode::kPermissionDenied,
                                 ErrorCode::kNotFound};
  return static_cast<size_t>(std::find(kOrder.begin(), kOrder.end(), error.code) - kOrder.begin());
}

}  // namespace

DownloadJob::DownloadJob(Nodes& nodes, rpc::BlobRefData ref)
    : nodes_(nodes),
      ref_(std::move(ref)),
      buffers_(std::make_shared<ChunkBuffers>(encode_bound(ref_.chunk_size))),
      root_digest_(ref_.root_digest) {
  const ClientTargets& targets = nodes_.targets();
  if (targets.local_node) add_source(*targets.local_node, Kind::kLocal);
  for (const auto& home : ref_.homes) add_source(home, Kind::kHome);
  for (const auto& server : targets.servers) add_source(server, Kind::kServer);
  const bool sealed = root_digest_ != Digest128{};
  if (sealed && ref_.size) end_ = {chunk_count_of(*ref_.size, ref_.chunk_size), *ref_.size};
}

void DownloadJob::add_source(const rpc::Address& address, Kind kind) {
  const auto same = [&](const Source& source) { return source.address == address; };
  if (std::none_of(sources_.begin(), sources_.end(), same)) {
    sources_.push_back({address, kind, 0, std::nullopt});
  }
}

void DownloadJob::adopt(const rpc::Address& address, kj::Own<NodeSession> session,
                        rpc::OpenResult::Opened::Reader opened) {
  add_source(address, Kind::kServer);
  const bool local_first = sources_.front().kind == Kind::kLocal;
  if (local_first && sources_.front().address != address) return;
  const auto same = [&](const Source& source) { return source.address == address; };
  source_ =
      static_cast<size_t>(std::find_if(sources_.begin(), sources_.end(), same) - sources_.begin());
  if (auto used = use_opened(kj::mv(session), opened); !used) leave_source(used.error());
}

kj::Promise<Result<void>> DownloadJob::start() {
  if (error_) return Result<void>(tl::unexpected(*error_));
  if (open_ != nullptr) return Result<void>();
  if (!switching_) {
    switching_ = true;
    switch_ = kj::evalLater([this]() { return try_source(); }).eagerlyEvaluate(nullptr);
  }
  return change().then([this]() { return start(); });
}

std::optional<uint64_t> DownloadJob::size() const {
  if (end_) return end_->size;
  return ref_.size;
}

kj::Promise<Result<Span>> DownloadJob::next() {
  current_.reset();
  if (error_) return Result<Span>(tl::unexpected(*error_));
  if (finished_) return Result<Span>(Span());
  if (end_ && next_index_ == end_->chunk_count) return finish();
  const auto found = slots_.find(next_index_);
  if (found != slots_.end() && found->second.chunk) {
    Slot slot = std::move(found->second);
    slots_.erase(found);
    return deliver(std::move(slot));
  }
  fill();
  return change().then([this]() { return next(); });
}

Result<Span> DownloadJob::deliver(Slot slot) {
  current_ = std::move(*slot.chunk);
  ++next_index_;
  delivered_digest_.add(current_->meta.digest);
  stats_.raw_bytes += current_->meta.raw_size;
  stats_.stored_bytes += current_->meta.stored_size;
  ++stats_.chunks;
  fill();
  return current_->raw;
}

void DownloadJob::fill() {
  if (switching_ || open_ == nullptr || error_) return;
  const uint32_t limit = std::min(next_index_ + limits::kDownloadWindowChunks,
                                  end_ ? end_->chunk_count : limits::kChunksPerBlobMax + 1);
  for (uint32_t index = next_index_; index < limit; ++index) {
    if (!slots_.contains(index)) slots_.emplace(index, fetch(index));
  }
}

DownloadJob::Slot DownloadJob::fetch(uint32_t index) {
  Slot slot;
  slot.task =
      KJ_ASSERT_NONNULL(open_)
          ->fetch(index, end_ ? WaitsFor::kNode : WaitsFor::kWriter)
          .then([this, index](Result<FetchedChunk> chunk) { on_fetched(index, std::move(chunk)); })
          .eagerlyEvaluate(
              [this](kj::Exception&& exception) { leave_source(rpc::to_error(exception)); });
  return slot;
}

void DownloadJob::on_fetched(uint32_t index, Result<FetchedChunk> chunk) {
  if (switching_) return;  // from a source that was left; its slot is about to go
  if (!chunk) return leave_source(chunk.error());
  if (chunk->end) {
    if (auto valid = check_end(index, *chunk->end); !valid) return leave_source(valid.error());
    end_ = chunk->end;
    return notify();
  }
  if (auto valid = check_size(chunk->meta); !valid) return leave_source(valid.error());
  for (Source& source : sources_) source.failures = 0;
  stats_.chunks_reread += chunk->rereads;
  if (chunk->located) ++stats_.chunks_located;
  if (sources_[source_].kind == Kind::kLocal) stats_.through_local_node = true;
  slots_[index].chunk = std::move(*chunk);
  notify();
}

Result<void> DownloadJob::check_end(uint32_t index, const FetchedChunk::End& end) const {
  const bool consistent = end.size <= limits::kBlobSizeMax && index >= end.chunk_count &&
                          end.chunk_count >= next_index_ &&
                          chunk_count_of(end.size, ref_.chunk_size) == end.chunk_count &&
                          (!ref_.size || *ref_.size == end.size) &&
                          (!end_ || end_->size == end.size);
  if (consistent) return {};
  return fail(ErrorCode::kCorrupt, sources_[source_].address.to_string() +
                                       ": says that the blob ends where it does not");
}

Result<void> DownloadJob::check_size(const ChunkMeta& meta) const {
  const uint64_t offset = uint64_t{meta.index} * ref_.chunk_size;
  const auto total = size();
  const uint64_t expected =
      total ? std::min<uint64_t>(ref_.chunk_size, *total > offset ? *total - offset : 0)
            : meta.raw_size;
  if (meta.raw_size == expected) return {};
  return fail(ErrorCode::kCorrupt, sources_[source_].address.to_string() + ": chunk " +
                                       std::to_string(meta.index) + " has the wrong size");
}

// ---- Sources ----

void DownloadJob::leave_source(Error error) {
  if (switching_ || error_) return;
  switching_ = true;
  // Later, not now: this may run inside one of the promises that are to be cancelled.
  switch_ = kj::evalLater([this, error = std::move(error)]() mutable {
              return try_next_source(std::move(error));
            }).eagerlyEvaluate(nullptr);
}

kj::Promise<void> DownloadJob::try_next_source(Error error) {
  KJ_IF_MAYBE (opened, open_) {
    if (error.code == ErrorCode::kDeadlineExceeded) nodes_.forget_bulk((*opened)->session());
  }
  open_ = nullptr;
  for (auto slot = slots_.begin(); slot != slots_.end();) {
    const bool keep = slot->second.chunk.has_value();
    if (!keep) ++stats_.chunks_reread;
    slot = keep ? std::next(slot) : slots_.erase(slot);
  }
  Source& left = sources_[source_];
  ++left.failures;
  left.error = std::move(error);
  const auto next = next_source();
  if (!next) {
    give_up();
    return kj::READY_NOW;
  }
  source_ = *next;
  if (sources_[source_].failures == 0) return try_source();
  return nodes_.loop()
      .timer()
      .afterDelay(limits::kSourceRetryDelayMs * kj::MILLISECONDS)
      .then([this]() { return try_source(); });
}

kj::Promise<void> DownloadJob::try_source() {
  return open_source().then([this](Result<void> opened) -> kj::Promise<void> {
    if (!opened) return try_next_source(opened.error());
    switching_ = false;
    fill();
    notify();
    return kj::READY_NOW;
  });
}

// A source that could not be reached gets a second chance; one that answered wrongly does not.
std::optional<size_t> DownloadJob::next_source() const {
  if (sources_[source_].error->code == ErrorCode::kAborted) return std::nullopt;
  for (uint32_t failures = 0; failures < limits::kSourceTriesMax; ++failures) {
    for (size_t step = 1; step <= sources_.size(); ++step) {
      const size_t candidate = (source_ + step) % sources_.size();
      const Source& source = sources_[candidate];
      const bool hopeless = failures > 0 && source.error->code != ErrorCode::kUnavailable;
      if (source.failures == failures && !hopeless) return candidate;
    }
  }
  return std::nullopt;
}

void DownloadJob::give_up() {
  const Error* worst = nullptr;
  for (const Source& source : sources_) {
    if (source.error && source.failures > 0 && (!worst || rank(*source.error) < rank(*worst))) {
      worst = &*source.error;
    }
  }
  set_error(*worst);
}

kj::Promise<Result<DownloadJob::OpenResponse>> DownloadJob::ask_open(kj::Own<NodeSession> session) {
  auto request = session->session.openRequest();
  if (sources_[source_].kind == Kind::kHome) {
    rpc::write(ref_.id, request.initTarget().initHomeId());
  } else {
    rpc::write(ref_, request.initTarget().initRef());
  }
  return bounded<OpenResponse>(
      nodes_.loop(), *session, nodes_.targets().timeout_ms,
      request.send().then([](OpenResponse&& response) -> Result<OpenResponse> {
        if (response.getResult().isError()) {
          return tl::unexpected(rpc::read(response.getResult().getError()));
        }
        return kj::mv(response);
      }));
}

kj::Promise<Result<void>> DownloadJob::open_source() {
  return nodes_.bulk_of(sources_[source_].address)
      .then([this](Result<kj::Own<NodeSession>> session) -> kj::Promise<Result<void>> {
        if (!session) return Result<void>(tl::unexpected(session.error()));
        return ask_open(kj::addRef(**session))
            .then([this, session = kj::mv(*session)](
                      Result<OpenResponse> response) mutable -> Result<void> {
              if (!response) return tl::unexpected(response.error());
              return use_opened(kj::mv(session), response->getResult().getOpened());
            });
      });
}

Result<void> DownloadJob::use_opened(kj::Own<NodeSession> session,
                                     rpc::OpenResult::Opened::Reader opened) {
  BIGCAST_ASSIGN(const auto ref, rpc::read(opened.getInfo().getRef()));
  if (ref.id != ref_.id || ref.chunk_size != ref_.chunk_size) {
    return fail(ErrorCode::kCorrupt, session->address + ": opened another blob");
  }
  if (root_digest_ == Digest128{}) root_digest_ = ref.root_digest;
  SourceOptions options{&nodes_.loop(), nodes_.targets().timeout_ms, nodes_.targets().local_reads,
                        ref_.chunk_size, buffers_};
  open_ = kj::refcounted<BlobSource>(std::move(options), kj::mv(session), opened.getBlob());
  return {};
}

// ---- The end ----

kj::Promise<Result<Span>> DownloadJob::finish() {
  if (root_digest_ == Digest128{}) {
    return learn_root_digest().then([this]() { return next(); });
  }
  if (stats_.raw_bytes != end_->size || delivered_digest_.finish() != root_digest_) {
    set_error(Error{ErrorCode::kCorrupt, "blob " + ref_.id.to_string() +
                                             ": what was read does not match its root digest"});
    return Result<Span>(tl::unexpected(*error_));
  }
  finished_ = true;
  slots_.clear();
  open_ = nullptr;
  return Result<Span>(Span());
}

// The ref was made before the blob was sealed: ask again now that it is.
kj::Promise<void> DownloadJob::learn_root_digest() {
  if (switching_) return change();
  auto& source = *KJ_ASSERT_NONNULL(open_);
  return ask_open(kj::addRef(source.session()))
      .then([this](Result<OpenResponse> response) -> kj::Promise<void> {
        if (switching_ || error_) return kj::READY_NOW;
        if (!response) {
          leave_source(response.error());
          return change();
        }
        auto ref = rpc::read(response->getResult().getOpened().getInfo().getRef());
        if (ref && ref->root_digest != Digest128{}) {
          root_digest_ = ref->root_digest;
          return kj::READY_NOW;
        }
        leave_source(Error{
            ErrorCode::kUnavailable,
            sources_[source_].address.to_string() + ": does not know the blob's root digest yet"});
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
