#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/limits.h"
#include "blobstore/stripe.h"
#include "codec/codec.h"
#include "eviction/policy.h"

namespace bigcast {

// Why a chunk is put. Ahead: nobody has asked for it yet; it takes free memory only, is dropped and
// not demoted, and with the policy `demand` leaves before the others until it is read.
enum class Put : uint8_t { kAwaited, kAhead };

// A home keeps a blob's chunks until it is removed; a relay may drop any of them at any time.
enum class BlobRole : uint8_t { kHome, kRelay };

// What a sealed home outlives: nothing but its lease, or the end of the process and of the machine.
enum class Durability : uint8_t { kMemory, kDisk };

struct CreateOptions {
  BlobId id;
  std::string name_space;
  std::string name;
  BlobRole role = BlobRole::kHome;
  uint32_t chunk_size = limits::kChunkSizeDefault;
  std::optional<uint64_t> size;  // raw bytes if known: a home reserves them whole (its stripe's)
  LeaseId lease;                 // zero: lives until removed
  bool replace = false;          // take over the name from another blob when sealed
  Stripe stripe;                 // a home has the name only of stripe 0
  std::string note;  // of whoever creates it: means nothing to the store, and is as durable as it
  Durability durability = Durability::kMemory;  // of a home
  // Readers may map it: takes raw chunks only. Not of a stripe; a restart forgets it.
  bool mappable = false;
  // Of a home that has the name: expired() names it so long after its seal; 0: never.
  Duration ttl{};
};

struct BlobStat {
  BlobId id;
  std::string name_space;
  std::string name;
  BlobRole role = BlobRole::kHome;
  uint32_t chunk_size = 0;
  std::optional<uint64_t> size;  // raw; known when sealed or declared
  bool sealed = false;
  uint32_t chunk_count = 0;   // chunks stored here so far (a sealed home: all of its stripe)
  uint64_t stored_size = 0;   // their stored bytes
  uint64_t memory_bytes = 0;  // resident, in whole pages
  uint64_t disk_bytes = 0;    // in whole disk blocks
  Digest128 root_digest;      // zero until sealed
  LeaseId lease;
  Durability durability = Durability::kMemory;
  TimePoint created_at{};  // or found at the start of the store
  Duration ttl{};
  std::optional<TimePoint> expires_at;  // of a sealed home with a ttl
  uint32_t pins = 0;
  Stripe stripe;
  std::string note;
  bool mappable = false;
  std::optional<BlobId> replaced;  // as seal() answers: it took the name from this one, now gone
};

using eviction::ReadOrder;

struct StoreUsage {
  uint64_t memory_budget = 0;
  uint64_t memory_used = 0;        // allocated pages of all chunks in memory ...
  uint64_t memory_spare = 0;       // ... and of dead blobs, kept; the sum is never above the budget
  uint64_t memory_unread_max = 0;  // chunks that are put ahead fill memory up to this
  uint64_t memory_mapped = 0;      // ... of what is used: held for mappings
  uint64_t memory_mapped_left = 0;  // ... of those, what is its holders' alone
  uint64_t disk_budget = 0;
  uint64_t disk_used = 0;
  uint64_t reserved = 0;  // promised to homes' uploads, beyond what they have stored
  uint64_t pinned = 0;    // an upper bound of what pinned blobs take
  uint64_t blobs = 0;
  uint64_t removals_left = 0;  // that the disk had no room for
  uint64_t descriptors = 0;
  bool disk_read_only = false;  // see disk_failure()
  // Counted since the start.
  uint64_t chunks_demoted = 0;
  uint64_t chunks_dropped = 0;
  uint64_t chunks_promoted = 0;  // brought back from disk because they were read
  uint64_t chunks_read_memory = 0;
  uint64_t chunks_read_disk = 0;
  uint64_t bytes_read_memory = 0;  // stored bytes of those
  uint64_t bytes_read_disk = 0;
  uint64_t checksum_failures = 0;
  uint64_t chunks_quarantined = 0;  // homes' chunks whose only copy here is damaged
  uint64_t chunks_damaged = 0;      // ... of those, still so
  uint64_t chunks_repaired = 0;     // ... written anew, from memory or by whoever had them
  uint64_t chunks_scrubbed = 0;     // read by scrub()
  uint64_t scrub_cycles = 0;        // ... of all that is on disk
  uint64_t blobs_recovered = 0;     // found on disk at the start
  uint64_t blobs_lost = 0;          // ... and not whole
};

// What a namespace's homes take of its quota.
struct NamespaceUsage {
  std::string name;
  uint64_t quota = 0;  // bytes; 0: none
  bool has_own_quota = false;
  uint64_t used = 0;      // of chunks, in whole pages, in either tier
  uint64_t reserved = 0;  // promised to uploads beyond that
};

// Where a chunk stands on this node.
enum class Presence : uint8_t {
  kAbsent,     // not (or no longer) here: not yet written, not yet fetched, or dropped
  kMemfd,      // resident in the blob's memory file
  kElsewhere,  // resident in ordinary memory or on disk: read_chunk gives its bytes
  kEnd,        // the blob is sealed and has fewer chunks
};

struct Location {
  Presence presence = Presence::kAbsent;
  ChunkMeta meta;           // for kMemfd and kElsewhere
  uint32_t generation = 0;  // for kMemfd: of the memory file
  bool is_here() const { return presence == Presence::kMemfd || presence == Presence::kElsewhere; }
};

// A whole blob, for a reader to map: its first `size` bytes are in the file, which can't be
// written, shortened or punched. The caller owns and closes the descriptor, which can only read.
struct MappableFile {
  int fd = -1;
  uint64_t size = 0;
};

// Keeps a blob that readers have mapped.
struct Hold {
  // What was mapped is the holders' alone: the blob was removed, or its chunks were dropped.
  std::atomic<bool> is_left{false};
};

// A read-only descriptor of a blob's memory file; the caller owns and closes it.
struct MemoryFile {
  int fd = -1;
  uint32_t generation = 0;
};

// What scrub() did.
struct ScrubTurn {
  uint64_t bytes = 0;  // read; the index counts as an extent
  bool cycle_ended = false;
};

struct DamagedChunk {
  BlobId id;
  ChunkMeta meta;
};

// A chunk's stored bytes where they rest, not verified again. While `pin` lives the chunk is
// not evicted; if its blob is removed or its copy dropped and another view of it ends, the bytes
// turn to zeros, which fail the checksum of whoever reads them. Must not outlive the store; the pin
// may go on any thread.
struct ChunkView {
  ChunkMeta meta;
  std::span<const std::byte> bytes;  // readable, and zero, up to the next multiple of 8
  std::shared_ptr<const void> pin;
};

// A node's blobs: a memory tier under a budget and, behind it, a disk tier.
//
// Memory tier: a memfd a blob (mode 0400 before its descriptor leaves), chunk i's stored bytes at
// i * chunk_size, evicted by punching a hole; a blob whose only chunk is at most
// limits::kInlineBlobSizeMax rests in ordinary memory. Disk tier: 256 MiB extents beside a RocksDB
// index. A mappable blob's memory file is frozen when it is first mapped: it then keeps its pages
// until all of its chunks have left and nobody has it mapped. When memory is full the eviction
// policy's victim is demoted to disk, or dropped if it is a relay's and there is no room on disk;
// homes' chunks are never dropped. The policy is told who reads what (open_stream), what nobody
// will read (release) and what was fetched ahead.
//
// Durability. A home's chunks of Durability::kDisk are written to disk when they are put, and its
// seal succeeds once all of it would survive a crash; a copy stays in memory while there is room.
// A store that is opened again has exactly the durable blobs whose seal had succeeded and whose
// removal had not, each whole. When a write or sync of the disk has failed, its tier only gives
// what it has until the store is opened again: durable blobs are refused, nothing is demoted, and
// the removal of a durable blob fails with IO, since it would come back. When the disk is full
// nothing has failed: what needs room on it is refused with RESOURCE_EXHAUSTED, and goes on once
// there is some.
//
// Thread-safe: any method from any thread. create, stat, locate, ... are quick; put_chunk,
// read_chunk, remove, trim and the constructor may do file I/O and block, so call those off event
// loops. I/O happens outside the lock.
class BlobStore {
 public:
  struct Options {
    uint64_t memory_budget = 0;     // bytes, at least 2 chunks of the default size
    std::string disk_path;          // a directory; empty: no disk tier
    uint64_t disk_budget = 0;       // bytes; 0 with a disk_path is INVALID_ARGUMENT
    bool keep = true;               // false: starts and ends empty, refuses durable blobs
    std::string policy = "demand";  // any of eviction::kPolicyNames
    // Bytes that the homes of a namespace may take, in both tiers, reservations included; what is
    // pinned is among them. 0: no limit but the budgets.
    std::map<std::string, uint64_t, std::less<>> quotas;
    uint64_t default_quota = 0;  // of a namespace that is not among them
    // Percent of the memory budget, limits::kMemoryMarkMin to 100, low <= high: what
    // make_room_ahead begins above, and where it ends.
    uint32_t memory_high = limits::kMemoryHighDefault;
    uint32_t memory_low = limits::kMemoryLowDefault;
    size_t chunks_max = limits::kChunksMax;  // that it holds, in memory and on disk
    const Clock* clock = nullptr;            // required; must outlive the store
  };

