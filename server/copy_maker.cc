#include "server/copy_maker.h"

#include <fmt/format.h>
#include <kj/vector.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "server/replicas.h"

namespace bigcast {
namespace {

// Asking another node would not change it.
bool is_refusal(ErrorCode code) {
  return code == ErrorCode::kAlreadyExists || code == ErrorCode::kInvalidArgument ||
         code == ErrorCode::kUnauthenticated || code == ErrorCode::kPermissionDenied;
}

}  // namespace

CopyMaker::CopyMaker(NodeCore& core, BlobStat stat, rpc::BlobRefData ref,
                     std::vector<rpc::Address> candidates, uint32_t wanted, For purpose)
    : core_(core),
      stat_(std::move(stat)),
      ref_(std::move(ref)),
      candidates_(std::move(candidates)),
      wanted_(wanted),
      purpose_(purpose) {}

std::vector<rpc::Address> CopyMaker::homes() const {
  std::vector<rpc::Address> homes;
  for (const auto& making : makings_) homes.push_back(making->at);
  return homes;
}

kj::Promise<Result<void>> CopyMaker::start() {
  if (is_discarded_) return Result<void>(fail(ErrorCode::kAborted, "the blob was given up"));
  if (makings_.size() >= wanted_) return Result<void>();
  if (next_ >= candidates_.size()) return Result<void>(tl::unexpected(error_));
  return start_at(candidates_[next_++])
      .then([this](Result<Making> made) -> kj::Promise<Result<void>> {
        if (auto added = add(kj::mv(made)); !added) return kj::mv(added);
        return start();
      });
}

Result<void> CopyMaker::add(Result<Making> made) {
  if (!made) {
    error_ = made.error();
    log().info("copying blob {}: {}", stat_.id.to_string(), error_.to_string());
    // One node that has another blob of the name does not keep the others from having this one.
    const bool is_answer = is_refusal(error_.code) && purpose_ != For::kRepair;
    return is_answer ? Result<void>(tl::unexpected(error_)) : Result<void>();
  }
  // The same node may go by several names.
  const auto has_it = [&](const rpc::Address& home) { return home == made->at; };
  const bool is_new = !core_.is_myself(made->at) && std::ranges::none_of(homes(), has_it);
  if (is_new) makings_.push_back(kj::heap<Making>(kj::mv(*made)));
  return {};
}

kj::Promise<Result<CopyMaker::Making>> CopyMaker::start_at(const rpc::Address& candidate) {
  auto link = core_.replicas->link(stat_.name_space, candidate);
  auto opened = link->open();
  return opened
      .then([this, link = kj::mv(link)](
                Result<PeerLink::Open> open) mutable -> kj::Promise<Result<Making>> {
        if (!open) return Result<Making>(tl::unexpected(open.error()));
        auto request = open->session.copyRequest();
        write_request(request);
        return request.send().then([link = kj::mv(link)](auto response) mutable -> Result<Making> {
          const auto result = response.getResult();
          if (!result.isCopying()) {
            Error error = rpc::read(result.getError());
            error.message = link->address().to_string() + ": " + error.message;
            return tl::unexpected<Error>(std::move(error));
          }
          BIGCAST_ASSIGN(auto at, rpc::answered(rpc::read(result.getCopying().getAt())));
          return Making{std::move(at), kj::mv(link), result.getCopying().getCopy()};
        });
      })
      .catch_([candidate](kj::Exception&& exception) -> Result<Making> {
        Error error = rpc::to_error(exception);
        error.message = candidate.to_string() + ": " + error.message;
        return tl::unexpected<Error>(std::move(error));
      });
}

void CopyMaker::write_request(rpc::Session::CopyParams::Builder params) const {
  auto options = params.initOptions();
  options.setName(stat_.name);
  options.setSize(stat_.size ? static_cast<int64_t>(*stat_.size) : -1);
  options.setChunkSize(stat_.chunk_size);
  options.setUntilRemoved(stat_.lease.is_zero());
  options.setReplace(purpose_ == For::kUploadThatReplaces);
  options.setMappable(stat_.mappable);
  options.setStripe(static_cast<uint8_t>(stat_.stripe.index));
  if (stat_.durability == Durability::kDisk) options.setDurability(rpc::Durability::DISK);
  Duration ttl = stat_.ttl;
  if (stat_.expires_at) {
    ttl = std::max<Duration>(*stat_.expires_at - core_.clock.now(), std::chrono::milliseconds(1));
  }
  options.setTtlMs(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(ttl).count()));
  rpc::write(ref_, options.initPlaced());
  rpc::write(stat_.lease, params.initLease());
}

