#include "client_native/client.h"

#include <chrono>

#include "client_native/client_core.h"

namespace bigcast {

namespace {

std::string hexadecimal(Digest128 digest) { return Id128{digest.hi, digest.lo}.to_string(); }

std::string text_of(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

Result<BlobSummary> summary_of(rpc::BlobInfo::Reader info) {
  BIGCAST_ASSIGN(const auto ref, rpc::read(info.getRef()));
  BlobSummary summary;
  summary.id = ref.id.to_string();
  summary.name_space = ref.name_space;
  summary.name = ref.name;
  summary.size = ref.size;
  summary.stored_size = info.getStoredSize();
  summary.memory_bytes = info.getMemoryBytes();
  summary.disk_bytes = info.getDiskBytes();
  summary.age_ms = info.getAgeMs();
  summary.ttl_ms = info.getTtlMs();
  if (summary.ttl_ms > 0 && info.getSealed()) summary.expires_in_ms = info.getExpiresInMs();
  summary.pins = info.getPins();
  summary.chunk_size = ref.chunk_size;
  summary.chunk_count = info.getChunkCount();
  summary.sealed = info.getSealed();
  summary.relay = info.getRelay();
  summary.durable = info.getDurability() == rpc::Durability::DISK;
  summary.ref = ref.to_bytes();
  summary.mappable = info.getMappable();
  summary.root_digest = hexadecimal(ref.root_digest);
  summary.stripes = ref.stripes;
  summary.replicas = ref.copies;
  for (const auto& home : ref.homes) summary.homes.push_back(home.to_string());
  return summary;
}

NodeSummary node_of(rpc::NodeInfo::Reader info) {
  NodeSummary node;
  node.version = text_of(info.getVersion());
  node.epoch = rpc::read(info.getEpoch()).to_string();
  const auto advertised = info.getAdvertised();
  if (advertised.getPort() != 0) {
    node.advertised =
        rpc::Address::tcp(text_of(advertised.getHost()), advertised.getPort()).to_string();
  }
  node.memory_budget = info.getMemoryBudget();
  node.memory_used = info.getMemoryUsed();
  node.disk_budget = info.getDiskBudget();
  node.disk_used = info.getDiskUsed();
  node.uptime_ms = info.getUptimeMs();
  node.pid = info.getPid();
  node.draining = info.getDraining();
  return node;
}

NodeReport report_of(rpc::NodeReport::Reader in) {
  NodeReport report;
  report.summary = node_of(in.getInfo());
  report.name = text_of(in.getName());
  report.not_ready = text_of(in.getNotReady());
  report.clock_ms = in.getClockMs();
  report.descriptor_limit = in.getDescriptorLimit();
  report.descriptors_open = in.getDescriptorsOpen();
  report.memory_limit = in.getMemoryLimit();
  report.memory_of_machine = in.getMemoryOfMachine();
  report.large_pages_unasked = in.getLargePagesUnasked();
  report.disk_free = in.getDiskFree();
  report.blobs = in.getBlobs();
  report.reserved_bytes = in.getReservedBytes();
  report.pinned_bytes = in.getPinnedBytes();
  report.mapped_bytes = in.getMappedBytes();
  report.sessions = in.getSessions();
  report.connections = in.getConnections();
  report.leases = in.getLeases();
  report.relayed_blobs = in.getRelayedBlobs();
  report.uploads = in.getUploads();
  report.running_calls = in.getRunningCalls();
  report.received_bytes = in.getReceivedBytes();
  report.served_bytes = in.getServedBytes();
  report.fetched_home_bytes = in.getFetchedHomeBytes();
  report.fetched_peer_bytes = in.getFetchedPeerBytes();
  report.chunks_demoted = in.getChunksDemoted();
  report.chunks_dropped = in.getChunksDropped();
  report.chunks_quarantined = in.getChunksQuarantined();
  report.checksum_failures = in.getChecksumFailures();
  report.login_failures = in.getLoginFailures();
  report.peer_fetch_failures = in.getPeerFetchFailures();
  for (const auto& peer : in.getUnreachable()) {
    report.unreachable.push_back({text_of(peer.getAddress()), rpc::read(peer.getError())});
  }
  return report;
}

template <typename Response>
Result<void> outcome(Response&& response) {
  auto result = response.getResult();
  if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
  return {};
}

using SessionPromise = kj::Promise<Nodes::Session>;

class ClientHandle final : public Client {
 public:
  explicit ClientHandle(std::shared_ptr<ClientCore> core) : core_(std::move(core)) {}

  Result<void> start() {
    return core_->io().blocking([this]() { return core_->nodes().start(); });
  }

  Result<std::unique_ptr<Upload>> upload(UploadOptions options) override {
    return start_upload(core_, options);
  }
  Result<std::unique_ptr<Download>> download_name(const std::string& name,
                                                  DownloadOptions options) override {
    BIGCAST_TRY(check_name(name));
    return start_download(core_, name, options);
  }
  Result<std::unique_ptr<Download>> download_ref(std::string_view bytes,
                                                 DownloadOptions options) override {
    BIGCAST_ASSIGN(const auto ref, rpc::BlobRefData::from_bytes(bytes));
    return start_download(core_, ref, options);
  }
  Result<std::unique_ptr<Mapping>> map_ref(std::string_view bytes) override {
    BIGCAST_ASSIGN(const auto ref, rpc::BlobRefData::from_bytes(bytes));
    return map_blob(core_, ref);
  }
  Result<std::unique_ptr<LentFile>> lend_ref(std::string_view bytes) override {
    BIGCAST_ASSIGN(const auto ref, rpc::BlobRefData::from_bytes(bytes));
    return lend_blob(core_, ref);
  }
  Result<BlobSummary> stat(const std::string& name) override;
  Result<void> list(const std::string& prefix,
                    const std::function<bool(const BlobSummary&)>& each) override;
  Result<void> remove_name(const std::string& name) override;
  Result<void> remove_ref(std::string_view bytes) override;
  Result<BlobSummary> pin_name(const std::string& name) override;
  Result<void> unpin_name(const std::string& name, Pins pins) override;
  Result<void> drop_copies_ref(std::string_view bytes) override;
  Result<NodeSummary> ping() override;
  Result<NodeReport> report() override;
  Result<void> follow_home(const std::string& home) override;

 private:
  struct Page {
    std::vector<BlobSummary> blobs;
    bool more = false;
  };

  // Calls `make_call(node)` on a control session and waits for the Result of its promise.
  template <typename T, typename MakeCall>
  Result<T> call_on(const std::function<SessionPromise()>& find, const MakeCall& make_call) {
    return core_->io().blocking([&]() {
      return find().then([&](Result<kj::Own<NodeSession>> node) -> kj::Promise<Result<T>> {
        if (!node) return Result<T>(tl::unexpected(node.error()));
        return bounded<T>(core_->nodes().loop(), **node, core_->nodes().targets().timeout_ms,
                          make_call(**node));
      });
    });
  }

  // Calls the first entry point that answers.
  template <typename T, typename MakeCall>
  Result<T> call(const MakeCall& make_call) {
    return call_on<T>([this]() { return core_->nodes().control(); }, make_call);
  }

  // Calls the addresses in order until one knows the blob. What could not be reached counts more
  // than NOT_FOUND from the others: it may be there.
  template <typename T, typename MakeCall>
  Result<T> call_until_found(const std::vector<rpc::Address>& addresses,
                             const MakeCall& make_call) {
    Result<T> last = fail(ErrorCode::kNotFound, "no node to ask");
    bool missed = false;
    std::vector<rpc::Address> asked = silent_last(addresses);
    const size_t soon_before = asked.size() > 1 ? asked.size() : 0;
    for (size_t i = 0; i < asked.size(); ++i) {
      const rpc::Address address = asked[i];
      bool is_late = false;
      const auto find = [&]() {
        return i < soon_before ? session_soon(address, is_late)
                               : core_->nodes().control_of(address);
      };
      auto result = call_on<T>(find, make_call);
      if (is_late) asked.push_back(address);  // once more, after the others
      if (is_late) continue;
      if (result) return result;
      const bool not_found = result.error().code == ErrorCode::kNotFound;
      if (!not_found && !node_did_not_answer(result.error())) return result;
      if (!(missed && not_found)) last = std::move(result);
      missed = missed || !not_found;
    }
    return last;
  }

  SessionPromise session_soon(const rpc::Address& address, bool& is_late) {
    return core_->nodes().control_soon(address).then(
        [&is_late](Nodes::Soon session) -> Nodes::Session {
          is_late = !session;
          if (session) return kj::mv(*session);
          return fail(ErrorCode::kDeadlineExceeded, "no answer yet");
        });
  }

  std::vector<rpc::Address> silent_last(std::vector<rpc::Address> addresses) {
    core_->io().run([&]() { addresses = core_->nodes().silent_last(std::move(addresses)); });
    return addresses;
  }

  // The entry points first: a node asks for its own blobs by the socket it is attached to.
  std::vector<rpc::Address> holders(const rpc::BlobRefData& ref) {
    auto addresses = core_->nodes().entry_points();
    addresses.insert(addresses.end(), ref.homes.begin(), ref.homes.end());
    return addresses;
  }

  Result<rpc::BlobRefData> ref_of(const std::string& name);
  Result<BlobSummary> pin_stripe(const rpc::BlobRefData& stripe);
  Result<void> unpin_stripe(const rpc::BlobRefData& stripe, Pins pins);
  Result<Page> list_page(const std::string& prefix, const std::string& after);

  const std::shared_ptr<ClientCore> core_;
};

Result<BlobSummary> ClientHandle::stat(const std::string& name) {
  BIGCAST_TRY(check_name(name));
  return call_until_found<BlobSummary>(core_->nodes().entry_points(), [&](NodeSession& node) {
    auto request = node.session.statRequest();
    request.setName(name);
    return request.send().then(
        [](capnp::Response<rpc::Session::StatResults>&& response) -> Result<BlobSummary> {
          BIGCAST_TRY(outcome(response));
          return summary_of(response.getResult().getInfo());
        });
  });
}

Result<rpc::BlobRefData> ClientHandle::ref_of(const std::string& name) {
  BIGCAST_TRY(check_name(name));
  return call_until_found<rpc::BlobRefData>(core_->nodes().entry_points(), [&](NodeSession& node) {
    auto request = node.session.statRequest();
    request.setName(name);
    return request.send().then(
        [](capnp::Response<rpc::Session::StatResults>&& response) -> Result<rpc::BlobRefData> {
          BIGCAST_TRY(outcome(response));
          return rpc::answered(rpc::read(response.getResult().getInfo().getRef()));
        });
  });
}

Result<BlobSummary> ClientHandle::pin_stripe(const rpc::BlobRefData& stripe) {
  return call_until_found<BlobSummary>(holders(stripe), [&](NodeSession& node) {
    auto request = node.session.pinRequest();
    rpc::write(stripe.id, request.initTarget().initHomeId());
    return request.send().then(
        [](capnp::Response<rpc::Session::PinResults>&& response) -> Result<BlobSummary> {
          BIGCAST_TRY(outcome(response));
          return summary_of(response.getResult().getInfo());
        });
  });
}

Result<void> ClientHandle::unpin_stripe(const rpc::BlobRefData& stripe, Pins pins) {
  return call_until_found<void>(holders(stripe), [&](NodeSession& node) {
    auto request = node.session.unpinRequest();
    request.setEverybodys(pins == Pins::kEverybodys);
    rpc::write(stripe.id, request.initTarget().initHomeId());
    return request.send().then(
        [](capnp::Response<rpc::Session::UnpinResults>&& response) { return outcome(response); });
  });
}

// All stripes or none.
Result<BlobSummary> ClientHandle::pin_name(const std::string& name) {
  BIGCAST_ASSIGN(const auto ref, ref_of(name));
  BIGCAST_ASSIGN(auto summary, pin_stripe(ref.of_stripe(0)));
  for (uint32_t i = 1; i < ref.stripes; ++i) {
    auto pinned = pin_stripe(ref.of_stripe(i));
    if (pinned) continue;
    for (uint32_t done = 0; done < i; ++done) {
      if (!unpin_stripe(ref.of_stripe(done), Pins::kOwn)) continue;  // gone, and its pin with it
    }
    return pinned;
  }
  return summary;
}

Result<void> ClientHandle::unpin_name(const std::string& name, Pins pins) {
  BIGCAST_ASSIGN(const auto ref, ref_of(name));
  Result<void> unpinned;
  for (uint32_t i = 0; i < ref.stripes; ++i) {
    auto one = unpin_stripe(ref.of_stripe(i), pins);
    if (unpinned) unpinned = std::move(one);
  }
  return unpinned;
}

Result<ClientHandle::Page> ClientHandle::list_page(const std::string& prefix,
                                                   const std::string& after) {
  return call<Page>([&](NodeSession& node) {
    auto request = node.session.listRequest();
    request.setPrefix(prefix);
    request.setAfter(after);
    request.setLimit(static_cast<uint32_t>(limits::kListPageMax));
    return request.send().then(
        [](capnp::Response<rpc::Session::ListResults>&& response) -> Result<Page> {
          Page page;
          page.more = response.getMore();
          for (const auto info : response.getBlobs()) {
            BIGCAST_ASSIGN(auto blob, summary_of(info));
            page.blobs.push_back(std::move(blob));
          }
          return page;
        });
  });
}

Result<void> ClientHandle::list(const std::string& prefix,
                                const std::function<bool(const BlobSummary&)>& each) {
  std::string after;
  for (;;) {
    BIGCAST_ASSIGN(const auto page, list_page(prefix, after));
    for (const BlobSummary& blob : page.blobs) {
      if (!each(blob)) return {};
    }
    if (!page.more) return {};
    if (page.blobs.empty() || page.blobs.back().name <= after) {
      return fail(ErrorCode::kInternal, "list: the node's pages do not advance");
    }
    after = page.blobs.back().name;
  }
}

Result<void> ClientHandle::remove_name(const std::string& name) {
  BIGCAST_TRY(check_name(name));
  return call_until_found<void>(core_->nodes().entry_points(), [&](NodeSession& node) {
    auto request = node.session.removeRequest();
    request.initTarget().setName(name);
    return request.send().then(
        [](capnp::Response<rpc::Session::RemoveResults>&& response) { return outcome(response); });
  });
}

Result<void> ClientHandle::remove_ref(std::string_view bytes) {
  BIGCAST_ASSIGN(const auto ref, rpc::BlobRefData::from_bytes(bytes));
  return call_until_found<void>(holders(ref), [&](NodeSession& node) {
    auto request = node.session.removeRequest();
    rpc::write(ref.id, request.initTarget().initHomeId());
    return request.send().then(
        [](capnp::Response<rpc::Session::RemoveResults>&& response) { return outcome(response); });
  });
}

Result<void> ClientHandle::drop_copies_ref(std::string_view bytes) {
  BIGCAST_ASSIGN(const auto ref, rpc::BlobRefData::from_bytes(bytes));
  return call_until_found<void>(holders(ref), [&](NodeSession& node) {
    auto request = node.session.dropCopiesRequest();
    rpc::write(ref.id, request.initId());
    return request.send().then([](capnp::Response<rpc::Session::DropCopiesResults>&& response) {
      return outcome(response);
    });
  });
}

Result<NodeSummary> ClientHandle::ping() {
  return call<NodeSummary>([&](NodeSession& node) {
    const auto sent_at = std::chrono::steady_clock::now();
    return node.session.infoRequest().send().then(
        [address = node.address,
         sent_at](capnp::Response<rpc::Session::InfoResults>&& response) -> Result<NodeSummary> {
          const std::chrono::duration<double, std::milli> took =
              std::chrono::steady_clock::now() - sent_at;
          NodeSummary summary = node_of(response.getInfo());
          summary.address = address;
          summary.round_trip_ms = took.count();
          return summary;
        });
  });
}

Result<NodeReport> ClientHandle::report() {
  return call<NodeReport>([&](NodeSession& node) {
    const auto sent_at = std::chrono::steady_clock::now();
    return node.session.reportRequest().send().then(
        [address = node.address,
         sent_at](capnp::Response<rpc::Session::ReportResults>&& response) -> Result<NodeReport> {
          const std::chrono::duration<double, std::milli> took =
              std::chrono::steady_clock::now() - sent_at;
          NodeReport report = report_of(response.getReport());
          report.summary.address = address;
          report.summary.round_trip_ms = took.count();
          return report;
        });
  });
}

Result<void> ClientHandle::follow_home(const std::string& home) {
  BIGCAST_ASSIGN(const auto address, rpc::Address::parse(home));
  return core_->io().blocking([&]() { return core_->nodes().follow_home(address); });
}

}  // namespace

Result<std::unique_ptr<Client>> Client::connect(ClientOptions options) {
  BIGCAST_ASSIGN(auto targets, ClientTargets::from(options));
  auto client = std::make_unique<ClientHandle>(std::make_shared<ClientCore>(std::move(targets)));
  BIGCAST_TRY(client->start());
  return client;
}

}  // namespace bigcast