  // Starts with the durable blobs below disk_path/bigcast; all else there is deleted. Blobs of
  // which something is missing are logged by name and forgotten. INVALID_ARGUMENT names the option;
  // IO if the directory can't be written; CORRUPT if its index is damaged; ALREADY_EXISTS, naming
  // the lock file, if another process uses it.
  static Result<std::unique_ptr<BlobStore>> open(Options options);
  virtual ~BlobStore() = default;

  // A home's known size is reserved whole (memory + disk): RESOURCE_EXHAUSTED names the budgets, or
  // the namespace and its quota.
  // ALREADY_EXISTS if the name is taken and !replace, or the id is known. A durable blob has to fit
  // on the disk: INVALID_ARGUMENT if there is none, IO if it is read-only.
  virtual Result<void> create(const CreateOptions& options) = 0;

  // Raises a home's reservation to `total` bytes in all. RESOURCE_EXHAUSTED if it does not fit.
  virtual Result<void> reserve(BlobId id, uint64_t total) = 0;

  // Verifies and stores one chunk, making room first. Only what was reserved is sure to fit. The
  // same chunk again is a no-op, unless the one here is damaged: that is repaired, also of a sealed
  // blob. Another digest for it is INVALID_ARGUMENT. For a relay with no
  // room: RESOURCE_EXHAUSTED, and the chunk is simply not kept.
  virtual Result<void> put_chunk(BlobId id, const ChunkMeta& meta,
                                 std::span<const std::byte> stored, Put why = Put::kAwaited) = 0;

