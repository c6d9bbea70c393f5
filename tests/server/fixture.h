#pragma once

#include <capnp/capability.h>
#include <kj/async.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rpc/connection.h"
#include "rpc/convert.h"
#include "server/node.h"

namespace bigcast::testing {

// A node on a loop that it shares with the test, listening on a port of the system's choice.
struct TestNode {
  explicit TestNode(rpc::UvLoop& loop, const std::function<void(Config&)>& adjust = {},
                    std::unique_ptr<Disk> disk = make_disk());
  const rpc::Address& tcp() const { return node->addresses().front(); }
  const rpc::Address& local() const { return node->addresses().back(); }  // if it has a socket
  NodeCore& core() { return node->core(); }
  Metrics& metrics() { return *node->core().metrics; }

  Config config;
  std::unique_ptr<Node> node;
};

std::string unique_socket();  // "unix:@...", used by nobody else

// A logged-in connection; members go last to first.
struct TestClient {
  kj::Own<rpc::Connection> connection;
  rpc::Session::Client session;
};

struct LoginAs {
  std::string name_space = "app";
  LeaseId lease{};
  std::string secret{};  // the node's or the key of the namespace; empty: none
};

Result<TestClient> try_login(rpc::UvLoop& loop, const rpc::Address& address, const LoginAs& as);
TestClient login(rpc::UvLoop& loop, const rpc::Address& address, const LoginAs& as = {});

// Lets the loop run until `done` or, failing the test, for 20 s.
void run_until(rpc::UvLoop& loop, const std::function<bool()>& done, std::string_view what);
void run_for(rpc::UvLoop& loop, std::chrono::milliseconds time);

constexpr uint32_t kSmallChunk = limits::kChunkSizeMin;

struct Chunk {
  bigcast::ChunkMeta meta;
  std::string bytes;
};
// Bytes that differ by index and do not compress: chunk `index` of a test blob.
Chunk make_chunk(uint32_t index, uint32_t size = kSmallChunk);
Digest128 root_of_chunks(uint32_t count);  // of small ones

struct NewBlob {
  std::string name = "blob";
  int64_t size = -1;
  uint32_t chunk_size = kSmallChunk;
  bool until_removed = true;
  bool replace = false;
  bool durable = false;
  uint64_t announce_from = 0;
  std::optional<rpc::BlobRefData> striped{};  // of which one stripe is created
  uint32_t stripe = 0;
};

struct Created {
  rpc::Upload::Client upload;
  rpc::BlobRefData ref;
};

capnp::RemotePromise<rpc::Upload::SealResults> start_seal(rpc::Upload::Client upload, uint64_t size,
                                                          uint32_t chunk_count,
                                                          Digest128 root = {});  // zero: none

// The calls, waited for; errors of the schema's unions become Results.
class Caller {
 public:
  Caller(rpc::UvLoop& loop, rpc::Session::Client session) : loop_(loop), session_(session) {}

  Result<Created> create(const NewBlob& blob);
  Result<void> credit(rpc::Upload::Client upload, uint32_t bytes);
  Result<void> put(rpc::Upload::Client upload, const Chunk& chunk);   // without asking for credit
  Result<void> send(rpc::Upload::Client upload, const Chunk& chunk);  // credit, then put
  Result<rpc::BlobRefData> seal(rpc::Upload::Client upload, uint64_t size, uint32_t chunk_count,
                                Digest128 root = {});
  // A sealed blob of `chunks` whole chunks.
  rpc::BlobRefData put_blob(const NewBlob& blob, uint32_t chunks);

  Result<rpc::Blob::Client> open_name(const std::string& name);
  Result<rpc::Blob::Client> open_ref(const rpc::BlobRefData& ref,
                                     rpc::ReadOrder order = rpc::ReadOrder::UNKNOWN);
  Result<rpc::Blob::Client> open_home(BlobId id);
  Result<rpc::Blob::Client> open_copy(BlobId id);
  Result<void> remove_name(const std::string& name);
  Result<void> drop_copies(BlobId id);
  Result<rpc::BlobRefData> stat(const std::string& name);
  std::vector<std::string> list(const std::string& prefix = "");

 private:
  Result<rpc::Blob::Client> open(const std::function<void(rpc::OpenTarget::Builder)>& target,
                                 rpc::ReadOrder order = rpc::ReadOrder::UNKNOWN);
  rpc::UvLoop& loop_;
  rpc::Session::Client session_;
};

struct ReadAnswer {
  std::optional<Error> error;
  bool is_end = false;
  bool is_located = false;
  bool is_absent = false;
  bigcast::ChunkMeta meta;
  std::string bytes;  // stored, without the padding
};
kj::Promise<ReadAnswer> start_read(rpc::Blob::Client blob, uint32_t index,
                                   rpc::ReadMode mode = rpc::ReadMode::BYTES);
ReadAnswer read(rpc::UvLoop& loop, rpc::Blob::Client blob, uint32_t index,
                rpc::ReadMode mode = rpc::ReadMode::BYTES);
bool matches(const ReadAnswer& answer, const Chunk& chunk);

// A node with a client.
struct Host {
  Host(rpc::UvLoop& loop, LeaseId lease, const std::function<void(Config&)>& adjust = {},
       std::unique_ptr<Disk> disk = make_disk())
      : node(loop, adjust, std::move(disk)),
        client(login(loop, node.tcp(), {.lease = lease})),
        caller(loop, client.session) {}
  uint64_t fetched() {
    return node.metrics().chunks_fetched_home + node.metrics().chunks_fetched_peer;
  }
  bool has(BlobId id) { return node.core().store->stat(id).has_value(); }
  uint32_t chunks(BlobId id) {
    const auto stat = node.core().store->stat(id);
    return stat ? stat->chunk_count : 0;
  }

  TestNode node;
  TestClient client;
  Caller caller;
};

// A directory that is gone at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  std::string path(const std::string& name = "") const;
  std::string write(const std::string& name, const std::string& text, int mode = 0600) const;

 private:
  std::string path_;
};

}  // namespace bigcast::testing
