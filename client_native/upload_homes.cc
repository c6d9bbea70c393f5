#include "client_native/upload_homes.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/limits.h"

namespace bigcast {

namespace {

using Homes = Result<std::vector<UploadHome>>;
using InfoResponse = capnp::Response<rpc::Session::InfoResults>;

// Creates a blob, or one stripe of `whole`.
kj::Promise<Result<UploadHome>> create_at(Nodes& nodes, kj::Own<NodeSession> session,
                                          const UploadOptions& options,
                                          const rpc::BlobRefData* whole, uint32_t stripe) {
  auto request = session->session.createRequest();
  auto params = request.initOptions();
  params.setName(options.name);
  params.setSize(options.size ? static_cast<int64_t>(*options.size) : -1);
  params.setChunkSize(options.chunk_size);
  params.setUntilRemoved(options.until_removed);
  params.setReplace(options.replace);
  params.setAnnounceFrom(options.announce_from);
  params.setMappable(options.mappable);
  if (options.durable) params.setDurability(rpc::Durability::DISK);
  params.setTtlMs(options.ttl_ms);
  if (whole != nullptr) rpc::write(*whole, params.initPlaced());
  params.setStripe(static_cast<uint8_t>(stripe));
  auto& node = *session;
  return bounded<UploadHome>(
      nodes.loop(), node, nodes.targets().timeout_ms,
      request.send().then([session = kj::mv(session)](capnp::Response<rpc::Session::CreateResults>&&
                                                          response) mutable -> Result<UploadHome> {
        auto result = response.getResult();
        if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
        const auto created = result.getCreated();
        const BlobId id = rpc::read(created.getRef().getId());
        return UploadHome{kj::mv(session), created.getUpload(), id, {}};
      }));
}

// Finds homes for all copies of all stripes, then creates each stripe at the first of its homes. A
// node that is about to stop is none.
class HomesCreate {
 public:
  HomesCreate(Nodes& nodes, const UploadOptions& options)
      : nodes_(nodes),
        options_(options),
        entries_(nodes.silent_last(nodes.entry_points())),
        soon_before_(entries_.size() > wanted() ? entries_.size() : 0) {}

  kj::Promise<Homes> run() {
    if (found_.size() < wanted() && position_ < entries_.size()) {
      return find_one().then([this](Result<void> found) -> kj::Promise<Homes> {
        if (!found) return Homes(tl::unexpected(found.error()));
        return run();
      });
    }
    if (found_.size() < wanted()) return Homes(tl::unexpected(too_few()));
    if (is_placed()) whole_ = new_ref();
    return create_next();
  }

 private:
  struct Found {
    kj::Own<NodeSession> session;
    HomeNode node;
    std::optional<rpc::Address> advertised;
  };

  size_t wanted() const { return size_t{options_.homes} * options_.replicas; }
  // The homes must know of each other.
  bool is_placed() const { return wanted() > 1; }

  Error too_few() const {
    if (!is_placed()) return missed_;
    const char* what = options_.replicas > 1 ? "replicas: " : "homes: ";
    return {ErrorCode::kUnavailable,
            what + std::to_string(wanted()) + " nodes are asked for, and " +
                std::to_string(found_.size()) + " of the servers can be one" +
                (missed_.message.empty() ? "" : "; " + missed_.message)};
  }

  kj::Promise<Result<void>> find_one() {
    const rpc::Address address = entries_[position_];
    if (position_++ >= soon_before_) {
      return nodes_.control_of(address).then(
          [this, address](Nodes::Session control) { return find_at(address, kj::mv(control)); });
    }
    return nodes_.control_soon(address).then(
        [this, address](Nodes::Soon control) -> kj::Promise<Result<void>> {
          if (control) return find_at(address, kj::mv(*control));
          entries_.push_back(address);  // once more, after the others
          return Result<void>();
        });
  }

  // The control session holds the lease, also while nothing is sent.
  kj::Promise<Result<void>> find_at(const rpc::Address& address, Nodes::Session control) {
    if (!control) return miss(control.error());
    return nodes_.bulk_of(address).then(
        [this](Nodes::Session session) -> kj::Promise<Result<void>> {
          if (!session) return miss(session.error());
          return ask(kj::mv(*session));
        });
  }

