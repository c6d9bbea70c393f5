#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/secret.h"
#include "codec/codec.h"

namespace bigcast {

struct ClientOptions {
  // Tried in order until one answers: "host:port" or "unix:PATH". Blobs are created on the first
  // that answers. May be empty if there is a local node: that is then used for everything.
  std::vector<std::string> servers;
  std::string local_node;  // "unix:@name" or "unix:/path"; empty: none
  // The nodes', or the key of the namespace (rpc::NamespaceKey::to_text); empty: nodes without one,
  // which are on loopback only.
  Secret secret;
  // Not empty: what is uploaded is encrypted from here to its readers, who need the same, and
  // nothing else is read (codec/chunk_seal.h). Nodes never learn it.
  Secret chunk_secret;
  std::string name_space = "default";
  LeaseId lease;  // zero: none; then only blobs with until_removed can be created
  std::string client_name = "client";
  bool local_reads = true;  // descriptors from the local node; false: bytes through the socket
  uint32_t progress_timeout_ms = limits::kProgressTimeoutMs;
};

// What connect() would refuse of these two without asking anybody.
Result<void> check_secret(const Secret& secret, const std::string& name_space);

struct UploadOptions {
  std::string name;
  std::optional<uint64_t> size;  // raw bytes if known: refused at once when it does not fit
  uint32_t chunk_size = limits::kChunkSizeDefault;
  Compression compression = Compression::kAuto;
  bool until_removed = false;
  bool replace = false;
  // Once the blob is known to have so many raw bytes, hosts whose readers follow its home begin to
  // fetch it, before anybody asks for it. 0: never. Needs a lease.
  uint64_t announce_from = 0;
  // The chunks are spread over so many of the client's servers, the first that answer, so that
  // none of their links carries all of it. Names are then found at the first of them.
  uint32_t homes = 1;
  // Each chunk is to be at so many homes: the first gets them, the others follow it. Sealed once
  // all have everything. At most limits::kReplicasMax; together with `homes`, no more than servers.
  uint32_t replicas = 1;
  bool durable = false;  // sealed once it would survive its nodes and their machines
  // Readers on a node's host may map it: its chunks are not compressed; one home only. No effect
  // where chunks are encrypted.
  bool mappable = false;
  uint64_t ttl_ms = 0;  // removed so long after it was sealed, at most limits::kTtlMsMax; 0: never
};

// Some bytes of a blob: from `first` on, before `end`; or, if `last` is not 0, the last so many.
struct ByteRange {
  uint64_t first = 0;
  uint64_t end = UINT64_MAX;  // may be beyond the blob's
  uint64_t last = 0;          // all, if the blob has fewer