  // Checks that those of the chunks 0..chunk_count-1 that belong here are there (home) and fit the
  // `size` of the whole, gives back what was reserved and not used. Idempotent: after an error of
  // the disk, too, where the blob is as it was. A home of all chunks computes the root digest;
  // CORRUPT if another one is given. Whoever has but a stripe needs it given. For a relay it
  // records the home's figures and checks nothing.
  virtual Result<BlobStat> seal(BlobId id, uint64_t size, uint32_t chunk_count,
                                std::optional<Digest128> root_digest = std::nullopt) = 0;

  // Frees everything of the blob at once, but for pages that are kept for the next blob of its
  // namespace; a read_chunk under way finishes or says NOT_FOUND. IO: a durable blob is gone, but
  // it will be back when the store is opened again. RESOURCE_EXHAUSTED: the same, unless trim()
  // finds room on disk to write it down before that; until then its place there stays taken, and
  // its id.
  virtual Result<void> remove(BlobId id) = 0;
  // For a relay: frees its chunks but remembers the blob. INVALID_ARGUMENT for a home.
  virtual Result<void> drop_chunks(BlobId id) = 0;
  // Removes all blobs of a lease; returns their ids.
  virtual std::vector<BlobId> remove_lease(LeaseId lease) = 0;

  // Somebody is about to read the blob in this order. The stream is open until it is closed,
  // whatever becomes of the blob. NOT_FOUND.
  virtual Result<uint64_t> open_stream(BlobId id, ReadOrder order) = 0;
  virtual void close_stream(uint64_t stream) = 0;  // no-op if it is not open
  // Nobody is expected to read the blob again: its chunks leave memory first. No-op if there is
  // none.
  virtual void release(BlobId id) = 0;

  // Keeps the chunks of a sealed home that are in memory there, until there are as many unpins. A
  // pin goes with its blob. NOT_FOUND; INVALID_ARGUMENT for a relay or an unsealed blob;
  // RESOURCE_EXHAUSTED when pins would hold more than a limits::kPinnedShare-th of the memory.
  virtual Result<void> pin(BlobId id) = 0;
  virtual void unpin(BlobId id) = 0;  // no-op if it is not pinned

  // Homes whose time to live is over. The caller removes them; until then they are named again.
  virtual std::vector<BlobId> expired() const = 0;

