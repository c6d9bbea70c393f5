#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/pages.h"
#include "blobstore/blob_store.h"
#include "blobstore/disk_tier.h"
#include "blobstore/memfd.h"
#include "eviction/policy.h"

namespace bigcast {

// The store with a disk that a test can make fail. Otherwise as BlobStore::open.
Result<std::unique_ptr<BlobStore>> open_store(const BlobStore::Options& options,
                                              std::unique_ptr<Disk> disk);

// One chunk's place. A chunk rests in memory (its blob's memory file, or `small`) or on disk, or
// in both: a durable blob's, one that was read back, and any while its pages are given back. What
// moves it (a put, a demotion, a drop) sets `busy` and is then its only mover; I/O happens without
// the lock. Whoever wants a busy chunk gone sets `doomed`, and the mover frees it when its I/O
// ends.
//
// Readers take no part in this: they note `version`, read without the lock, and verify. Bytes that
// fail were punched or overwritten meanwhile if `version` has changed, and are read again.
struct StoredBlob;
// What readable chunks hold: of one chunk, or of all of a blob's.
struct Footprint {
  uint32_t chunks = 0;
  uint64_t stored = 0;
  uint64_t memory = 0;
  uint64_t disk = 0;
};
struct StoredChunk {
  StoredBlob* blob = nullptr;
  ChunkMeta meta;
  bool busy = false;
  bool doomed = false;
  bool in_memory = false;
  bool on_disk = false;
  bool unread = false;          // of a relay: put ahead, and not read since
  bool listed = false;          // the policies have it
  bool is_copy = false;         // its place on disk may be freed: copies_ has it
  bool damaged = false;         // of a home: its only copy can't be read, or fails its checksum
  bool only_in_memory = false;  // of a durable blob: its place on disk has not its bytes, and could
                                // not be written anew; it does not leave memory
  uint64_t version = 0;
  uint32_t views = 0;                                   // while there are any it is not evicted
  uint64_t pages = 0;                                   // bytes of memory accounted for it
  std::shared_ptr<const std::vector<std::byte>> small;  // instead of the memory file; zeros behind
                                                        // it, up to the next multiple of 8
  DiskRuns runs;
  uint64_t disk_bytes = 0;
  uint64_t charged = 0;       // of a home: its part of homes_used_
  uint64_t disk_charged = 0;  // of a home: its part of homes_on_disk_
  Footprint counted;          // its part of the blob's total

  bool readable() const { return !doomed && (in_memory || on_disk); }
};

// Pages of a memory file that hold nothing: bytes of them from a chunk's place on, by its index.
using SparePages = std::map<uint32_t, uint64_t>;

// A dead blob's memory file, kept for the next one of its namespace (store_spare.cc).
struct ParkedFile {
  std::string name_space;
  uint32_t chunk_size = 0;
  std::shared_ptr<Memfd> file;
  SparePages pages;
  TimePoint since{};
};

// What readers' mappings keep (store_mapped.cc); their pins own it jointly.
struct Held : Hold {
  std::shared_ptr<StoredBlob> blob;  // null once its chunks were freed
  uint32_t pins = 0;
  uint64_t bytes = 0;   // of held_
  uint64_t beyond = 0;  // of held_beyond_
  // What was mapped of a blob whose chunks were freed since.
  std::shared_ptr<Memfd> file;
  uint64_t pages = 0;  // of memory_used_
};

// A namespace as homes see it; blobs may outlive its entry in the store's map.
struct NamespaceShare {
  NamespaceUsage usage;
  size_t blobs = 0;
};

// Owned jointly by the store's map and the calls under way on it. The store's lock guards it.
struct StoredBlob {
  CreateOptions options;
  uint64_t serial = 0;                    // its number in the policies
  std::string key;                        // of a home: "namespace/name"
  std::shared_ptr<NamespaceShare> share;  // ... and its namespace
  bool removed = false;
  bool sealed = false;
  uint32_t sealed_chunks = 0;
  uint64_t sealed_size = 0;
  Digest128 root_digest;
  TimePoint created_at{};
  std::optional<TimePoint> expires_at;
  uint32_t pins = 0;            // while there are any its chunks in memory are not evicted
  uint64_t pinned_bytes = 0;    // its part of pinned_
  uint64_t reserved_total = 0;  // asked for so far
  uint64_t reserved_left = 0;   // of it, not yet used by a chunk
  std::shared_ptr<Memfd> memory_file;
  uint32_t generation = 0;
  uint32_t in_memory_file = 0;  // chunks with pages in it
  uint32_t open_views = 0;
  SparePages spare;  // of its memory file, from the blob before
  TimePoint spare_since{};
  std::shared_ptr<Held> held;  // null: no reader has it mapped
  bool frozen = false;         // its memory file is, and holds all of the blob
  uint64_t stuck = 0;          // pages in the frozen file of chunks that have left it
  std::unordered_map<uint32_t, StoredChunk> chunks;
  Footprint total;  // a blob may have a million chunks: none is looked at for a stat
  // Of a durable blob. Rows are written by its seal alone; as long as they may be in the index,
  // what they name is withheld instead of released, since it may be read again after a crash.
  bool writing_rows = false;  // a seal is under way; removers wait
  bool has_rows = false;      // may be in the disk index
  DiskRuns withheld;
  uint64_t withheld_bytes = 0;  // of homes_on_disk_
  uint64_t sequence = 0;        // BlobRow::sequence
  bool is_damaged = false;      // some chunk is, and the log said so

