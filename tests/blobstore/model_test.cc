#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "tests/blobstore/sim_disk.h"
#include "tests/blobstore/store_support.h"

// Random operations on a store, compared with a model that only knows what was promised: bytes,
// names, durability, quotas with their reservations, times to live, and that pins, views and
// mappings keep what they show. On a disk that fails, loses power and forgets what was not synced;
// with half of the seeds it seldom does, so that memory and disk fill. BIGCAST_SEED=N runs that
// seed alone, much as before: only RocksDB's own threads are not in its hand.
namespace bigcast {
namespace {

constexpr uint64_t kModelDisk = 12 * limits::kMiB;
constexpr uint64_t kNames = 10;
constexpr int kModelSteps = 400;
constexpr const char* kNamespaces[] = {"test", "tight"};
constexpr const char* kTight = kNamespaces[1];  // the one with a quota
constexpr size_t kViewsMax = 4;
constexpr size_t kMappingsMax = 3;

struct ModelBlob {
  CreateOptions options;
  std::vector<size_t> chunks;  // sizes; all but the last are whole
  bool sealed = false;
  uint64_t reserved_total = 0;
  uint64_t reserved_left = 0;
  std::optional<TimePoint> expires_at;
  uint32_t pins = 0;
  uint64_t pinned_bytes = 0;
  std::set<uint32_t> resident;  // while it is pinned: what must not leave

  std::string key() const { return options.name_space + "/" + options.name; }
  // What a home's chunks take of its quota.
  uint64_t used() const {
    uint64_t used = 0;
    for (const size_t chunk : chunks) used += whole_pages(chunk);
    return is_relay() ? 0 : used;
  }
  // Of the next chunk; 0: it has all that was declared.
  uint64_t room() const {
    return options.size ? std::min<uint64_t>(kSmallChunk, *options.size - size()) : kSmallChunk;
  }
  bool is_whole() const { return !options.size || *options.size == size(); }
  uint64_t size() const {
    uint64_t size = 0;
    for (const size_t chunk : chunks) size += chunk;
    return size;
  }
  bool is_relay() const { return options.role == BlobRole::kRelay; }
  bool survives() const { return sealed && options.durability == Durability::kDisk; }
};

// Bytes of the store's that somebody looks at: what they must be.
struct ModelView {
  ChunkView view;
  BlobId id;
  Bytes expected;
};

// A blob that a reader has mapped. They end in this order: the mapping, then the hold.
struct ModelMapping {
  ModelMapping(BlobId id, std::shared_ptr<const Hold> hold, const MappableFile& file,
               Bytes expected)
      : id(id),
        hold(std::move(hold)),
        size(file.size),
        data(mmap(nullptr, file.size, PROT_READ, MAP_SHARED, file.fd, 0)),
        expected(std::move(expected)) {
    close(file.fd);
    REQUIRE(data != MAP_FAILED);
  }
  ModelMapping(const ModelMapping&) = delete;
  ModelMapping& operator=(const ModelMapping&) = delete;
  ~ModelMapping() { munmap(data, size); }
  bool is_right() const {
    return size == expected.size() && std::memcmp(data, expected.data(), size) == 0;
  }

  const BlobId id;
  const std::shared_ptr<const Hold> hold;
  const uint64_t size;
  void* const data;
  const Bytes expected;
};

class Model {
 public:
  // Each seed has one of the policies, in turn.
  explicit Model(uint64_t seed)
      : policy_(eviction::kPolicyNames[seed % eviction::kPolicyNames.size()]),
        is_calm_(seed / eviction::kPolicyNames.size() % 2 == 1),
        machine_(seed),
        random_(seed) {
    open();
  }

  void run() {
    for (int step = 0; step < kModelSteps; ++step) {
      INFO("step " << step);
      one_step();
      const StoreUsage usage = store_->usage();
      CHECK(usage.memory_used + usage.memory_spare <= kMemory);
      CHECK(usage.disk_used <= kModelDisk);
      if (!machine_.has_power()) restart(true);
      check_promises();
    }
    restart(false);
  }

