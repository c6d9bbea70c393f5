#include "client_native/download_job.h"
#include "client_native/waiting_calls.h"

namespace bigcast {

namespace {

using Span = std::span<const std::byte>;
using OpenResponse = capnp::Response<rpc::Session::OpenResults>;

class DownloadHandle final : public Download {
 public:
  DownloadHandle(std::shared_ptr<ClientCore> core, DownloadOptions options)
      : core_(std::move(core)),
        order_(order_of(options)),
        range_(options.range),
        calls_(core_->io()) {}
  ~DownloadHandle() override {
    core_->io().run([this]() { job_.reset(); });
  }

  Result<void> start(const rpc::BlobRefData& ref) {
    return calls_.wait_for<void>([&]() {
      job_ = std::make_unique<DownloadJob>(core_->nodes(), ref, order_, range_);
      return job_->start();
    });
  }
  Result<void> start(const std::string& name) {
    return calls_.wait_for<void>([&]() {
      entries_ = core_->nodes().silent_last(core_->nodes().entry_points());
      soon_before_ = entries_.size() > 1 ? entries_.size() : 0;
      return find(name, 0);
    });
  }
  Result<Span> next() override {
    return calls_.wait_for<Span>([this]() { return job_->next(); });
  }
  void interrupt() override { calls_.interrupt(); }
  uint64_t offset() const override {
    uint64_t offset = 0;
    core_->io().run([&]() { offset = job_->offset(); });
    return offset;
  }
  std::optional<uint64_t> size() const override {
    std::optional<uint64_t> size;
    core_->io().run([&]() { size = job_->size(); });
    return size;
  }
  TransferStats stats() const override {
    TransferStats stats;
    core_->io().run([&]() { stats = job_->stats(); });
    return stats;
  }

 private:
  kj::Promise<Result<void>> find(const std::string& name, size_t position);
  kj::Promise<Result<void>> find_next(const std::string& name, size_t position, Result<void> found);
  kj::Promise<Result<void>> find_at(const std::string& name, const rpc::Address& address,
                                    kj::Own<NodeSession> session);
  Result<void> use(const std::string& name, const rpc::Address& address,
                   kj::Own<NodeSession> session, OpenResponse response);

  static rpc::ReadOrder order_of(const DownloadOptions& options) {
    return options.any_order ? rpc::ReadOrder::RESIDENT_FIRST : rpc::ReadOrder::ASCENDING;
  }

  const std::shared_ptr<ClientCore> core_;
  const rpc::ReadOrder order_;
  const std::optional<ByteRange> range_;
  // Who may know the name. Those before `soon_before_` that do not answer soon are there twice.
  std::vector<rpc::Address> entries_;
  size_t soon_before_ = 0;
  WaitingCalls calls_;
  std::unique_ptr<DownloadJob> job_;  // lives on the I/O thread
};

// Tries the entry points in order, as each of them may be the home of some names.
kj::Promise<Result<void>> DownloadHandle::find(const std::string& name, size_t position) {
  Nodes& nodes = core_->nodes();
  const rpc::Address address = entries_[position];
  auto session = position < soon_before_ ? nodes.bulk_soon(address)
                                         : nodes.bulk_of(address).then([](Nodes::Session answer) {
                                             return Nodes::Soon(kj::mv(answer));
                                           });
  return session.then(
      [this, &name, address, position](Nodes::Soon session) -> kj::Promise<Result<void>> {
        if (!session) {
          entries_.push_back(address);
          return find(name, position + 1);
        }
        if (!*session) return find_next(name, position + 1, tl::unexpected(session->error()));
        return find_at(name, address, kj::mv(**session))
            .then([this, &name, position](Result<void> found) {
              return find_next(name, position + 1, std::move(found));
            });
      });
}

// `found`: what the last one said.
kj::Promise<Result<void>> DownloadHandle::find_next(const std::string& name, size_t position,
                                                    Result<void> found) {
  if (found) return job_->start();
  const bool elsewhere =
      found.error().code == ErrorCode::kNotFound || node_did_not_answer(found.error());
  if (position == entries_.size() || !elsewhere) return kj::mv(found);
  return find(name, position).then([missed = found.error()](Result<void> later) {
    const bool less =
        !later && later.error().code == ErrorCode::kNotFound && node_did_not_answer(missed);
    return less ? Result<void>(tl::unexpected(missed)) : later;
  });
}

kj::Promise<Result<void>> DownloadHandle::find_at(const std::string& name,
                                                  const rpc::Address& address,
                                                  kj::Own<NodeSession> session) {
  Nodes& nodes = core_->nodes();
  auto request = session->session.openRequest();
  request.setOrder(order_);
  request.initTarget().setName(name);
  auto& peer = *session;
  return bounded<void>(nodes.loop(), peer, nodes.targets().timeout_ms,
                       request.send().then([this, &name, address, session = kj::mv(session)](
                                               OpenResponse&& response) mutable {
                         return use(name, address, kj::mv(session), kj::mv(response));
                       }));
}

Result<void> DownloadHandle::use(const std::string& name, const rpc::Address& address,
                                 kj::Own<NodeSession> session, OpenResponse response) {
  auto result = response.getResult();
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  BIGCAST_ASSIGN(auto ref, rpc::answered(rpc::read(result.getOpened().getInfo().getRef())));
  if (ref.name != name) {
    return fail(ErrorCode::kCorrupt, session->address + ": opened '" + ref.name + "' instead");
  }
  job_ = std::make_unique<DownloadJob>(core_->nodes(), std::move(ref), order_, range_);
  job_->adopt(address, kj::mv(session), result.getOpened());
  return {};
}

}  // namespace

namespace {

// Of an encrypted blob everything that matters is in the ref: nodes are believed nothing.
Result<void> check_key(const ClientTargets& targets, const rpc::BlobRefData& ref) {
  const bool encrypted = !ref.key_id.is_zero();
  if (encrypted && targets.chunk_secret.empty()) {
    return fail(
        ErrorCode::kPermissionDenied,
        "blob " + ref.id.to_string() + ": is encrypted, only its writer's application can read it");
  }
  if (!encrypted && !targets.chunk_secret.empty()) {
    return fail(ErrorCode::kInvalidArgument, "blob ref: it is of a blob that is not encrypted");
  }
  if (encrypted && (!ref.size || ref.root_digest == Digest128{})) {
    return fail(ErrorCode::kInvalidArgument,
                "blob ref: an encrypted blob is read when it is sealed");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Download>> start_download(const std::shared_ptr<ClientCore>& core,
                                                 const rpc::BlobRefData& ref,
                                                 DownloadOptions options) {
  const ClientTargets& targets = core->nodes().targets();
  BIGCAST_TRY(check_key(targets, ref));
  if (!targets.local_node && targets.servers.empty() && ref.homes.empty()) {
    return fail(ErrorCode::kInvalidArgument, "blob ref: it names no home");
  }
  auto download = std::make_unique<DownloadHandle>(core, options);
  BIGCAST_TRY(download->start(ref));
  return download;
}

Result<std::unique_ptr<Download>> start_download(const std::shared_ptr<ClientCore>& core,
                                                 const std::string& name, DownloadOptions options) {
  if (!core->nodes().targets().chunk_secret.empty()) {
    return fail(ErrorCode::kUnsupported, "names: an encrypted blob is read by its ref");
  }
  auto download = std::make_unique<DownloadHandle>(core, options);
  BIGCAST_TRY(download->start(name));
  return download;
}

}  // namespace bigcast
