#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "client_native/client_core.h"

namespace bigcast {

namespace {

using OpenResponse = capnp::Response<rpc::Session::OpenResults>;
using MapResponse = capnp::Response<rpc::Blob::MapResults>;

// What a node gave out: to be returned to it whatever becomes of the mapping.
struct Lent {
  rpc::Address node;
  Id128 token;
};

// Memory of a node that this process uses: returned to the node at its end.
class Loan {
 public:
  Loan(std::shared_ptr<ClientCore> core, Lent lent)
      : core_(std::make_unique<std::shared_ptr<ClientCore>>(std::move(core))),
        lent_(std::move(lent)),
        process_(getpid()) {}
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
  ~Loan() {
    if (is_of_parent()) {
      static_cast<void>(core_.release());
      return;
    }
    // If it can't be told the node learns from this process's end.
    (void)(*core_)->io().blocking([this]() { return give_back(); });
  }
  // In a child of fork(): the I/O thread is the parent's. What is mapped stays, as may its readers.
  bool is_of_parent() const { return getpid() != process_; }

 private:
  kj::Promise<Result<void>> give_back();

  std::unique_ptr<std::shared_ptr<ClientCore>> core_;  // may be left behind
  const Lent lent_;
  const pid_t process_;
};

class MappingHandle final : public Mapping {
 public:
  explicit MappingHandle(std::unique_ptr<Loan> loan) : loan_(std::move(loan)) {}
  ~MappingHandle() override {
    if (data_ != nullptr && !loan_->is_of_parent()) munmap(data_, size_);
  }
  std::span<const std::byte> bytes() const override {
    return {static_cast<const std::byte*>(data_), size_};
  }

  Result<void> map(int fd, uint64_t size);
  std::unique_ptr<Loan> unmap() {
    munmap(std::exchange(data_, nullptr), std::exchange(size_, 0));
    return std::move(loan_);
  }

 private:
  std::unique_ptr<Loan> loan_;  // ends after the mapping
  void* data_ = nullptr;
  size_t size_ = 0;
};

class LentFileHandle final : public LentFile {
 public:
  LentFileHandle(std::unique_ptr<Loan> loan, kj::AutoCloseFd file)
      : loan_(std::move(loan)), file_(std::move(file)) {}
  ~LentFileHandle() noexcept override {}
  int descriptor() const override { return file_.get(); }

 private:
  std::unique_ptr<Loan> loan_;
  kj::AutoCloseFd file_;  // goes first
};

// A file that could be shortened under the mapping would end this process by a signal, and one that
// could be written would not be a blob.
Result<void> check_file(int fd, uint64_t size) {
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE;
  struct stat status {};
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals || fstat(fd, &status) != 0 ||
      static_cast<uint64_t>(status.st_size) < size) {
    return fail(ErrorCode::kCorrupt,
                "map: what the node gave is no sealed file of the blob's size");
  }
  return {};
}

Result<void> MappingHandle::map(int fd, uint64_t size) {
  BIGCAST_TRY(check_file(fd, size));
  void* const data = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    return fail(ErrorCode::kNotMappable, errno_message("map " + std::to_string(size), errno));
  }
  data_ = data;
  size_ = size;
  // Page tables for all of it at once; where the kernel does not know this the faults come.
  madvise(data, size, MADV_POPULATE_READ);
  return {};
}

Result<void> verify(std::span<const std::byte> all, uint32_t chunk_size,
                    const Digest128& root_digest) {
  RootDigest root;
  for (size_t offset = 0; offset < all.size(); offset += chunk_size) {
    root.add(digest_of(all.subspan(offset, std::min<size_t>(chunk_size, all.size() - offset))));
  }
  if (root.finish() == root_digest) return {};
  return fail(ErrorCode::kCorrupt, "the bytes do not have the blob's root digest");
}

kj::Promise<Result<void>> Loan::give_back() {
  Nodes& nodes = (*core_)->nodes();
  return nodes.control_of(lent_.node)
      .then([this, &nodes](Result<kj::Own<NodeSession>> node) -> kj::Promise<Result<void>> {
        if (!node) return Result<void>(tl::unexpected(node.error()));
        auto request = (*node)->session.returnMappingRequest();
        rpc::write(lent_.token, request.initToken());
        return bounded<void>(nodes.loop(), **node, nodes.targets().timeout_ms,
                             request.send().then([](auto&&) { return Result<void>(); }));
      });
}

// One call of map_ref or lend_ref. On the I/O thread.
class MapJob {
 public:
  struct Given {
    kj::AutoCloseFd fd;
    uint64_t size = 0;
    Digest128 root_digest;
    Id128 token;
  };

  MapJob(Nodes& nodes, rpc::BlobRefData ref, rpc::Address node)
      : nodes_(nodes), ref_(std::move(ref)), node_(std::move(node)) {}

  kj::Promise<Result<Given>> run() {
    // Not among chunks: a node that has to fetch all of it may take long.
    return nodes_.control_of(node_).then(
        [this](Result<kj::Own<NodeSession>> session) -> kj::Promise<Result<Given>> {
          if (!session) return Result<Given>(tl::unexpected(session.error()));
          session_ = kj::mv(*session);
          return open().then([this](Result<OpenResponse> opened) -> kj::Promise<Result<Given>> {
            if (!opened) return Result<Given>(tl::unexpected(opened.error()));
            return map(opened->getResult().getOpened().getBlob());
          });
        });
  }