  uint64_t survivors = 0;  // blobs seen whole after a restart
  uint64_t crashes = 0;
  uint64_t index_refusals = 0;  // for want of room for the index
  uint64_t refusals = 0;        // by a disk that has failed
  uint64_t over_quota = 0;      // refusals by a quota
  uint64_t expiries = 0;        // blobs whose time to live ended
  uint64_t left_beside = 0;     // chunks that left memory while others were pinned there
  uint64_t views = 0;           // made
  uint64_t mappings = 0;        // made

 private:
  uint64_t below(uint64_t bound) { return random_() % bound; }

  void open() {
    BlobStore::Options options = with_disk(directory_.path, kModelDisk);
    options.clock = &clock_;
    options.policy = policy_;
    options.quotas = {{kTight, quota_}};
    auto store = open_store(options, machine_.disk());
    while (!store && !machine_.has_power()) {
      machine_.crash();
      ++crashes;
      store = open_store(options, machine_.disk());
    }
    if (!store) FAIL(store.error().to_string());
    store_ = std::move(*store);
  }

  void one_step() {
    clock_.advance(std::chrono::seconds(1));
    const uint64_t choice = below(1000);
    if (choice < 150) return create();
    if (choice < 420) return put_some();
    if (choice < 550) return seal_one();
    if (choice < 610) return remove_one();
    if (choice < 700) return read_one();
    if (choice < 730) return hint_one();
    if (choice < 760) return reserve_one();
    if (choice < 800) return pin_one();
    if (choice < 850) return view_one();
    if (choice < 900) return map_one();
    if (choice < 915) return expire();
    if (choice < 920) return change_quota();
    if (is_calm_ && below(20) > 0) return put_some();
    if (choice < 930) {
      const uint64_t what = below(3);
      if (what == 0) store_->make_room_ahead();
      if (what == 1) store_->scrub(below(kModelDisk));
      if (what == 2) trim();
      return;
    }
    if (choice < 950) return machine_.cut_power_after(below(40));
    if (choice < 970) return restart(below(2) == 0);
    if (choice < 977) return machine_.set_full(below(2) == 0);
    if (choice < 986) return set_index_full(below(3) == 0);
    if (choice < 989) return machine_.fail_next_write();
    if (choice < 992) return machine_.fail_next_sync();
    if (choice < 994) {
      machine_.fail_next_read();
      damaged_ = true;
      return;
    }
    if (machine_.flip_bit()) damaged_ = true;
  }

  void set_index_full(bool full) {
    machine_.set_index_full(full);
    index_full_ = full;
  }

  // Removals that found no room are written down as soon as there is some.
  void trim() {
    store_->trim();
    const uint64_t left = store_->usage().removals_left;
    CHECK(left <= unwritten_.size());
    CHECK((left == 0 || index_full_ || disk_failed()));
    if (left > 0) return;
    for (const uint64_t number : std::exchange(unwritten_, {})) unsure_.erase(number);
  }

  bool disk_failed() { return !store_->disk_failure().empty() || !machine_.has_power(); }

  // `code` is Ok, or an error that the state of the disk allows.
  bool succeeded(const Result<void>& result, bool may_be_full) {
    if (result) return true;
    INFO(result.error().to_string());
    const ErrorCode code = result.error().code;
    if (code == ErrorCode::kIo) {
      CHECK(disk_failed());
      ++refusals;
    } else if (code == ErrorCode::kCorrupt) {
      CHECK(damaged_);
    } else {
      CHECK((code == ErrorCode::kResourceExhausted && may_be_full));
      if (message_has(result, "disk index")) CHECK(index_full_);
      if (message_has(result, "disk index")) ++index_refusals;
    }
    return false;
  }

  ModelBlob* any(bool (*wanted)(const ModelBlob&)) {
    std::vector<ModelBlob*> found;
    for (auto& [number, blob] : blobs_) {
      if (wanted(blob)) found.push_back(&blob);
    }
    return found.empty() ? nullptr : found[below(found.size())];
  }

  // ---- Quotas.