  bool is_home() const { return options.role == BlobRole::kHome; }
  bool has_name() const { return is_home() && options.stripe.index == 0; }
  bool is_durable() const { return is_home() && options.durability == Durability::kDisk; }
  StoredChunk* find(uint32_t index) {  // null: there is none
    const auto it = chunks.find(index);
    return it == chunks.end() ? nullptr : &it->second;
  }
  // Takes the chunk's place on disk from it, to be released.
  void withhold(StoredChunk& chunk) {
    withheld.insert(withheld.end(), chunk.runs.begin(), chunk.runs.end());
    withheld_bytes += chunk.disk_charged;
    chunk.runs.clear();
    chunk.disk_charged = 0;
  }
  std::optional<uint64_t> known_size() const {
    return sealed ? std::optional(sealed_size) : options.size;
  }
};

// Seven jobs in seven files: store.cc answers the calls about blobs, store_chunks.cc moves chunks
// in and out, store_space.cc finds the room for them, store_spare.cc keeps pages for the next blob,
// store_durable.cc keeps what survives, store_mapped.cc what readers have mapped, store_scrub.cc
// finds and mends what is damaged.
class Store final : public BlobStore {
 public:
  Store(const Options& options, std::unique_ptr<eviction::Policy> victims,
        std::unique_ptr<DiskTier> disk, uint64_t descriptors_max);

  Result<void> create(const CreateOptions& options) override;
  Result<void> reserve(BlobId id, uint64_t total) override;
  Result<void> put_chunk(BlobId id, const ChunkMeta& meta, std::span<const std::byte> stored,
                         Put why) override;
  Result<BlobStat> seal(BlobId id, uint64_t size, uint32_t chunk_count,
                        std::optional<Digest128> root_digest) override;
  Result<void> remove(BlobId id) override;
  Result<void> drop_chunks(BlobId id) override;
  std::vector<BlobId> remove_lease(LeaseId lease) override;
  Result<uint64_t> open_stream(BlobId id, ReadOrder order) override;
  void close_stream(uint64_t stream) override;
  void release(BlobId id) override;
  Result<void> pin(BlobId id) override;
  void unpin(BlobId id) override;
  std::vector<BlobId> expired() const override;
  Result<Location> locate(BlobId id, uint32_t index, uint64_t stream) override;
  Result<Location> peek(BlobId id, uint32_t index) const override;
  Result<ChunkMeta> read_chunk(BlobId id, uint32_t index, std::span<std::byte> buffer) override;
  Result<ChunkMeta> load_chunk(BlobId id, uint32_t index, std::span<std::byte> buffer) override;
  Result<ChunkView> view_chunk(BlobId id, uint32_t index) override;
  Result<std::shared_ptr<const Hold>> hold(BlobId id) override;
  Result<MappableFile> map(BlobId id) override;
  Result<MemoryFile> memory_file(BlobId id) override;
  Result<BlobId> find(std::string_view name_space, std::string_view name) const override;
  Result<BlobStat> stat(BlobId id) const override;
  std::vector<uint32_t> stored_chunks(BlobId id) const override;
  std::vector<uint32_t> resident_chunks(BlobId id) const override;
  std::vector<BlobStat> list(std::string_view name_space, std::string_view prefix,
                             std::string_view after, size_t limit) const override;
  std::vector<BlobStat> list_all(std::string_view first_key, size_t limit) const override;
  StoreUsage usage() const override;
  std::vector<NamespaceUsage> namespaces() const override;
  void set_quotas(std::map<std::string, uint64_t, std::less<>> quotas,
                  uint64_t default_quota) override;
  ScrubTurn scrub(uint64_t bytes) override;
  std::vector<DamagedChunk> damaged_chunks(size_t limit, const DamagedChunk* after) const override;
  bool wants_room_ahead() const override;
  bool make_room_ahead() override;
  void trim() override;
  std::vector<LeaseId> leases() const override;
  std::vector<BlobStat> noted() const override;
  std::string disk_failure() const override;