 private:
  kj::Promise<Result<OpenResponse>> open() {
    auto request = session_->session.openRequest();
    rpc::write(ref_, request.initTarget().initRef());
    return bounded<OpenResponse>(
        nodes_.loop(), *session_, nodes_.targets().timeout_ms,
        request.send().then([](OpenResponse&& response) -> Result<OpenResponse> {
          const auto result = response.getResult();
          if (result.isError()) return tl::unexpected(rpc::read(result.getError()));
          return kj::mv(response);
        }));
  }

  kj::Promise<Result<Given>> map(rpc::Blob::Client blob) {
    auto call = blob.mapRequest().send();
    return bounded<MapResponse>(nodes_.loop(), *session_, nodes_.targets().timeout_ms,
                                call.then([](MapResponse&& response) -> Result<MapResponse> {
                                  const auto result = response.getResult();
                                  if (result.isError())
                                    return tl::unexpected(rpc::read(result.getError()));
                                  return kj::mv(response);
                                }),
                                WaitsFor::kWriter)  // or for the node, which fetches it
        .then([this](Result<MapResponse> response) -> kj::Promise<Result<Given>> {
          if (!response) return Result<Given>(tl::unexpected(response.error()));
          return take(kj::mv(*response));
        })
        .attach(kj::mv(blob));
  }

  kj::Promise<Result<Given>> take(MapResponse response) {
    const auto mapped = response.getResult().getMapped();
    auto given = kj::heap<Given>();
    given->size = mapped.getSize();
    given->token = rpc::read(mapped.getToken());
    auto file = mapped.getFile();
    return file.getFd()
        .then([given = kj::mv(given), file](kj::Maybe<int> fd) mutable {
          KJ_IF_MAYBE (number, fd) {
            given->fd = kj::AutoCloseFd(fcntl(*number, F_DUPFD_CLOEXEC, 0));
          }
          return kj::mv(given);
        })
        .then([this](kj::Own<Given> given) -> kj::Promise<Result<Given>> {
          // Sealed by now; when it was opened for the first time it may not have been.
          return open().then(
              [given = kj::mv(given)](Result<OpenResponse> opened) mutable -> Result<Given> {
                if (opened) {
                  auto ref = rpc::read(opened->getResult().getOpened().getInfo().getRef());
                  if (ref) given->root_digest = ref->root_digest;
                }
                return kj::mv(*given);
              });
        });
  }

  Nodes& nodes_;
  const rpc::BlobRefData ref_;
  const rpc::Address node_;
  kj::Own<NodeSession> session_;
};

// The node that shares memory with this process.
std::optional<rpc::Address> local_node(const ClientTargets& targets) {
  if (targets.local_node) return targets.local_node;
  for (const auto& server : targets.servers) {
    if (server.kind == rpc::Address::Kind::kUnix) return server;
  }
  return std::nullopt;
}

// A blob that is mapped and whose bytes are the right ones, and the descriptor that it was mapped
// by.
struct Mapped {
  std::unique_ptr<MappingHandle> mapping;
  kj::AutoCloseFd file;
};

Result<Mapped> map_verified(const std::shared_ptr<ClientCore>& core, const rpc::BlobRefData& ref) {
  const auto node = local_node(core->nodes().targets());
  if (!node) return fail(ErrorCode::kNotMappable, "map: no node of this host is known");
  if (ref.stripes > 1) return fail(ErrorCode::kNotMappable, "map: the blob has several homes");
  if (!core->nodes().targets().local_reads) {
    return fail(ErrorCode::kNotMappable, "map: local reads are switched off");
  }
  BIGCAST_ASSIGN(auto given, core->io().blocking([&]() {
    auto job = kj::heap<MapJob>(core->nodes(), ref, *node);
    auto running = job->run();
    return running.attach(kj::mv(job));
  }));
  auto mapping =
      std::make_unique<MappingHandle>(std::make_unique<Loan>(core, Lent{*node, given.token}));
  if (given.fd.get() < 0) {
    return fail(ErrorCode::kNotMappable, "map: no descriptor arrives here");
  }
  BIGCAST_TRY(mapping->map(given.fd.get(), given.size));
  const Digest128 root = ref.root_digest == Digest128{} ? given.root_digest : ref.root_digest;
  BIGCAST_TRY(verify(mapping->bytes(), ref.chunk_size, root));
  return Mapped{std::move(mapping), std::move(given.fd)};
}

}  // namespace

Result<std::unique_ptr<Mapping>> map_blob(const std::shared_ptr<ClientCore>& core,
                                          const rpc::BlobRefData& ref) {
  BIGCAST_ASSIGN(auto mapped, map_verified(core, ref));
  return std::move(mapped.mapping);
}

Result<std::unique_ptr<LentFile>> lend_blob(const std::shared_ptr<ClientCore>& core,
                                            const rpc::BlobRefData& ref) {
  BIGCAST_ASSIGN(auto mapped, map_verified(core, ref));
  return std::make_unique<LentFileHandle>(mapped.mapping->unmap(), std::move(mapped.file));
}

Result<void> verify_content(std::string_view ref, std::span<const std::byte> content) {
  BIGCAST_ASSIGN(const auto parsed, rpc::BlobRefData::from_bytes(ref));
  return verify(content, parsed.chunk_size, parsed.root_digest);
}

}  // namespace bigcast