  uint64_t taken_of(const std::string& name_space) const {
    uint64_t taken = 0;
    for (const auto& [number, blob] : blobs_) {
      if (blob.options.name_space == name_space) taken += blob.used() + blob.reserved_left;
    }
    return taken;
  }

  // `more` bytes were asked for. Exactly what does not fit the quota is refused by it; whether the
  // rest fits the budgets is not the model's to know.
  template <typename T>
  bool within_quota(const Result<T>& result, const ModelBlob& blob, uint64_t more) {
    const bool is_limited = blob.options.name_space == kTight && quota_ > 0 && !blob.is_relay();
    const bool fits = !is_limited || more == 0 || taken_of(kTight) + more <= quota_;
    const bool refused = message_has(result, "namespace 'tight'");
    CHECK(refused == !fits);
    if (refused) CHECK(result.error().code == ErrorCode::kResourceExhausted);
    over_quota += refused ? 1 : 0;
    return !refused;
  }

  void change_quota() {
    quota_ = limits::kMiB * below(4);
    store_->set_quotas({{kTight, quota_}}, 0);
  }

  void create() {
    const uint64_t number = ++last_number_;
    ModelBlob blob;
    blob.options = blob_options(number);
    blob.options.name_space = kNamespaces[below(3) == 0 ? 1 : 0];
    blob.options.name = "name-" + std::to_string(below(kNames));
    blob.options.replace = below(2) == 0;
    const uint64_t kind = below(10);
    if (kind == 0) blob.options.role = BlobRole::kRelay;
    if (kind > 3) blob.options.durability = Durability::kDisk;
    if (below(3) == 0) blob.options.size = 1 + below(40 * kSmallChunk);
    if (below(3) == 0) blob.options.ttl = std::chrono::seconds(1 + below(60));
    blob.options.mappable = below(2) == 0;
    const bool taken = !blob.is_relay() && names_.contains(blob.key());
    const uint64_t bytes = whole_pages(blob.options.size.value_or(0));
    const auto created = store_->create(blob.options);
    if (code_of(created) == ErrorCode::kAlreadyExists) {
      CHECK((taken && !blob.options.replace));
    } else if (code_of(created) == ErrorCode::kIo) {
      succeeded(created, false);
    } else if (within_quota(created, blob, bytes) && succeeded(created, true)) {
      CHECK((!taken || blob.options.replace));
      if (!blob.is_relay()) names_.try_emplace(blob.key(), number);
      if (!blob.is_relay()) blob.reserved_total = blob.reserved_left = bytes;
      blobs_[number] = blob;
    }
  }

  void reserve_one() {
    ModelBlob* blob = any([](const ModelBlob& blob) { return !blob.sealed && !blob.is_relay(); });
    if (blob == nullptr) return;
    const uint64_t total = blob->size() + below(16 * kSmallChunk);
    const uint64_t target = std::max(blob->reserved_total, whole_pages(total));
    const uint64_t more = target - blob->reserved_total;
    const auto reserved = store_->reserve(blob->options.id, total);
    if (!within_quota(reserved, *blob, more) || !succeeded(reserved, true)) return;
    blob->reserved_total = target;
    blob->reserved_left += more;
  }

  void put_some() {
    ModelBlob* blob = any([](const ModelBlob& blob) {
      return !blob.sealed && blob.room() > 0 &&
             (blob.chunks.empty() || blob.chunks.back() == kSmallChunk);
    });
    for (uint64_t more = 1 + below(16); blob != nullptr && more > 0; --more) {
      if (!put_next(*blob) || blob->chunks.back() < kSmallChunk || blob->room() == 0) return;
    }
  }

  bool put_next(ModelBlob& blob) {
    size_t size = blob.room();
    if (!blob.options.size && below(16) == 0) size = 1 + below(kSmallChunk);
    const uint64_t drawn = std::min(blob.reserved_left, whole_pages(size));
    const auto index = static_cast<uint32_t>(blob.chunks.size());
    const auto done = put(*store_, blob.options.id, index, size);
    if (!within_quota(done, blob, whole_pages(size) - drawn) || !succeeded(done, true))
      return false;
    blob.reserved_left -= drawn;
    blob.chunks.push_back(size);
    return true;
  }