  // Without `last`, of a blob of this size.
  ByteRange from_front(uint64_t size) const {
    return last == 0 ? *this : ByteRange{size - std::min(size, last), size};
  }
};

struct DownloadOptions {
  // Chunks come as they suit the source, what is in its memory first; Download::offset() says where
  // each belongs. For readers to whom the order is all one: it spares the source reading them
  // twice.
  bool any_order = false;
  // Only these bytes, and no chunk without any of them. Each chunk is verified by itself; only who
  // reads a whole blob can check its root digest. INVALID_ARGUMENT, from next(), when it begins at
  // or after the blob's end, or when `last` bytes are wanted while nobody knows where that will be.
  std::optional<ByteRange> range = {};
};

struct BlobSummary {
  std::string id, name_space, name;
  std::optional<uint64_t> size;
  uint64_t stored_size = 0, memory_bytes = 0, disk_bytes = 0;  // on the node that answered
  uint64_t age_ms = 0;
  uint64_t ttl_ms = 0;                    // 0: none
  std::optional<uint64_t> expires_in_ms;  // of a sealed blob with a ttl
  uint32_t pins = 0;                      // sessions that pin it
  uint32_t chunk_size = 0, chunk_count = 0;
  bool sealed = false, relay = false, durable = false, mappable = false;
  std::string ref;                 // as Upload::seal returns it
  std::string root_digest;         // 32 hexadecimal digits
  std::vector<std::string> homes;  // each has every `stripes`-th chunk
  uint32_t stripes = 1;
  uint32_t replicas = 1;  // how many homes are to have each chunk
};

struct NodeSummary {
  std::string address, version, epoch, advertised;
  uint64_t memory_budget = 0, memory_used = 0, disk_budget = 0, disk_used = 0, uptime_ms = 0;
  uint32_t pid = 0;
  bool draining = false;
  double round_trip_ms = 0;
};

// What a node says of itself and of what it runs on.
struct NodeReport {
  NodeSummary summary;
  std::string name;
  std::string not_ready;  // why, as at /readyz; empty: it is
  int64_t clock_ms = 0;   // its wall clock, since 1970
  uint64_t descriptor_limit = 0, descriptors_open = 0;
  uint64_t memory_limit = 0;  // of its control group; 0: none
  uint64_t memory_of_machine = 0;
  bool large_pages_unasked = false;  // its kernel gives it large pages that it can't count
  uint64_t disk_free = 0;            // of the file system that its disk tier is on; 0 without one
  uint64_t blobs = 0;
  uint64_t reserved_bytes = 0;  // of memory: promised to uploads
  uint64_t pinned_bytes = 0;    // ... an upper bound of what pins hold
  uint64_t mapped_bytes = 0;    // ... held for readers that mapped it
  uint32_t sessions = 0, connections = 0, leases = 0, relayed_blobs = 0;
  uint32_t uploads = 0, running_calls = 0;
  // Counted since its start.
  uint64_t received_bytes = 0, served_bytes = 0;            // to and from clients and other nodes
  uint64_t fetched_home_bytes = 0, fetched_peer_bytes = 0;  // of others' blobs
  uint64_t chunks_demoted = 0, chunks_dropped = 0;
  uint64_t chunks_quarantined = 0;  // ... but for this: those of now
  uint64_t checksum_failures = 0, login_failures = 0, peer_fetch_failures = 0;
  struct Peer {
    std::string address;
    Error error;
  };
  std::vector<Peer> unreachable;  // of the nodes that its readers need now
};

struct TransferStats {
  uint64_t raw_bytes = 0, stored_bytes = 0;
  uint32_t chunks = 0;
  uint32_t chunks_located = 0;  // read through a descriptor of the local node
  uint32_t chunks_reread = 0;   // failed verification or a dead source, and read again
  uint32_t chunks_forged = 0;   // with a right checksum, but not made by the blob's writer
  bool through_local_node = false;
};

// The node that a blob is sent to.
struct HomeNode {
  std::string epoch;       // new at each start of a node
  std::string advertised;  // where others reach it, "host:port"; empty: on its host only
};

// Writes one blob, chunk by chunk. Compression, checksums and sending run on native threads while
// the caller fills the next buffer; at most limits::kUploadWindowChunks chunks are held. Use it
// from one thread at a time. Destroying it before `seal` frees everything on the node.
class Upload {
 public:
  virtual ~Upload() = default;
  // The buffer for the next chunk, chunk_size bytes (kSealOverhead less if it will be encrypted),
  // valid until `commit`; waits while the window is full. Fails with what made the upload fail;
  // every later call repeats that.
  virtual Result<std::span<std::byte>> next_buffer() = 0;
  // Hands over the first `size` bytes (1 to the buffer's size). Only the last chunk may be short.
  virtual Result<void> commit(size_t size) = 0;
  // Waits for all chunks, seals; returns the ref as bytes (rpc::BlobRefData). Idempotent.
  virtual Result<std::string> seal() = 0;
  // Ends with ABORTED what another thread waits for here, and whatever is called later.
  virtual void interrupt() = 0;
  virtual HomeNode home() const = 0;  // the first, if it has several
  virtual TransferStats stats() const = 0;
};

// Reads one blob, in order unless DownloadOptions say otherwise. Fetching, verifying and
// decompressing run ahead on native threads, at most limits::kDownloadWindowChunks chunks; works on
// blobs that are still being written. A dead or lying source is left for the next one, and the
// transfer goes on with the chunk it was at. Use it from one thread at a time; destroying it stops
// the transfer.
class Download {
 public:
  virtual ~Download() = default;
  // The next chunk's raw bytes, valid until the next call; empty at the end, after the root digest
  // was checked. CORRUPT, ABORTED, NOT_FOUND, UNAVAILABLE or DEADLINE_EXCEEDED otherwise.
  virtual Result<std::span<const std::byte>> next() = 0;
  // Ends with ABORTED what another thread waits for here, and whatever is called later.
  virtual void interrupt() = 0;
  virtual uint64_t offset() const = 0;               // in the blob, of what next() gave last
  virtual std::optional<uint64_t> size() const = 0;  // raw bytes, once known
  virtual TransferStats stats() const = 0;
};

// A blob in the local node's memory, mapped into this process for as long as the object lives; then
// the node may use that memory for something else. Nobody can change its bytes. They count as this
// process's resident memory, like those of any shared library. It may outlive its Client (whose
// thread then stays), and belongs to the process that made it: in a child of fork(), destroying it
// leaves the mapping, which stays valid there, to the end of the child. Thread-safe.
class Mapping {
 public:
  virtual ~Mapping() = default;  // blocks for one call to the node
  // Page-aligned; nothing may read it once the object is destroyed.
  virtual std::span<const std::byte> bytes() const = 0;
};

// A blob in the local node's memory as a file that others open, by /proc and this process's
// descriptor: for programs that read files. Otherwise as Mapping, but for resident memory: nothing
// is mapped here. Who has opened it may read on when this object is gone, though the node does not
// count that memory any more.
class LentFile {
 public:
  virtual ~LentFile() = default;  // blocks for one call to the node
  // This object's own, closed when a program is executed. The blob is at the file's beginning; what
  // is behind it means nothing.
  virtual int descriptor() const = 0;
};

// Whether these are the bytes of the sealed blob with this ref, which was written neither
// compressed nor encrypted: CORRUPT if not.
Result<void> verify_content(std::string_view ref, std::span<const std::byte> content);

// A connection to Bigcast: owns one I/O thread. Thread-safe; methods block and end by a progress
// deadline with a typed error. Uploads and downloads may outlive no Client. Reconnects by itself
// when a node comes back.
class Client {
 public:
  static Result<std::unique_ptr<Client>> connect(ClientOptions options);
  virtual ~Client() = default;

