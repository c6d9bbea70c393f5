#include "server/chunk_source.h"

#include <fmt/format.h>
#include <kj/debug.h>

#include "rpc/progress.h"

namespace bigcast {

ChunkSource::ChunkSource(kj::Own<NodeCore> core, kj::Own<PeerLink> link, BlobId id, bool is_home)
    : core_(kj::mv(core)),
      link_(kj::mv(link)),
      id_(id),
      is_home_(is_home),
      stall_timeout_ms_(is_home ? limits::kHomeStallTimeoutMs : limits::kPeerStallTimeoutMs) {}

bool ChunkSource::is_open() const { return opened_ && link_->is_current(opened_->generation); }

kj::Promise<Result<ChunkSource::Response>> ChunkSource::read(uint32_t index, rpc::ReadMode mode) {
  auto too_long = core_->loop.timer().afterDelay(stall_timeout_ms_ * kj::MILLISECONDS);
  return open()
      .then([]() -> std::optional<Error> { return std::nullopt; })
      .exclusiveJoin(too_long.then([this]() -> std::optional<Error> {
        return Error{ErrorCode::kDeadlineExceeded,
                     fmt::format("node {}: no answer", link_->address().to_string())};
      }))
      .then([this, index, mode](const std::optional<Error>& late) -> kj::Promise<Result<Response>> {
        if (late) return Result<Response>(tl::unexpected(*late));
        if (!is_open()) return Result<Response>(tl::unexpected(error_));
        return ask(index, mode);
      })
      .attach(kj::addRef(*this));
}

kj::Promise<Result<ChunkSource::Response>> ChunkSource::ask(uint32_t index, rpc::ReadMode mode) {
  auto request = opened_->blob.readRequest();
  request.setIndex(index);
  request.setMode(mode);
  const uint64_t generation = opened_->generation;
  return request.send()
      .then([](Response&& response) { return Result<Response>(kj::mv(response)); })
      .exclusiveJoin(rpc::stalled(core_->loop, opened_->connection, stall_timeout_ms_,
                                  is_home_ ? limits::kProgressBytesMin : limits::kPeerBytesMin)
                         .then([this, generation]() -> Result<Response> {
                           link_->lost(generation);
                           return fail(
                               ErrorCode::kDeadlineExceeded,
                               fmt::format("node {}: brought too few bytes for {} ms",
                                           link_->address().to_string(), stall_timeout_ms_));
                         }))
      .catch_([](kj::Exception&& exception) -> Result<Response> {
        return tl::unexpected(rpc::to_error(exception));
      });
}

kj::Promise<void> ChunkSource::open() {
  if (is_open()) return kj::READY_NOW;
  if (!opening_) {
    opening_ = true;
    opened_.reset();
    error_ = {ErrorCode::kUnavailable,
              fmt::format("node {}: the connection is gone", link_->address().to_string())};
    attempt_ = link_->open()
                   .then([this](Result<PeerLink::Open> at) -> kj::Promise<void> {
                     if (at) return open_at(kj::mv(*at));
                     error_ = at.error();
                     return kj::READY_NOW;
                   })
                   .catch_([this](kj::Exception&& e) { error_ = rpc::to_error(e); })
                   .then([this] { opening_ = false; })
                   .fork();
  }
  return KJ_ASSERT_NONNULL(attempt_).addBranch();
}

kj::Promise<void> ChunkSource::open_at(PeerLink::Open at) {
  auto request = at.session.openRequest();
  auto target = request.initTarget();
  rpc::write(id_, is_home_ ? target.initHomeId() : target.initCopyId());
  return request.send().then([this, at = kj::mv(at)](auto response) {
    const auto result = response.getResult();
    if (result.isOpened()) {
      opened_ = Opened{result.getOpened().getBlob(), at.generation, at.connection};
    } else if (result.isError()) {
      error_ = rpc::read(result.getError());
    }
  });
}

}  // namespace bigcast