  // Counts as a read of the chunk, by `stream` if it is not 0: whoever locates it gets it. The
  // other calls that give a chunk are made after this one and don't count.
  virtual Result<Location> locate(BlobId id, uint32_t index, uint64_t stream = 0) = 0;
  // The same for who reads nothing.
  virtual Result<Location> peek(BlobId id, uint32_t index) const = 0;
  // Copies the stored bytes into `buffer` (at least the blob's chunk size) and verifies them.
  // NOT_FOUND: no such blob or chunk here. CORRUPT: the checksum failed.
  virtual Result<ChunkMeta> read_chunk(BlobId id, uint32_t index, std::span<std::byte> buffer) = 0;
  // The same, and what was on disk only is then in memory, too: if there is room, and the policy
  // finds it worth more than what would leave for it. It waits for nobody's room and writes nothing
  // to disk; what it found no room for counts for make_room_ahead.
  virtual Result<ChunkMeta> load_chunk(BlobId id, uint32_t index, std::span<std::byte> buffer) = 0;
  // The stored bytes in place, for as long as it takes to send them. NOT_FOUND: not resident, or
  // limits::kServeReserve or a quarter of the memory budget is viewed: use read_chunk.
  virtual Result<ChunkView> view_chunk(BlobId id, uint32_t index) = 0;
  // Keeps a sealed mappable blob's chunks in memory, those that are there and those that come,
  // until the last copy of the result goes: hold it as long as a reader has the blob mapped. What
  // is held stays counted even if the blob is removed. NOT_MAPPABLE: it is no such blob, or more
  // than 1 / limits::kMappedShare of the memory budget would be held. The result must not outlive
  // the store; its end may take as long as giving back the blob's pages does.
  virtual Result<std::shared_ptr<const Hold>> hold(BlobId id) = 0;
  // All of the blob in one file that changes no more. Brings back what is on disk, and blocks for
  // that. NOT_FOUND: a chunk is not here; a relay fetches it and calls again. Requires: a hold.
  virtual Result<MappableFile> map(BlobId id) = 0;
  // NOT_FOUND if nothing of the blob is in a memory file.
  virtual Result<MemoryFile> memory_file(BlobId id) = 0;

  virtual Result<BlobId> find(std::string_view name_space, std::string_view name) const = 0;
  virtual Result<BlobStat> stat(BlobId id) const = 0;
  // The indices of the chunks that are here, or in memory here, in no order; counts as no read.
  virtual std::vector<uint32_t> stored_chunks(BlobId id) const = 0;
  virtual std::vector<uint32_t> resident_chunks(BlobId id) const = 0;
  // In order of name, homes only, after `after`, at most `limit`.
  virtual std::vector<BlobStat> list(std::string_view name_space, std::string_view prefix,
                                     std::string_view after, size_t limit) const = 0;
  // As list(), of all namespaces, in order of "namespace/name", none before `first_key`.
  virtual std::vector<BlobStat> list_all(std::string_view first_key, size_t limit) const = 0;
  virtual StoreUsage usage() const = 0;
  // In order of name: those that have a quota of their own, and those that have blobs.
  virtual std::vector<NamespaceUsage> namespaces() const = 0;
  // Instead of those of Options; what is beyond them stays.
  virtual void set_quotas(std::map<std::string, uint64_t, std::less<>> quotas,
                          uint64_t default_quota) = 0;
  // Whether memory is above the high mark, or a load found no room. Quick.
  virtual bool wants_room_ahead() const = 0;
  // Moves up to limits::kDemotionsPerTurn chunks out of memory, so that puts and loads seldom wait
  // for the disk. True: there is more to do. Without room on disk it does nothing: what is
  // dropped takes no time. Does I/O; for one thread at a time.
  virtual bool make_room_ahead() = 0;
  // Verifies where it rests the next of what is on disk, until at least `bytes` were read or all of
  // it was verified; then the index as well. A relay's chunk that fails is dropped; a home's is
  // written anew if memory has it, else quarantined: it is CORRUPT to readers until the same chunk
  // is put again. A damaged index makes the tier read-only (disk_failure). Does I/O; for one thread
  // at a time.
  virtual ScrubTurn scrub(uint64_t bytes) = 0;
  // Homes' chunks that are quarantined, at most `limit`, in order of id and index, behind that one:
  // put_chunk of one, with bytes of the same digest, repairs it.
  virtual std::vector<DamagedChunk> damaged_chunks(size_t limit,
                                                   const DamagedChunk* after = nullptr) const = 0;
  // Frees pages that were kept for the next blob and not used for limits::kSpareKeepMs, and writes
  // down removals that found no room on disk. To be called every few seconds; blocks.
  virtual void trim() = 0;
  // The leases that blobs have.
  virtual std::vector<LeaseId> leases() const = 0;
  // Sealed homes that were created with a note, in no order.
  virtual std::vector<BlobStat> noted() const = 0;
  // What made the disk tier read-only; empty: nothing.
  virtual std::string disk_failure() const = 0;
};

}  // namespace bigcast