  std::vector<uint32_t> chunks_if(BlobId id, bool (*wanted)(const StoredChunk&)) const;

  // Before anything else: takes up what is on disk.
  Result<void> recover();

 private:
  using Lock = std::unique_lock<std::mutex>;
  using BlobPtr = std::shared_ptr<StoredBlob>;
  // What a reader needs after the lock is gone.
  struct Source {
    ChunkMeta meta;
    uint64_t version = 0;
    std::shared_ptr<Memfd> memory_file;
    std::shared_ptr<const std::vector<std::byte>> small;
    DiskRuns runs;
    uint64_t offset = 0;  // in the memory file
    bool in_memory = false;
    bool damaged = false;
  };
  // What a policy gives up.
  struct Victim {
    BlobPtr blob;
    StoredChunk* chunk = nullptr;  // null: nothing
  };

  // All but constructors and I/O helpers require the lock; those that take it may give it up
  // and take it again.
  // store.cc
  Result<BlobPtr> find_blob(BlobId id) const;
  BlobStat stat_of(const StoredBlob& blob) const;
  using Names = std::map<std::string, BlobId, std::less<>>;
  std::vector<BlobStat> list_from(Names::const_iterator it, std::string_view prefix,
                                  size_t limit) const;
  Result<void> check_create(const CreateOptions& options) const;
  Result<void> check_complete(const StoredBlob& blob, uint64_t size, uint32_t chunk_count) const;
  Result<Digest128> root_of(const StoredBlob& blob, uint32_t chunk_count,
                            const std::optional<Digest128>& given) const;
  std::optional<BlobId> bind_name(Lock& lock, const BlobPtr& blob);
  void add_blob(const BlobPtr& blob);
  void start_ttl(StoredBlob& blob);
  Result<void> remove_blob(Lock& lock, const BlobPtr& blob);
  Result<void> free_chunks(Lock& lock, const BlobPtr& blob);

  // store_durable.cc
  void adopt(DiskTier::Found found, std::vector<BlobPtr>& superseded);
  Result<void> make_durable(Lock& lock, const BlobPtr& blob);
  Result<void> write_rows(Lock& lock, const BlobPtr& blob);
  std::vector<ChunkRow> rows_of(const StoredBlob& blob, uint64_t first,
                                std::set<uint32_t>& extents) const;
  Result<void> fill_durable(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                            std::span<const std::byte> stored);
  // Releases what was withheld, unless rows may still name it.
  void release_withheld(Lock& lock, const BlobPtr& blob);
  void erase_left(Lock& lock);

  // store_chunks.cc
  Result<void> check_chunk(const StoredBlob& blob, const ChunkMeta& meta) const;
  Result<StoredChunk*> claim(Lock& lock, const BlobPtr& blob, const ChunkMeta& meta);
  Result<void> fill(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                    std::span<const std::byte> stored);
  Result<void> write_chunk(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                           std::span<const std::byte> stored);
  static Result<void> write_to_file(Memfd& file, uint64_t offset, std::span<const std::byte> stored,
                                    uint64_t spare);
  bool rests_small(const StoredBlob& blob, const ChunkMeta& meta) const;
  // Requires: the caller moves the chunk, which is gone afterwards.
  void discard(Lock& lock, const BlobPtr& blob, StoredChunk& chunk);
  void free_pages(Lock& lock, const BlobPtr& blob, StoredChunk& chunk);
  void close_if_empty(StoredBlob& blob);
  // To be called whenever a chunk's place has changed and before it is erased.
  static void count(StoredChunk& chunk);
  // The mover's last step with a chunk that stays.
  void settle(StoredChunk& chunk);
  static Location location_of(const StoredBlob& blob, uint32_t index, const StoredChunk* chunk);
  Result<Source> read_somewhere(BlobId id, uint32_t index, std::span<std::byte> buffer);
  void count_bytes_read(const Source& source);
  void promote(BlobId id, const Source& source, std::span<const std::byte> stored);
  Source source_of(const StoredBlob& blob, const StoredChunk& chunk) const;
  // The chunk that was read without the lock; null if it is gone or has moved since.
  static StoredChunk* unmoved(StoredBlob& blob, const Source& source);
  Result<void> read_source(const Source& source, std::span<std::byte> buffer);
  void end_view(const BlobPtr& blob, const Source& source);
  Result<void> read_failed(BlobId id, const Source& source, Error error);