  void seal_one() {
    ModelBlob* blob = any([](const ModelBlob& blob) { return !blob.is_relay(); });
    if (blob == nullptr) return;
    const auto count = static_cast<uint32_t>(blob->chunks.size());
    const uint64_t removals_left = store_->usage().removals_left;
    const auto sealed = store_->seal(blob->options.id, blob->size(), count);
    const uint64_t number = blob->options.id.lo;
    if (!blob->is_whole()) {
      CHECK(code_of(sealed) == ErrorCode::kInvalidArgument);
      return;
    }
    if (!sealed) {
      if (blob->options.durability == Durability::kDisk) unsure_[number] = *blob;
      succeeded(tl::unexpected<Error>(sealed.error()), true);
      return;
    }
    CHECK(sealed->sealed);
    CHECK(sealed->chunk_count == count);
    if (std::exchange(blob->sealed, true)) return;
    blob->reserved_left = 0;
    start_ttl(*blob);
    unsure_.erase(number);
    const auto [name, is_free] = names_.try_emplace(blob->key(), number);
    const uint64_t old = std::exchange(name->second, number);
    if (is_free || old == number) return;
    const bool is_unwritten = store_->usage().removals_left > removals_left;
    if (is_unwritten) unwritten_.insert(old);
    if ((disk_failed() || is_unwritten) && blobs_.at(old).survives()) unsure_[old] = blobs_.at(old);
    blobs_.erase(old);
  }

  void remove_one() {
    if (const ModelBlob* blob = any([](const ModelBlob&) { return true; })) remove(*blob);
  }

  void remove(const ModelBlob& blob) {
    const uint64_t number = blob.options.id.lo;
    const auto removed = store_->remove(blob.options.id);
    if (!succeeded(removed, true)) {
      unsure_[number] = blob;
      if (code_of(removed) == ErrorCode::kResourceExhausted) unwritten_.insert(number);
    }
    if (removed) unsure_.erase(number);
    const auto name = names_.find(blob.key());
    if (name != names_.end() && name->second == number) names_.erase(name);
    blobs_.erase(number);
    CHECK(code_of(store_->stat({1, number})) == ErrorCode::kNotFound);
  }

  void read_one() {
    const ModelBlob* blob = any([](const ModelBlob&) { return true; });
    if (blob == nullptr) return;
    check_chunk(*blob, static_cast<uint32_t>(below(blob->chunks.size() + 1)));
  }

  // What changes no answer: streams and releases.
  void hint_one() {
    const ModelBlob* blob = any([](const ModelBlob&) { return true; });
    if (blob == nullptr) return;
    const BlobId id = blob->options.id;
    const uint64_t choice = below(5);
    if (choice < 3) {
      const auto stream =
          store_->open_stream(id, choice == 0 ? ReadOrder::kResidentFirst : ReadOrder::kAscending);
      REQUIRE(stream);
      streams_.push_back(*stream);
      store_->locate(id, static_cast<uint32_t>(below(blob->chunks.size() + 1)), *stream);
    } else if (choice == 3 && !streams_.empty()) {
      store_->close_stream(streams_[below(streams_.size())]);
    } else {
      store_->release(id);
    }
  }

  // ---- Times to live.

  void start_ttl(ModelBlob& blob) {
    if (blob.options.ttl > Duration::zero()) blob.expires_at = clock_.now() + blob.options.ttl;
  }

  std::set<uint64_t> expected_to_expire() const {
    std::set<uint64_t> numbers;
    for (const auto& [number, blob] : blobs_) {
      if (blob.expires_at && *blob.expires_at <= clock_.now()) numbers.insert(number);
    }
    return numbers;
  }

  // As a node does it.
  void expire() {
    for (const BlobId id : store_->expired()) {
      remove(blobs_.at(id.lo));
      ++expiries;
    }
  }

  // ---- What must stay in memory.

  uint64_t pinned_bytes() const {
    uint64_t bytes = 0;
    for (const auto& [number, blob] : blobs_) bytes += blob.pinned_bytes;
    return bytes;
  }