  kj::Promise<Result<void>> ask(kj::Own<NodeSession> session) {
    auto& node = *session;
    return bounded<void>(nodes_.loop(), node, nodes_.targets().timeout_ms,
                         node.session.infoRequest().send().then(
                             [this, session = kj::mv(session)](InfoResponse&& response) mutable {
                               return consider(kj::mv(session), response.getInfo());
                             }))
        .then([this](Result<void> asked) { return asked ? asked : miss(asked.error()); });
  }

  Result<void> consider(kj::Own<NodeSession> session, rpc::NodeInfo::Reader info) {
    const std::string name = session->address;
    if (info.getDraining()) return fail(ErrorCode::kUnavailable, name + ": is about to stop");
    Found found{kj::mv(session), {rpc::read(info.getEpoch()).to_string(), ""}, std::nullopt};
    if (auto advertised = rpc::read(info.getAdvertised())) {
      found.node.advertised = advertised->to_string();
      found.advertised = std::move(*advertised);
    } else if (is_placed()) {
      return fail(ErrorCode::kUnavailable, name + ": others can reach it on its host only");
    }
    const auto same = [&](const Found& other) { return other.node.epoch == found.node.epoch; };
    if (std::any_of(found_.begin(), found_.end(), same)) {
      return fail(ErrorCode::kUnavailable, name + ": is a node that was named before");
    }
    found_.push_back(std::move(found));
    return {};
  }

  // The next server may do; what is not that server's absence is the caller's to know.
  Result<void> miss(const Error& error) {
    if (!node_did_not_answer(error)) return tl::unexpected(error);
    missed_ = {error.code,
               missed_.message.empty() ? error.message : missed_.message + "; " + error.message};
    return {};
  }

  rpc::BlobRefData new_ref() const {
    rpc::BlobRefData ref;
    ref.id = BlobId::random();
    ref.size = options_.size;
    ref.chunk_size = options_.chunk_size;
    ref.name_space = nodes_.targets().key.name_space();
    ref.name = options_.name;
    ref.stripes = options_.homes;
    for (const Found& found : found_) ref.homes.push_back(*found.advertised);
    ref.copies = options_.replicas;
    if (options_.replicas == 1) return ref;
    for (size_t i = position_; i < entries_.size(); i++) {
      if (entries_[i].kind == rpc::Address::Kind::kTcp) ref.spares.push_back(entries_[i]);
    }
    return ref;
  }

  kj::Promise<Homes> create_next() {
    const auto stripe = static_cast<uint32_t>(created_.size());
    if (stripe == options_.homes) return Homes(std::move(created_));
    Found& found = found_[stripe];
    return create_at(nodes_, kj::mv(found.session), options_, is_placed() ? &whole_ : nullptr,
                     stripe)
        .then([this, &found](Result<UploadHome> home) -> kj::Promise<Homes> {
          if (home) {
            home->node = found.node;
            created_.push_back(std::move(*home));
            return create_next();
          }
          if (is_placed()) return Homes(tl::unexpected(home.error()));
          if (auto missed = miss(home.error()); !missed) {
            return Homes(tl::unexpected(missed.error()));
          }
          found_.clear();  // it is about to stop since it was asked, or has died
          return run();
        });
  }

  Nodes& nodes_;
  const UploadOptions& options_;
  std::vector<rpc::Address> entries_;
  const size_t soon_before_;  // of those who do not answer soon are at the end once more
  size_t position_ = 0;
  std::vector<Found> found_;
  Error missed_{ErrorCode::kUnavailable, ""};  // why those before position_ are no homes
  rpc::BlobRefData whole_;                     // if is_placed()
  std::vector<UploadHome> created_;
};

}  // namespace

kj::Promise<Result<std::vector<UploadHome>>> create_at_homes(Nodes& nodes,
                                                             const UploadOptions& options) {
  auto create = kj::heap<HomesCreate>(nodes, options);
  auto running = create->run();
  return running.attach(kj::mv(create));
}

}  // namespace bigcast
