#include "client_native/stripe_sources.h"

#include <kj/debug.h>

#include <algorithm>
#include <array>

namespace bigcast {

namespace {

// Which of several sources' failures says most about the blob.
size_t rank(const Error& error) {
  constexpr std::array kOrder = {ErrorCode::kAborted, ErrorCode::kCorrupt,
                                 ErrorCode::kUnauthenticated, ErrorCode::kPermissionDenied,
                                 ErrorCode::kNotFound};
  return static_cast<size_t>(std::find(kOrder.begin(), kOrder.end(), error.code) - kOrder.begin());
}

}  // namespace

StripeSources::StripeSources(Nodes& nodes, rpc::BlobRefData ref, rpc::ReadOrder order,
                             std::shared_ptr<ChunkBuffers> buffers,
                             std::shared_ptr<const ChunkSeal> seal, Reader& reader)
    : nodes_(nodes),
      ref_(std::move(ref)),
      order_(order),
      buffers_(std::move(buffers)),
      seal_(std::move(seal)),
      reader_(reader) {
  const ClientTargets& targets = nodes_.targets();
  if (targets.local_node) add_source(*targets.local_node, Kind::kLocal);
  for (const auto& home : nodes_.silent_last(ref_.homes)) add_source(home, Kind::kHome);
  for (const auto& server : targets.servers) add_source(server, Kind::kServer);
}

void StripeSources::add_source(const rpc::Address& address, Kind kind) {
  const auto same = [&](const Source& source) { return source.address == address; };
  if (std::none_of(sources_.begin(), sources_.end(), same)) {
    sources_.push_back({address, kind, 0, std::nullopt});
  }
}

void StripeSources::adopt(const rpc::Address& address, kj::Own<NodeSession> session,
                          rpc::OpenResult::Opened::Reader opened) {
  add_source(address, Kind::kServer);
  const bool local_first = sources_.front().kind == Kind::kLocal;
  if (local_first && sources_.front().address != address) return;
  const auto same = [&](const Source& source) { return source.address == address; };
  source_ =
      static_cast<size_t>(std::find_if(sources_.begin(), sources_.end(), same) - sources_.begin());
  if (auto used = use_opened(kj::mv(session), opened); !used) leave(used.error());
}

void StripeSources::start() {
  if (open_ != nullptr || switching_ || failed_) return;
  switching_ = true;
  switch_ = kj::evalLater([this]() { return try_source(); }).eagerlyEvaluate(nullptr);
}

kj::Promise<Result<FetchedChunk>> StripeSources::fetch(uint32_t index, WaitsFor waits_for) {
  return KJ_ASSERT_NONNULL(open_)->fetch(index, waits_for);
}

void StripeSources::progressed() {
  for (Source& source : sources_) source.failures = 0;
}

void StripeSources::leave(Error error) {
  if (switching_ || failed_) return;
  switching_ = true;
  // Later, not now: this may run inside one of the promises that are to be cancelled.
  switch_ = kj::evalLater([this, error = std::move(error)]() mutable {
              return try_next_source(std::move(error));
            }).eagerlyEvaluate(nullptr);
}

kj::Promise<void> StripeSources::try_next_source(Error error) {
  KJ_IF_MAYBE (opened, open_) {
    if (error.code == ErrorCode::kDeadlineExceeded) nodes_.forget_bulk((*opened)->session());
  }
  open_ = nullptr;
  reader_.source_left(*this);
  Source& left = sources_[source_];
  ++left.failures;
  left.error = std::move(error);
  const auto next = next_source();
  if (!next) {
    failed_ = true;
    reader_.sources_failed(worst_error());
    return kj::READY_NOW;
  }
  source_ = *next;
  if (sources_[source_].failures == 0) return try_source();
  return nodes_.loop()
      .timer()
      .afterDelay(limits::kSourceRetryDelayMs * kj::MILLISECONDS)
      .then([this]() { return try_source(); });
}

kj::Promise<void> StripeSources::try_source() {
  return open_source().then([this](Result<void> opened) -> kj::Promise<void> {
    if (!opened) return try_next_source(opened.error());
    return kj::READY_NOW;
  });
}

// A source that could not be reached gets a second chance; one that answered wrongly does not.
std::optional<size_t> StripeSources::next_source() const {
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

Error StripeSources::worst_error() const {
  const Error* worst = nullptr;
  for (const Source& source : sources_) {
    if (source.error && source.failures > 0 && (!worst || rank(*source.error) < rank(*worst))) {
      worst = &*source.error;
    }
  }
  return *worst;
}

kj::Promise<Result<StripeSources::OpenResponse>> StripeSources::ask_open(
    kj::Own<NodeSession> session, rpc::ReadOrder order) {
  auto request = session->session.openRequest();
  request.setOrder(order);
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

kj::Promise<Result<rpc::BlobRefData>> StripeSources::ask_ref() {
  auto& source = *KJ_ASSERT_NONNULL(open_);
  return ask_open(kj::addRef(source.session()), rpc::ReadOrder::UNKNOWN)
      .then([](Result<OpenResponse> response) -> Result<rpc::BlobRefData> {
        if (!response) return tl::unexpected(response.error());
        return rpc::answered(rpc::read(response->getResult().getOpened().getInfo().getRef()));
      });
}

kj::Promise<Result<void>> StripeSources::open_source() {
  return nodes_.bulk_of(sources_[source_].address)
      .then([this](Result<kj::Own<NodeSession>> session) -> kj::Promise<Result<void>> {
        if (!session) return Result<void>(tl::unexpected(session.error()));
        return ask_open(kj::addRef(**session), order_)
            .then([this, session = kj::mv(*session)](
                      Result<OpenResponse> response) mutable -> Result<void> {
              if (!response) return tl::unexpected(response.error());
              return use_opened(kj::mv(session), response->getResult().getOpened());
            });
      });
}

Result<void> StripeSources::use_opened(kj::Own<NodeSession> session,
                                       rpc::OpenResult::Opened::Reader opened) {
  BIGCAST_ASSIGN(auto ref, rpc::answered(rpc::read(opened.getInfo().getRef())));
  if (ref.id != ref_.id || ref.chunk_size != ref_.chunk_size) {
    return fail(ErrorCode::kCorrupt, session->address + ": opened another blob");
  }
  SourceOptions options{&nodes_.loop(),
                        nodes_.targets().timeout_ms,
                        nodes_.targets().local_reads,
                        ref_.chunk_size,
                        buffers_,
                        seal_};
  open_ = kj::refcounted<BlobSource>(std::move(options), kj::mv(session), opened.getBlob());
  switching_ = false;
  reader_.source_opened(ref, opened.getResident());
  return {};
}

}  // namespace bigcast