  // store_scrub.cc
  BlobPtr next_to_scrub(uint32_t& index);
  uint64_t scrub_chunk(const BlobPtr& blob, uint32_t index);
  void on_bad_copy(Lock& lock, const BlobPtr& blob, const Source& source, Error error);
  void on_good_copy(const BlobPtr& blob, const Source& source);
  Result<void> rewrite(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                       const DiskTier::Source& source);
  // The bytes are wrong, or the disk does not give them: a bad sector gives none ever again.
  static bool is_damage(ErrorCode code) {
    return code == ErrorCode::kCorrupt || code == ErrorCode::kIo;
  }
  void quarantine(Lock& lock, StoredChunk& chunk, const Error& why);
  void end_damage(StoredChunk& chunk);
  Result<void> repair(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                      std::span<const std::byte> stored);

  // store_space.cc
  // Whether a home may take or reserve `bytes` more.
  Result<void> admit(const StoredBlob& blob, uint64_t bytes) const;
  Result<void> check_budgets(uint64_t bytes, uint32_t chunk_size, bool durable) const;
  Result<void> check_quota(const NamespaceUsage& usage, uint64_t bytes) const;
  // Of homes; the differences may be negative.
  void add_used(StoredBlob& blob, int64_t bytes);
  void add_reserved(StoredBlob& blob, int64_t bytes);
  void apply_quota(NamespaceUsage& usage) const;
  std::shared_ptr<NamespaceShare> share_of(const std::string& name_space);
  void leave_share(StoredBlob& blob);
  void drop_share_if_idle(const NamespaceShare& share);
  // Moves what the chunk needs from the blob's reservation, and more if that is not enough, to
  // homes_used_; returns what came from the reservation.
  Result<uint64_t> charge(StoredBlob& blob, StoredChunk& chunk);
  void cancel_reservation(StoredBlob& blob);
  Result<void> make_room(Lock& lock, const StoredChunk& chunk);
  bool fits_in_memory(const StoredChunk& chunk) const;
  bool is_above_mark() const;
  // What nobody has asked for stays below what make_room_ahead makes free.
  uint64_t unread_max() const { return disk_ ? low_mark_ : memory_budget_; }
  Result<bool> evict_one(Lock& lock);
  Victim next_victim(eviction::Policy& policy);
  void drop(Lock& lock, const Victim& victim);
  void leave_memory(Lock& lock, const BlobPtr& blob, StoredChunk& chunk);
  // What is written to disk, from bytes and from where memory has it; these must outlive it.
  static DiskTier::Source copying(std::span<const std::byte> stored);
  static DiskTier::Source copying(const Source& source);
  Result<void> demote(Lock& lock, const BlobPtr& blob, StoredChunk& chunk);
  Result<void> write_to_disk(Lock& lock, const BlobPtr& blob, StoredChunk& chunk,
                             const DiskTier::Source& copy);
  // Lists the chunk, unless it is listed or held.
  void make_evictable(StoredChunk& chunk);
  void unlist(StoredChunk& chunk);
  void set_aside(StoredChunk& chunk);  // what is held: only its copy may go
  void list_copy(StoredChunk& chunk, bool is_copy);
  bool free_copy(Lock& lock);  // false: there is none
  void free_copy_of(Lock& lock, const BlobPtr& blob, StoredChunk& chunk);
  void count_read(StoredChunk& chunk, uint64_t stream);
  void begin_move() { ++moving_; }
  void end_move(bool settled);

  // store_mapped.cc
  Result<void> start_hold(const BlobPtr& blob);
  void end_hold(Held& held);
  Result<void> gather(Lock& lock, const BlobPtr& blob);
  Result<void> bring_back(Lock& lock, const BlobPtr& blob, StoredChunk& chunk);
  Result<void> read_back(Lock& lock, const BlobPtr& blob, StoredChunk& chunk);
  void put_back_frozen(StoredBlob& blob, StoredChunk& chunk);
  void leave_frozen(StoredBlob& blob, StoredChunk& chunk);
  void close_frozen(Lock& lock, StoredBlob& blob);
  void close_file(Lock& lock, std::shared_ptr<Memfd> file, uint64_t pages);
  void leave_to_holders(StoredBlob& blob);

