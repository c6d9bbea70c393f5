#include "client_native/client_core.h"

#include <algorithm>

#include "base/limits.h"
#include "base/log.h"
#include "rpc/convert.h"

namespace bigcast {

Result<void> check_secret(const Secret& secret, const std::string& name_space) {
  BIGCAST_TRY(rpc::NamespaceKey::of_client(secret, name_space));
  return {};
}

Result<ClientTargets> ClientTargets::from(const ClientOptions& options) {
  BIGCAST_TRY(check_namespace(options.name_space));
  if (options.servers.size() > limits::kSourcesMax) {
    return fail(ErrorCode::kInvalidArgument,
                "servers: at most " + std::to_string(limits::kSourcesMax) + " may be given");
  }
  if (options.progress_timeout_ms < 1) {
    return fail(ErrorCode::kInvalidArgument, "progress timeout: must be at least 1 ms");
  }
  std::vector<rpc::Address> servers;
  for (const std::string& server : options.servers) {
    BIGCAST_ASSIGN(auto address, rpc::Address::parse(server));
    servers.push_back(std::move(address));
  }
  std::optional<rpc::Address> local;
  if (!options.local_node.empty()) {
    BIGCAST_ASSIGN(auto address, rpc::Address::parse(options.local_node));
    if (address.kind != rpc::Address::Kind::kUnix) {
      return fail(ErrorCode::kInvalidArgument,
                  "local node \"" + options.local_node + "\": must be unix:PATH or unix:@NAME");
    }
    local = std::move(address);
  }
  if (servers.empty() && !local) {
    return fail(ErrorCode::kInvalidArgument, "servers: none given, and no local node");
  }
  BIGCAST_ASSIGN(auto key, rpc::NamespaceKey::of_client(options.secret, options.name_space));
  return ClientTargets{std::move(servers),
                       std::move(local),
                       key,
                       options.chunk_secret.clone(),
                       options.lease,
                       options.client_name,
                       options.local_reads,
                       options.progress_timeout_ms};
}

Nodes::Nodes(rpc::UvLoop& loop, ClientTargets targets)
    : loop_(loop), targets_(std::move(targets)), keeping_alive_(keep_alive()) {}

std::vector<rpc::Address> Nodes::entry_points() const {
  if (targets_.servers.empty()) return {*targets_.local_node};
  return targets_.servers;
}

NodeLink& Nodes::link(Links& links, const rpc::Address& address) {
  auto& found = links[address.to_string()];
  if (!found) {
    found = kj::refcounted<NodeLink>(loop_, address, targets_.key, targets_.lease,
                                     targets_.client_name, targets_.timeout_ms);
  }
  return *found;
}

std::vector<rpc::Address> Nodes::silent_last(std::vector<rpc::Address> addresses) const {
  const auto answers = [this](const rpc::Address& address) {
    // A renewal may wait behind chunks on the other one.
    const std::string name = address.to_string();
    const auto control = control_.find(name);
    if (control != control_.end()) return !control->second->is_silent();
    const auto bulk = bulk_.find(name);
    return bulk == bulk_.end() || !bulk->second->is_silent();
  };
  std::stable_partition(addresses.begin(), addresses.end(), answers);
  return addresses;
}

kj::Promise<Nodes::Session> Nodes::control_of(const rpc::Address& address) {
  return link(control_, address).session();
}

kj::Promise<Nodes::Session> Nodes::bulk_of(const rpc::Address& address) {
  return link(bulk_, address).session();
}

kj::Promise<Nodes::Soon> Nodes::control_soon(const rpc::Address& address) {
  return soon(control_of(address));
}

kj::Promise<Nodes::Soon> Nodes::bulk_soon(const rpc::Address& address) {
  return soon(bulk_of(address));
}

// The link's attempt goes on without us.
kj::Promise<Nodes::Soon> Nodes::soon(kj::Promise<Session> session) {
  return session.then([](Session answer) { return Soon(kj::mv(answer)); })
      .exclusiveJoin(loop_.timer().afterDelay(limits::kNextServerMs * kj::MILLISECONDS).then([] {
        return Soon();
      }));
}

void Nodes::forget_bulk(NodeSession& dead) {
  const auto found = bulk_.find(dead.address);
  if (found != bulk_.end()) found->second->forget(dead);
}

kj::Promise<Nodes::Session> Nodes::control() {
  auto addresses = silent_last(entry_points());
  const size_t count = addresses.size();
  return control_from(std::move(addresses), 0, count > 1 ? count : 0);
}

// Those before `soon_before` are left when they do not answer soon, and stand at the end once more.
kj::Promise<Nodes::Session> Nodes::control_from(std::vector<rpc::Address> addresses,
                                                size_t position, size_t soon_before) {
  const rpc::Address address = addresses[position];
  auto asked = position < soon_before
                   ? control_soon(address)
                   : control_of(address).then([](Session answer) { return Soon(kj::mv(answer)); });
  return asked.then([this, addresses = std::move(addresses), position,
                     soon_before](Soon answer) mutable -> kj::Promise<Session> {
    if (!answer) addresses.push_back(addresses[position]);
    const bool last = position + 1 == addresses.size();
    if (answer && (*answer || last || !node_did_not_answer(answer->error()))) {
      return kj::mv(*answer);
    }
    return control_from(std::move(addresses), position + 1, soon_before)
        .then([missed = answer ? answer->error().message + "; " : ""](Session next) {
          if (!next) next.error().message = missed + next.error().message;
          return next;
        });
  });
}

kj::Promise<Result<void>> Nodes::start() {
  auto entry = control();
  // Each server may have some of the lease's blobs, so the lease is kept at all of them.
  if (!targets_.lease.is_zero()) {
    for (const auto& server : targets_.servers) {
      renewals_.add(link(control_, server).keep_alive(true));
    }
  }
  if (!targets_.local_node || targets_.servers.empty()) {
    return entry.then([](Result<kj::Own<NodeSession>> session) -> Result<void> {
      if (!session) return tl::unexpected(session.error());
      return {};
    });
  }
  // Attaching to the local node also keeps it from leaving as idle.
  auto local = control_of(*targets_.local_node);
  return entry.then([local = kj::mv(local)](Result<kj::Own<NodeSession>> server) mutable {
    return local.then([server = kj::mv(server)](Result<kj::Own<NodeSession>> node) -> Result<void> {
      if (server || (node && node_did_not_answer(server.error()))) return {};
      return tl::unexpected(server.error());
    });
  });
}

kj::Promise<void> Nodes::keep_alive() {
  return loop_.timer().afterDelay(limits::kSessionRenewMs * kj::MILLISECONDS).then([this]() {
    // Started, not awaited: a node that is slow to answer must not delay the renewals of others.
    for (auto& [address, link] : control_) renewals_.add(link->keep_alive(true));
    for (auto& [address, link] : bulk_) renewals_.add(link->keep_alive(false));
    if (!followed_.empty()) renewals_.add(follow_again());
    return keep_alive();
  });
}

kj::Promise<Result<void>> Nodes::tell_to_follow(NodeSession& local, const rpc::Address& home) {
  auto request = local.session.followHomeRequest();
  rpc::write(home, request.initHome());
  auto told = request.send().then(
      [](capnp::Response<rpc::Session::FollowHomeResults>&& response) -> Result<void> {
        const auto result = response.getResult();
        if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
        return {};
      });
  return bounded<void>(loop_, local, targets_.timeout_ms, kj::mv(told));
}

kj::Promise<Result<void>> Nodes::follow_home(const rpc::Address& home) {
  if (!targets_.local_node) {
    return Result<void>(fail(ErrorCode::kInvalidArgument, "follow_home: there is no local node"));
  }
  if (home.kind != rpc::Address::Kind::kTcp) {
    return Result<void>(fail(ErrorCode::kInvalidArgument, "follow_home: must be host:port"));
  }
  return control_of(*targets_.local_node)
      .then([this, home](Result<kj::Own<NodeSession>> local) -> kj::Promise<Result<void>> {
        if (!local) return Result<void>(tl::unexpected(local.error()));
        if (followed_.empty()) told_ = kj::addRef(**local);
        followed_.emplace(home.to_string(), home);
        return tell_to_follow(**local, home);
      });
}

kj::Promise<void> Nodes::follow_again() {
  return control_of(*targets_.local_node)
      .then([this](Result<kj::Own<NodeSession>> local) -> kj::Promise<void> {
        if (!local) return kj::READY_NOW;  // tried again with the next renewal
        KJ_IF_MAYBE (told, told_) {
          if (told->get() == local->get()) return kj::READY_NOW;
        }
        told_ = kj::addRef(**local);
        kj::Vector<kj::Promise<void>> all;
        for (const auto& [name, home] : followed_) {
          all.add(tell_to_follow(**local, home).ignoreResult());
        }
        return kj::joinPromises(all.releaseAsArray());
      });
}

void Nodes::taskFailed(kj::Exception&& exception) {
  log().warn("renewing a session: {}", rpc::to_error(exception).to_string());
}

ClientCore::ClientCore(ClientTargets targets) {
  io_.run([&]() { nodes_ = std::make_unique<Nodes>(io_.loop(), std::move(targets)); });
}

ClientCore::~ClientCore() {
  io_.run([this]() { nodes_.reset(); });
}

}  // namespace bigcast
