#pragma once

#include <kj/async.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client_native/client.h"
#include "client_native/node_link.h"
#include "rpc/io_thread.h"

namespace bigcast {

// What to connect to, checked and resolved: from ClientOptions, made on the caller's thread.
struct ClientTargets {
  static Result<ClientTargets> from(const ClientOptions& options);

  std::vector<rpc::Address> servers;
  std::optional<rpc::Address> local_node;
  rpc::NamespaceKey key;
  Secret chunk_secret;
  LeaseId lease;
  std::string client_name;
  bool local_reads;
  uint32_t timeout_ms;
};

// A client's links to nodes. Two to a node: `control` carries renewals and small calls, so that a
// long queue of chunks on `bulk` can't end the lease. On the I/O thread only.
class Nodes : private kj::TaskSet::ErrorHandler {
 public:
  Nodes(rpc::UvLoop& loop, ClientTargets targets);

  using Session = Result<kj::Own<NodeSession>>;

  // The nodes to ask for names and creates, in order: the servers, else the local node. On any
  // thread.
  std::vector<rpc::Address> entry_points() const;
  // The same nodes in the same order, but for those that have been silent, which come last.
  std::vector<rpc::Address> silent_last(std::vector<rpc::Address> addresses) const;
  // The first entry point that answers. Its own error if there is one, else UNAVAILABLE.
  kj::Promise<Session> control();

  kj::Promise<Session> control_of(const rpc::Address& address);
  kj::Promise<Session> bulk_of(const rpc::Address& address);
  // Nothing if there is no answer within limits::kNextServerMs: then others may be asked meanwhile,
  // and this one again after them.
  using Soon = std::optional<Session>;
  kj::Promise<Soon> control_soon(const rpc::Address& address);
  kj::Promise<Soon> bulk_soon(const rpc::Address& address);
  void forget_bulk(NodeSession& dead);

  // Connects to the entry point and attaches to the local node. Fails if neither answers.
  kj::Promise<Result<void>> start();

  // Asks the local node to follow this home, now and whenever there is a new session with it.
  kj::Promise<Result<void>> follow_home(const rpc::Address& home);

  rpc::UvLoop& loop() { return loop_; }
  const ClientTargets& targets() const { return targets_; }

 private:
  using Links = std::map<std::string, kj::Own<NodeLink>>;
  NodeLink& link(Links& links, const rpc::Address& address);
  kj::Promise<Soon> soon(kj::Promise<Session> session);
  kj::Promise<Session> control_from(std::vector<rpc::Address> addresses, size_t position,
                                    size_t soon_before);
  kj::Promise<void> keep_alive();
  kj::Promise<Result<void>> tell_to_follow(NodeSession& local, const rpc::Address& home);
  kj::Promise<void> follow_again();
  void taskFailed(kj::Exception&& exception) override;

  rpc::UvLoop& loop_;
  const ClientTargets targets_;
  Links control_;
  Links bulk_;
  std::map<std::string, rpc::Address> followed_;
  kj::Maybe<kj::Own<NodeSession>> told_;  // the local node's session that knows them
  kj::TaskSet renewals_{*this};
  kj::Promise<void> keeping_alive_;
};

// Shared by a client and its transfers; the last of them ends the thread.
class ClientCore {
 public:
  explicit ClientCore(ClientTargets targets);
  ~ClientCore();
  ClientCore(const ClientCore&) = delete;
  ClientCore& operator=(const ClientCore&) = delete;

  rpc::IoThread& io() { return io_; }
  Nodes& nodes() { return *nodes_; }  // on the I/O thread only

 private:
  rpc::IoThread io_;
  std::unique_ptr<Nodes> nodes_;
};

Result<std::unique_ptr<Upload>> start_upload(const std::shared_ptr<ClientCore>& core,
                                             const UploadOptions& options);
Result<std::unique_ptr<Download>> start_download(const std::shared_ptr<ClientCore>& core,
                                                 const rpc::BlobRefData& ref,
                                                 DownloadOptions options);
// Finds the blob by its name at an entry point first.
Result<std::unique_ptr<Download>> start_download(const std::shared_ptr<ClientCore>& core,
                                                 const std::string& name, DownloadOptions options);

Result<std::unique_ptr<Mapping>> map_blob(const std::shared_ptr<ClientCore>& core,
                                          const rpc::BlobRefData& ref);
Result<std::unique_ptr<LentFile>> lend_blob(const std::shared_ptr<ClientCore>& core,
                                            const rpc::BlobRefData& ref);

// True when another node may still have an answer.
inline bool node_did_not_answer(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded;
}

}  // namespace bigcast
