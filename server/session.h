#pragma once

#include <kj/async.h>

#include "server/core.h"

namespace bigcast {

// What a client can do once it has proven its namespace: everything here stays inside it, so a
// foreign blob looks absent by id and by name.
class SessionService final : public rpc::Session::Server {
 public:
  explicit SessionService(kj::Own<SessionState> state);
  ~SessionService() noexcept(false);

  kj::Promise<void> renew(RenewContext context) override;
  kj::Promise<void> info(InfoContext context) override;
  kj::Promise<void> report(ReportContext context) override;
  kj::Promise<void> create(CreateContext context) override;
  kj::Promise<void> open(OpenContext context) override;
  kj::Promise<void> stat(StatContext context) override;
  kj::Promise<void> list(ListContext context) override;
  kj::Promise<void> remove(RemoveContext context) override;
  kj::Promise<void> dropCopies(DropCopiesContext context) override;
  kj::Promise<void> announcements(AnnouncementsContext context) override;
  kj::Promise<void> followHome(FollowHomeContext context) override;
  kj::Promise<void> returnMapping(ReturnMappingContext context) override;
  kj::Promise<void> pin(PinContext context) override;
  kj::Promise<void> unpin(UnpinContext context) override;
  kj::Promise<void> copy(CopyContext context) override;
  kj::Promise<void> compareBlobs(CompareBlobsContext context) override;

 private:
  void heard() { state_->heard(); }
  Result<bigcast::CreateOptions> check_create(rpc::CreateOptions::Reader options,
                                              LeaseId lease) const;
  Result<void> check_placed(rpc::CreateOptions::Reader in, bigcast::CreateOptions& options) const;
  Result<void> check_first_home(const bigcast::CreateOptions& options) const;
  Result<bigcast::CreateOptions> check_copy(rpc::Session::CopyParams::Reader params) const;
  Result<rpc::Copy::Client> start_copy(const bigcast::CreateOptions& options);
  Result<BlobStat> find_home(const std::string& name) const;
  Result<BlobStat> home_of(BlobId id) const;
  Result<BlobStat> home_of(rpc::OpenTarget::Reader target) const;
  kj::Promise<void> open_relayed(OpenContext context, const rpc::BlobRefData& ref);
  void reply_opened(OpenContext& context, const BlobStat& stat, rpc::Blob::Client blob);

  kj::Own<SessionState> state_;
  NodeCore& core_;
};

}  // namespace bigcast