  // However often one is mapped; also those that are gone.
  uint64_t held_bytes() const {
    std::map<BlobId, uint64_t> sizes;
    for (const auto& mapping : mapped_) sizes[mapping->id] = whole_pages(mapping->size);
    uint64_t bytes = 0;
    for (const auto& [id, size] : sizes) bytes += size;
    return bytes;
  }

  bool is_held(BlobId id) const {
    return std::ranges::any_of(mapped_, [&](const auto& mapping) { return mapping->id == id; });
  }

  void pin_one() {
    ModelBlob* blob = any([](const ModelBlob& blob) { return blob.sealed || blob.is_relay(); });
    if (blob == nullptr) return;
    const BlobId id = blob->options.id;
    if (below(3) == 0) {
      store_->unpin(id);
      if (blob->pins == 0 || --blob->pins > 0) return;
      blob->pinned_bytes = 0;
      blob->resident.clear();
      return;
    }
    const uint64_t bytes = blob->size() + blob->chunks.size() * kPage;
    const bool fits =
        blob->pins > 0 || bytes + pinned_bytes() + held_bytes() <= kMemory / limits::kPinnedShare;
    const auto pinned = store_->pin(id);
    if (blob->is_relay()) {
      CHECK(code_of(pinned) == ErrorCode::kInvalidArgument);
      return;
    }
    CHECK(code_of(pinned) == (fits ? ErrorCode::kOk : ErrorCode::kResourceExhausted));
    if (pinned && ++blob->pins == 1) blob->pinned_bytes = bytes;
  }

  void view_one() {
    if (!views_.empty() && (views_.size() == kViewsMax || below(2) == 0)) {
      views_.erase(views_.begin() + static_cast<ptrdiff_t>(below(views_.size())));
      return;
    }
    const ModelBlob* blob = any([](const ModelBlob& blob) { return !blob.chunks.empty(); });
    if (blob == nullptr) return;
    const BlobId id = blob->options.id;
    const auto index = static_cast<uint32_t>(below(blob->chunks.size()));
    const auto resident = store_->resident_chunks(id);
    auto view = store_->view_chunk(id, index);
    if (!view) {  // few are viewed: only what is not in memory can't be
      CHECK(code_of(view) == ErrorCode::kNotFound);
      CHECK((std::ranges::find(resident, index) == resident.end() || damaged_));
      return;
    }
    views_.push_back({std::move(*view), id, chunk_bytes(id, index, blob->chunks[index])});
    ++views;
  }

  void map_one() {
    if (!mapped_.empty() && (mapped_.size() == kMappingsMax || below(2) == 0)) {
      mapped_.erase(mapped_.begin() + static_cast<ptrdiff_t>(below(mapped_.size())));
      return;
    }
    const ModelBlob* blob = any([](const ModelBlob& blob) { return !blob.is_relay(); });
    if (blob == nullptr) return;
    const BlobId id = blob->options.id;
    const uint64_t bytes = whole_pages(blob->size());
    const bool can_be = blob->options.mappable && blob->sealed && blob->size() > 0;
    const bool fits =
        is_held(id) || held_bytes() + pinned_bytes() + bytes <= kMemory / limits::kMappedShare;
    auto hold = store_->hold(id);
    if (!hold) {
      CHECK(code_of(hold) == ErrorCode::kNotMappable);
      CHECK((!can_be || !fits || message_has(hold, "not now: ")));
      return;
    }
    CHECK((can_be && fits));
    const auto file = store_->map(id);
    if (!file) {  // what is on disk may be brought back first
      const bool is_unread = code_of(file) == ErrorCode::kIo && damaged_;
      if (!is_unread) succeeded(tl::unexpected<Error>(file.error()), true);
      return;
    }
    Bytes expected;
    for (uint32_t index = 0; index < blob->chunks.size(); ++index) {
      const Bytes chunk = chunk_bytes(id, index, blob->chunks[index]);
      expected.insert(expected.end(), chunk.begin(), chunk.end());
    }
    mapped_.push_back(
        std::make_unique<ModelMapping>(id, std::move(*hold), *file, std::move(expected)));
    ++mappings;
  }