kj::Promise<Result<void>> CopyMaker::seal(Figures figures) {
  kj::Vector<kj::Promise<void>> all;
  for (auto& making : makings_) {
    if (!making->sealed) all.add(seal_one(*making, figures));
  }
  return kj::joinPromises(all.releaseAsArray())
      .then([this, figures]() -> kj::Promise<Result<void>> {
        std::erase_if(makings_, [](const auto& making) { return !making->sealed; });
        if (makings_.size() == wanted_) return Result<void>();
        return start().then([this, figures](Result<void> started) -> kj::Promise<Result<void>> {
          if (!started) return kj::mv(started);
          return seal(figures);
        });
      });
}

kj::Promise<void> CopyMaker::discard() {
  is_discarded_ = true;
  kj::Vector<kj::Promise<void>> all;
  for (auto& making : makings_) {
    if (!making->sealed) continue;
    all.add(making->copy.discardRequest().send().ignoreResult().catch_(
        [this, at = making->at](kj::Exception&& exception) {
          log().info("discarding the copy of blob {} at {}: {}", stat_.id.to_string(),
                     at.to_string(), rpc::to_error(exception).to_string());
        }));
  }
  return kj::joinPromises(all.releaseAsArray())
      .exclusiveJoin(core_.loop.timer().afterDelay(limits::kReplicaAwayMs * kj::MILLISECONDS));
}

kj::Promise<void> CopyMaker::seal_one(Making& making, Figures figures) {
  auto request = making.copy.sealRequest();
  request.setSize(figures.size);
  request.setChunkCount(figures.chunk_count);
  request.setRootDigestHi(figures.root_digest.hi);
  request.setRootDigestLo(figures.root_digest.lo);
  auto too_late = stalled(making, 0, core_.clock.now()).then([]() -> Result<void> {
    return fail(ErrorCode::kDeadlineExceeded, "it gets no chunk, and does not answer");
  });
  return request.send()
      .then([](auto response) -> Result<void> {
        const auto result = response.getResult();
        if (result.isError()) return tl::unexpected<Error>(rpc::read(result.getError()));
        return {};
      })
      .exclusiveJoin(kj::mv(too_late))
      .catch_([](kj::Exception&& exception) -> Result<void> {
        return tl::unexpected<Error>(rpc::to_error(exception));
      })
      .then([this, &making](const Result<void>& sealed) {
        making.sealed = sealed.has_value();
        if (sealed) return;
        error_ = sealed.error();
        error_.message = fmt::format("the copy at {}: {}", making.at.to_string(), error_.message);
        log().warn("copying blob {}: {}", stat_.id.to_string(), error_.to_string());
      });
}

kj::Promise<void> CopyMaker::stalled(Making& making, uint32_t chunks, TimePoint since) {
  const Duration timeout = core_.config.session_timeout;
  return core_.loop.timer()
      .afterDelay(to_kj(timeout / 4))
      .then([this, &making] { return chunks_at(making); })
      .then([this, &making, chunks, since, timeout](uint32_t now_there) -> kj::Promise<void> {
        const TimePoint now = core_.clock.now();
        if (now_there != chunks) return stalled(making, now_there, now);
        if (now - since >= timeout) return kj::READY_NOW;
        return stalled(making, chunks, since);
      });
}

kj::Promise<uint32_t> CopyMaker::chunks_at(Making& making) {
  return making.link->open().then([this](Result<PeerLink::Open> open) -> kj::Promise<uint32_t> {
    if (!open) return uint32_t{0};
    auto request = open->session.openRequest();
    rpc::write(stat_.id, request.initTarget().initCopyId());
    return request.send().then([](auto response) -> uint32_t {
      const auto result = response.getResult();
      return result.isOpened() ? result.getOpened().getInfo().getChunkCount() : 0;
    });
  });
}

}  // namespace bigcast