  // On the first server that takes it: one that is away or about to stop does not.
  virtual Result<std::unique_ptr<Upload>> upload(UploadOptions options) = 0;
  // Not of encrypted blobs: no name tells their key.
  virtual Result<std::unique_ptr<Download>> download_name(const std::string& name,
                                                          DownloadOptions options = {}) = 0;
  virtual Result<std::unique_ptr<Download>> download_ref(std::string_view ref,
                                                         DownloadOptions options = {}) = 0;
  // The whole blob in place, its digests checked. Waits until it is sealed, and until the local
  // node has fetched all of it. NOT_MAPPABLE says why a download has to do instead: there is no
  // local node, the blob was not uploaded as mappable, or the node has no room to keep it in.
  virtual Result<std::unique_ptr<Mapping>> map_ref(std::string_view ref) = 0;
  // The same, digests and errors included, but for others to open.
  virtual Result<std::unique_ptr<LentFile>> lend_ref(std::string_view ref) = 0;
  virtual Result<BlobSummary> stat(const std::string& name) = 0;
  // Calls `each` in order of name until all are listed or it returns false.
  virtual Result<void> list(const std::string& prefix,
                            const std::function<bool(const BlobSummary&)>& each) = 0;
  virtual Result<void> remove_name(const std::string& name) = 0;
  virtual Result<void> remove_ref(std::string_view ref) = 0;
  // Keeps what is in memory of a sealed blob there, at its homes, until it is unpinned, removed, or
  // this client or its connection goes. Returns what the (first) home says of it. NOT_FOUND;
  // INVALID_ARGUMENT while it is written; RESOURCE_EXHAUSTED when pins would hold more than half of
  // a home's memory.
  virtual Result<BlobSummary> pin_name(const std::string& name) = 0;
  // Ends this client's pin, or those of all sessions of its namespace, which hear of it (ABORTED)
  // when they pin the blob again. Ok if it is not pinned.
  enum class Pins : uint8_t { kOwn, kEverybodys };
  virtual Result<void> unpin_name(const std::string& name, Pins pins = Pins::kOwn) = 0;
  virtual Result<void> drop_copies_ref(std::string_view ref) = 0;
  virtual Result<NodeSummary> ping() = 0;
  virtual Result<NodeReport> report() = 0;  // of the first server that answers
  // Has the local node fetch what writers with this client's lease announce at `home`
  // ("host:port"), into free memory only. Holds until the client goes, also when the local node is
  // started again. INVALID_ARGUMENT without a local node or a lease.
  virtual Result<void> follow_home(const std::string& home) = 0;
};

}  // namespace bigcast