  // What holds at any moment, whatever was done.
  void check_promises() {
    for (const NamespaceUsage& usage : store_->namespaces()) {
      uint64_t used = 0;
      for (const auto& [number, blob] : blobs_) {
        if (blob.options.name_space == usage.name) used += blob.used();
      }
      CHECK(usage.used == used);
      CHECK(usage.used + usage.reserved == taken_of(usage.name));
    }
    std::set<uint64_t> expired;
    for (const BlobId id : store_->expired()) expired.insert(id.lo);
    CHECK(expired == expected_to_expire());
    const StoreUsage usage = store_->usage();
    CHECK(usage.memory_mapped == held_bytes());
    CHECK(usage.pinned == pinned_bytes());
    const uint64_t left = usage.chunks_demoted + usage.chunks_dropped;
    if (usage.pinned > 0 && left > left_) left_beside += left - left_;
    left_ = left;
    check_pins();
    for (const ModelView& each : views_) check_view(each);
    for (const auto& mapping : mapped_) CHECK(mapping->is_right());
  }

  // What of a pinned blob was in memory once is there still.
  void check_pins() {
    for (auto& [number, blob] : blobs_) {
      if (blob.pins == 0) continue;
      const auto stat = store_->stat(blob.options.id);
      REQUIRE(stat);
      CHECK(stat->pins == blob.pins);
      const auto now = store_->resident_chunks(blob.options.id);
      const std::set<uint32_t> resident(now.begin(), now.end());
      CHECK(std::ranges::includes(resident, blob.resident));
      blob.resident = resident;
    }
  }

  // Its bytes; of a blob that has gone they may be zeros, once another view of the chunk has ended.
  void check_view(const ModelView& each) {
    const auto bytes = each.view.bytes.first(each.expected.size());
    if (std::ranges::equal(bytes, each.expected)) return;
    INFO("a view of blob " << each.id.lo);
    CHECK(!blobs_.contains(each.id.lo));
    CHECK(std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; }));
  }

  // Its very bytes, or an error that may be.
  void check_chunk(const ModelBlob& blob, uint32_t index) {
    Bytes buffer(kSmallChunk);
    const auto read = below(2) == 0 ? store_->read_chunk(blob.options.id, index, buffer)
                                    : store_->load_chunk(blob.options.id, index, buffer);
    if (index >= blob.chunks.size()) {
      CHECK(code_of(read) == ErrorCode::kNotFound);
      return;
    }
    if (read) {
      buffer.resize(read->stored_size);
      CHECK(buffer == chunk_bytes(blob.options.id, index, blob.chunks[index]));
    } else if (read.error().code == ErrorCode::kCorrupt) {
      CHECK(damaged_);
    } else if (read.error().code == ErrorCode::kIo) {
      CHECK((damaged_ || !machine_.has_power()));
    } else {
      CHECK((blob.is_relay() && read.error().code == ErrorCode::kNotFound));
    }
  }

  // What must be there is, whole; what may be there is whole or absent; nothing else is there.
  void restart(bool crash) {
    views_.clear();
    mapped_.clear();
    store_.reset();
    streams_.clear();
    left_ = 0;
    if (crash || !machine_.has_power()) {
      machine_.crash();
      ++crashes;
    } else {
      machine_.mend();
    }
    index_full_ = false;
    unwritten_.clear();
    open();
    std::map<uint64_t, ModelBlob> found;
    names_.clear();
    for (uint64_t i = 0; i < 2 * kNames; ++i) {
      const std::string name_space = kNamespaces[i % 2];
      const std::string name = "name-" + std::to_string(i / 2);
      const auto id = store_->find(name_space, name);
      if (id) names_[name_space + "/" + name] = id->lo;
    }
    for (const auto& entry : names_) {  // no bindings: INFO's lambda can't have them
      const std::string& name = entry.first;
      const uint64_t number = entry.second;
      INFO("blob " << number << " named " << name);
      const auto known = blobs_.find(number);
      const bool is_sure = known != blobs_.end() && known->second.survives();
      REQUIRE((is_sure || unsure_.contains(number)));
      ModelBlob& blob = found[number] = is_sure ? known->second : unsure_.at(number);
      blob.sealed = true;
      blob.reserved_left = 0;
      blob.pins = 0;
      blob.pinned_bytes = 0;
      blob.resident.clear();
      blob.options.mappable = false;  // a restart forgets it
      start_ttl(blob);
      CHECK(blob.key() == name);
      check_whole(blob);
    }
    for (const auto& entry : blobs_) {
      const uint64_t number = entry.first;
      const ModelBlob& blob = entry.second;
      if (!blob.survives() || found.contains(number)) continue;
      INFO("blob " << number << " named " << blob.options.name << " is missing");
      const auto holder = names_.find(blob.key());  // only a successor may be in its place
      CHECK((holder != names_.end() && unsure_.contains(holder->second)));
    }
    blobs_ = std::move(found);
    unsure_.clear();
    CHECK(store_->usage().blobs == blobs_.size());
    CHECK(store_->usage().blobs_lost == 0);
  }

