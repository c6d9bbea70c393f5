#include "server/copy.h"

#include <fmt/format.h>

#include "server/replicas.h"

namespace bigcast {

CopyService::CopyService(kj::Own<SessionState> session, BlobId id,
                         kj::Maybe<kj::Own<RelayBlob>> relayed, kj::Own<void> relay_use)
    : session_(kj::mv(session)),
      core_(*session_->core),
      id_(id),
      is_ours_(relayed != nullptr),
      relay_use_(kj::mv(relay_use)),
      relayed_(kj::mv(relayed)) {}

CopyService::~CopyService() noexcept(false) {
  KJ_IF_MAYBE (relayed, relayed_) {
    (*relayed)->end({ErrorCode::kAborted, "the home that this one copied from gave up"});
  }
}

kj::Promise<void> CopyService::seal(SealContext context) {
  session_->heard();
  const auto params = context.getParams();
  const Digest128 root{params.getRootDigestHi(), params.getRootDigestLo()};
  const Figures figures{params.getSize(), params.getChunkCount(),
                        root == Digest128{} ? std::nullopt : std::optional(root)};
  context.allowCancellation();
  return seal(figures).then([context](const Result<void>& sealed) mutable {
    reply_void(context.getResults().initResult(), sealed);
  });
}

kj::Promise<void> CopyService::discard(DiscardContext context) {
  session_->heard();
  if (!is_ours_) {
    reply_void(context.getResults().initResult(),
               fail(ErrorCode::kInvalidArgument, "discard: the blob was here before"));
    return kj::READY_NOW;
  }
  core_.replicas->given_up(id_);
  core_.remove_blob(id_, {ErrorCode::kAborted, "its writer was told that the put failed"});
  return core_.removed(id_).then([context](const Result<void>& removed) mutable {
    const bool is_gone = removed || removed.error().code == ErrorCode::kNotFound;
    reply_void(context.getResults().initResult(), is_gone ? Result<void>() : removed);
  });
}

kj::Promise<Result<void>> CopyService::seal(Figures figures) {
  KJ_IF_MAYBE (relayed, relayed_) {
    auto blob = kj::addRef(**relayed);
    auto whole = blob->until_whole({figures.chunk_count, figures.size});
    return whole.attach(kj::mv(blob))
        .then([this, figures](Result<void> result) -> kj::Promise<Result<void>> {
          if (!result) return kj::mv(result);
          return seal_in_store(figures);
        });
  }
  return seal_in_store(figures);
}

kj::Promise<Result<void>> CopyService::seal_in_store(Figures figures) {
  return core_
      .seal_on_pool(id_,
                    [store = core_.store, id = id_, figures] {
                      return store->seal(id, figures.size, figures.chunk_count,
                                         figures.root_digest);
                    })
      .then([this](Result<BlobStat> sealed) -> Result<void> {
        if (!sealed) return tl::unexpected<Error>(sealed.error());
        become_home(*sealed);
        return {};
      });
}

void CopyService::become_home(const BlobStat& stat) {
  KJ_IF_MAYBE (relayed, relayed_) {
    (*relayed)->settle();
    relayed_ = nullptr;
    relay_use_ = nullptr;
  }
  core_.replicas->keep(stat);
  if (stat.replaced) {
    core_.replicas->lost(*stat.replaced);  // the first home says when it is gone for all
    core_.remove_blob(*stat.replaced,
                      {ErrorCode::kNotFound, fmt::format("'{}' was replaced", stat.name)});
  }
}

}  // namespace bigcast