  // store_spare.cc
  bool park(StoredBlob& blob);
  void adopt_parked(StoredBlob& blob);
  static uint64_t spare_at(const StoredBlob& blob, uint32_t index);
  uint64_t take_spare(StoredBlob& blob, uint32_t index);
  void punch_spare(StoredBlob& blob);
  void free_parked(Lock& lock);
  bool give_up_spare(Lock& lock);

  const uint64_t memory_budget_;
  const uint64_t high_mark_;  // of memory_used_: see make_room_ahead
  const uint64_t low_mark_;
  const uint64_t descriptors_max_;
  const size_t chunks_max_;
  const bool keeps_;
  const Clock& clock_;
  const std::unique_ptr<DiskTier> disk_;  // null: none

  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, uint64_t, std::less<>> quotas_;
  uint64_t default_quota_;
  std::condition_variable changed_;
  std::unordered_map<BlobId, BlobPtr> blobs_;
  Names names_;                            // of homes
  std::map<uint64_t, BlobPtr> by_serial_;  // all of blobs_
  std::map<BlobId, BlobPtr> unerased_;     // removed ones, whose rows could not be
  bool erasing_ = false;                   // a thread is in erase_left
  std::set<std::pair<TimePoint, BlobId>> expiries_;
  std::map<std::string, std::shared_ptr<NamespaceShare>, std::less<>> shares_;  // with blobs
  // Resident chunks in order of eviction; once more those that can leave without the disk (relays',
  // and homes' that are on it already), for when no other can go there; and relays' on disk, which
  // make way for homes'. What a policy gives up while it is viewed or pinned is in none of them
  // until that ends: so a view costs nothing and a policy keeps what it knows.
  const std::unique_ptr<eviction::Policy> victims_;
  const std::unique_ptr<eviction::Policy> relay_victims_;
  const std::unique_ptr<eviction::Policy> disk_victims_;
  const std::array<eviction::Policy*, 3> policies_;  // all of them
  // Chunks on disk that memory has as well, in the order they came back; not durable blobs'. Their
  // places on disk are free to whoever needs one, so they are in the way of no promise.
  const std::unique_ptr<eviction::Policy> copies_;
  uint64_t copied_ = 0;        // their bytes on disk ...
  uint64_t homes_copied_ = 0;  // ... and their part of homes_on_disk_
  bool making_room_ = false;   // from the high mark down to the low one
  uint64_t room_wanted_ = 0;   // by the largest chunk that found none to be loaded into
  uint64_t memory_used_ = 0;
  // Beside memory_used_: pages in files that are parked, or that a blob has adopted and not used.
  uint64_t spare_bytes_ = 0;
  std::deque<ParkedFile> parked_;  // oldest first
  std::set<StoredBlob*> adopters_;
  uint64_t homes_used_ = 0;        // bytes of homes' chunks in either tier
  uint64_t homes_on_disk_ = 0;     // of it, on disk or on its way there; and withheld
  uint64_t reserved_ = 0;          // sum of reserved_left
  uint64_t reserved_on_disk_ = 0;  // ... of durable blobs: demotions leave that much room
  std::map<uint32_t, size_t> home_chunk_sizes_;  // how many homes have each chunk size
  uint64_t descriptors_ = 0;
  size_t chunks_ = 0;  // of all blobs
  // Threads whose I/O will settle a chunk without waiting for room: to wait for them is safe.
  int moving_ = 0;
  uint64_t settled_ = 0;  // moves that have changed what is free or evictable
  // Where scrub() is: the blob it is in, and which of its chunks are still to come, the next last.
  uint64_t scrub_serial_ = 0;
  std::vector<uint32_t> scrub_left_;
  std::set<std::pair<BlobId, uint32_t>> damaged_;  // homes' chunks in quarantine
  uint64_t held_ = 0;                              // bytes of blobs that are held for mappings ...
  uint64_t held_beyond_ = 0;  // ... of those, what is in no home's share of the budgets
  uint64_t held_left_ = 0;    // ... of those, what is its holders' alone
  uint64_t viewed_ = 0;       // bytes in views
  uint64_t pinned_ = 0;
  uint64_t serials_ = 0;    // the last StoredBlob::serial given
  uint64_t streams_ = 0;    // the last stream's number
  uint64_t versions_ = 0;   // the last StoredChunk::version given
  uint64_t sequences_ = 0;  // the last StoredBlob::sequence given
  StoreUsage counters_;
};

// A chunk's name in the policies: the same when it comes back.
inline eviction::Entry entry_of(const StoredChunk& chunk) {
  return eviction::entry_of(chunk.blob->serial, chunk.meta.index);
}

}  // namespace bigcast