  void check_whole(const ModelBlob& blob) {
    const auto stat = store_->stat(blob.options.id);
    REQUIRE(stat);
    CHECK(stat->sealed);
    CHECK(stat->size == blob.size());
    CHECK(stat->durability == Durability::kDisk);
    CHECK(stat->ttl == blob.options.ttl);
    for (uint32_t index = 0; index <= blob.chunks.size(); ++index) check_chunk(blob, index);
    ++survivors;
  }

  const std::string policy_;
  const bool is_calm_;
  uint64_t quota_ = limits::kMiB;  // 0: none
  TemporaryDirectory directory_;
  ManualClock clock_;
  SimMachine machine_;
  std::mt19937_64 random_;
  std::unique_ptr<BlobStore> store_;
  std::map<uint64_t, ModelBlob> blobs_;   // that the store has
  std::map<uint64_t, ModelBlob> unsure_;  // that a restart may bring: a failed seal or removal
  std::set<uint64_t> unwritten_;          // of those, removed ones: until the index has room
  std::map<std::string, uint64_t> names_;
  std::vector<uint64_t> streams_;
  std::vector<ModelView> views_;  // end before the store, as do
  std::vector<std::unique_ptr<ModelMapping>> mapped_;
  uint64_t left_ = 0;  // chunks that have left memory since the start
  uint64_t last_number_ = 0;
  bool index_full_ = false;
  bool damaged_ = false;  // a bit was flipped, or a read told to fail
};

}  // namespace

TEST_CASE("whatever happens, a store keeps what it promised and gives no other bytes") {
  const char* only = std::getenv("BIGCAST_SEED");
  const uint64_t first = only != nullptr ? std::strtoull(only, nullptr, 10) : 1;
  const uint64_t many = std::getenv("BIGCAST_FULL") != nullptr ? 500 : kIsThreadSanitized ? 3 : 12;
  const uint64_t runs = only != nullptr ? 1 : many;
  std::vector<uint64_t> seeds(runs);
  std::iota(seeds.begin(), seeds.end(), first);
  if (only == nullptr) seeds.push_back(std::random_device()());  // a new one each time
  MESSAGE("seeds " << first << " to " << first + runs - 1 << ", and " << seeds.back());
  std::map<std::string, uint64_t> counts;
  for (const uint64_t seed : seeds) {
    CAPTURE(seed);
    Model model(seed);
    model.run();
    counts["crashes"] += model.crashes;
    counts["blobs found again"] += model.survivors;
    counts["refusals by a failed disk"] += model.refusals;
    counts["refusals by a full index"] += model.index_refusals;
    counts["refusals by a quota"] += model.over_quota;
    counts["blobs expired"] += model.expiries;
    counts["chunks left memory beside pins"] += model.left_beside;
    counts["views"] += model.views;
    counts["mappings"] += model.mappings;
  }
  for (const auto& [what, count] : counts) {
    MESSAGE(what << ": " << count);
    if (only == nullptr && !kIsThreadSanitized) CHECK(count > runs / 2);  // else it tests nothing
  }
}

}  // namespace bigcast
