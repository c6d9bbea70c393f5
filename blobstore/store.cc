#include "blobstore/store.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace bigcast {
namespace {

// Of a blob's bytes, those in the stripe's chunks.
uint64_t bytes_in_stripe(uint64_t size, uint32_t chunk_size, const Stripe& stripe) {
  const uint64_t chunks = chunks_in(size, chunk_size);
  const uint64_t in_stripe = stripe.chunks_of(chunks);
  if (in_stripe == 0) return 0;
  const bool has_last = stripe.has(static_cast<uint32_t>(chunks - 1));
  return in_stripe * chunk_size - (has_last ? chunks * chunk_size - size : 0);
}

Result<void> check_size(uint64_t size, uint32_t chunk_size) {
  if (size > limits::kBlobSizeMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("size: {} is above the limit of {}", size, limits::kBlobSizeMax));
  }
  if (chunks_in(size, chunk_size) > limits::kChunksPerBlobMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("size: {} in chunks of {} needs more than {} chunks", size, chunk_size,
                            limits::kChunksPerBlobMax));
  }
  return {};
}

Result<void> check_options(const BlobStore::Options& options) {
  const auto refuse = [](std::string message) {
    return fail(ErrorCode::kInvalidArgument, std::move(message));
  };
  constexpr uint64_t kMemoryMin = 2 * limits::kChunkSizeDefault;
  if (options.clock == nullptr) return refuse("clock: is required");
  if (options.memory_budget < kMemoryMin) {
    return refuse(fmt::format("memory_budget: {} is below {}", options.memory_budget, kMemoryMin));
  }
  if (!options.disk_path.empty() && options.disk_budget == 0) {
    return refuse("disk_budget: must be set with disk_path");
  }
  if (options.memory_low < limits::kMemoryMarkMin || options.memory_low > options.memory_high ||
      options.memory_high > 100) {
    return refuse(
        fmt::format("memory_low, memory_high: {} and {} are not percents from {} to 100 "
                    "in this order",
                    options.memory_low, options.memory_high, limits::kMemoryMarkMin));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<BlobStore>> BlobStore::open(
    Options options) {  // NOLINT(performance-unnecessary-value-param): the contract
  return open_store(options, make_disk());
}

Result<std::unique_ptr<BlobStore>> open_store(const BlobStore::Options& options,
                                              std::unique_ptr<Disk> disk) {
  BIGCAST_TRY(check_options(options));
  auto policy = eviction::make_policy(options.policy, options.memory_budget);
  if (!policy) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("policy: '{}' is unknown", options.policy));
  }
  std::unique_ptr<DiskTier> tier;
  if (!options.disk_path.empty()) {
    BIGCAST_ASSIGN(tier, DiskTier::open(options.disk_path, options.disk_budget, options.keep,
                                        std::move(disk)));
  }
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) files.rlim_cur = 1024;
  auto store =
      std::make_unique<Store>(options, std::move(policy), std::move(tier), files.rlim_cur / 2);
  BIGCAST_TRY(store->recover());
  return store;
}

Store::Store(const Options& options, std::unique_ptr<eviction::Policy> victims,
             std::unique_ptr<DiskTier> disk, uint64_t descriptors_max)
    : memory_budget_(options.memory_budget / kPage * kPage),
      high_mark_(memory_budget_ * options.memory_high / 100),
      low_mark_(memory_budget_ * options.memory_low / 100),
      descriptors_max_(descriptors_max),
      chunks_max_(options.chunks_max),
      keeps_(options.keep),
      clock_(*options.clock),
      disk_(std::move(disk)),
      quotas_(options.quotas),
      default_quota_(options.default_quota),
      victims_(std::move(victims)),
      relay_victims_(eviction::make_policy(victims_->name(), memory_budget_)),
      disk_victims_(
          eviction::make_policy(victims_->name(), std::max<uint64_t>(options.disk_budget, 1))),
      policies_{victims_.get(), relay_victims_.get(), disk_victims_.get()},
      copies_(eviction::make_policy("fifo", std::max<uint64_t>(options.disk_budget, 1))) {}

Result<Store::BlobPtr> Store::find_blob(BlobId id) const {
  const auto it = blobs_.find(id);
  if (it == blobs_.end()) {
    return fail(ErrorCode::kNotFound, fmt::format("no blob with the id {}", id.to_string()));
  }
  return it->second;
}

Result<void> Store::check_create(const CreateOptions& options) const {
  if (options.id.is_zero()) return fail(ErrorCode::kInvalidArgument, "id: must not be zero");
  if (options.stripe.index >= options.stripe.count) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("stripe: {} is not one of {}", options.stripe.index, options.stripe.count));
  }
  if (options.role == BlobRole::kHome) {
    BIGCAST_TRY(check_namespace(options.name_space));
    BIGCAST_TRY(check_name(options.name));
  }
  const uint32_t chunk_size = options.chunk_size;
  if (chunk_size < limits::kChunkSizeMin || chunk_size > limits::kChunkSizeMax ||
      chunk_size % kPage != 0) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk_size: {} is not a multiple of {} within {} and {}", chunk_size,
                            kPage, limits::kChunkSizeMin, limits::kChunkSizeMax));
  }
  if (chunk_size > memory_budget_ / 2) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk_size: {} is above half of the node's memory budget of {}",
                            chunk_size, memory_budget_));
  }
  if (options.size) BIGCAST_TRY(check_size(*options.size, chunk_size));
  if (options.mappable && options.stripe.count > 1) {
    return fail(ErrorCode::kInvalidArgument, "mappable: a blob of several homes can't be mapped");
  }
  if (options.durability == Durability::kMemory) return {};
  if (options.role != BlobRole::kHome || !disk_ || !keeps_) {
    return fail(ErrorCode::kInvalidArgument,
                disk_ ? "durability: this node keeps nothing beyond its end"
                      : "durability: disk was asked for, and this node has none");
  }
  if (!disk_->is_read_only()) return {};
  return fail(ErrorCode::kIo,
              "durability: the disk tier is read-only since a failure: " + disk_->failure());
}

Result<void> Store::create(const CreateOptions& options) {
  BIGCAST_TRY(check_create(options));
  auto blob = std::make_shared<StoredBlob>();
  blob->options = options;
  blob->created_at = clock_.now();
  const Lock lock(mutex_);
  if (unerased_.contains(options.id)) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("the id {} was removed, and the disk has no room to write that down",
                            options.id.to_string()));
  }
  if (blobs_.contains(options.id)) {
    return fail(ErrorCode::kAlreadyExists,
                fmt::format("the id {} is in use", options.id.to_string()));
  }
  if (blobs_.size() >= limits::kBlobsMax) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("the node holds its limit of {} blobs", limits::kBlobsMax));
  }
  if (options.durability == Durability::kDisk && unerased_.size() >= limits::kUnerasedMax) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("the disk has had no room to write down the removal of {} blobs",
                            unerased_.size()));
  }
  if (blob->is_home()) {
    blob->key = options.name_space + "/" + options.name;
    const bool taken = blob->has_name() && names_.contains(blob->key);
    if (taken && !options.replace) {
      return fail(ErrorCode::kAlreadyExists, fmt::format("{} exists", blob->key));
    }
    blob->share = share_of(options.name_space);
    const uint64_t bytes =
        whole_pages(bytes_in_stripe(options.size.value_or(0), options.chunk_size, options.stripe));
    BIGCAST_TRY(admit(*blob, bytes));
    blob->reserved_total = bytes;
    add_reserved(*blob, static_cast<int64_t>(bytes));
    shares_.try_emplace(options.name_space, blob->share);
    ++blob->share->blobs;
    ++home_chunk_sizes_[options.chunk_size];
    if (blob->has_name() && !taken) names_.emplace(blob->key, options.id);
  }
  add_blob(blob);
  return {};
}

void Store::add_blob(const BlobPtr& blob) {
  blob->serial = ++serials_;
  by_serial_.emplace(blob->serial, blob);
  blobs_.emplace(blob->options.id, blob);
}

void Store::start_ttl(StoredBlob& blob) {
  if (blob.options.ttl == Duration::zero()) return;
  blob.expires_at = clock_.now() + blob.options.ttl;
  expiries_.emplace(*blob.expires_at, blob.options.id);
}

std::vector<BlobId> Store::expired() const {
  std::vector<BlobId> ids;
  const TimePoint now = clock_.now();
  const Lock lock(mutex_);
  for (const auto& [at, id] : expiries_) {
    if (at > now) break;
    ids.push_back(id);
  }
  return ids;
}

Result<void> Store::reserve(BlobId id, uint64_t total) {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  BIGCAST_TRY(check_size(total, blob->options.chunk_size));
  const uint64_t target = whole_pages(total);
  if (!blob->is_home() || blob->sealed || target <= blob->reserved_total) return {};
  const uint64_t more = target - blob->reserved_total;
  BIGCAST_TRY(admit(*blob, more));
  blob->reserved_total = target;
  add_reserved(*blob, static_cast<int64_t>(more));
  return {};
}

Result<void> Store::check_complete(const StoredBlob& blob, uint64_t size,
                                   uint32_t chunk_count) const {
  const auto refuse = [](std::string message) {
    return fail(ErrorCode::kInvalidArgument, std::move(message));
  };
  const uint32_t chunk_size = blob.options.chunk_size;
  BIGCAST_TRY(check_size(size, chunk_size));
  if (blob.options.size && *blob.options.size != size) {
    return refuse(fmt::format("size: {} was declared, {} sealed", *blob.options.size, size));
  }
  if (chunks_in(size, chunk_size) != chunk_count) {
    return refuse(fmt::format("chunk_count: {} bytes are not {} chunks of {}", size, chunk_count,
                              chunk_size));
  }
  if (!blob.is_home()) return {};
  const Stripe& stripe = blob.options.stripe;
  uint32_t in_stripe = 0;
  for (uint32_t index = stripe.index; index < chunk_count; index += stripe.count) {
    ++in_stripe;
    const auto it = blob.chunks.find(index);
    const bool is_here = it != blob.chunks.end() && it->second.readable();
    if (!is_here || (blob.is_durable() && !it->second.on_disk)) {
      return refuse(fmt::format("chunk {}: is missing", index));
    }
    if (it->second.damaged) {
      return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: its copy here is damaged", index));
    }
    const uint64_t expected = std::min<uint64_t>(chunk_size, size - uint64_t{index} * chunk_size);
    if (it->second.meta.raw_size != expected) {
      return refuse(fmt::format("chunk {}: has {} raw bytes instead of {}", index,
                                it->second.meta.raw_size, expected));
    }
  }
  if (blob.chunks.size() != in_stripe) return refuse("chunk_count: there are chunks beyond it");
  return {};
}

Result<Digest128> Store::root_of(const StoredBlob& blob, uint32_t chunk_count,
                                 const std::optional<Digest128>& given) const {
  if (!blob.is_home()) return given.value_or(Digest128{});
  if (blob.options.stripe.count > 1) {
    if (given) return *given;
    return fail(ErrorCode::kInvalidArgument, "root digest: must be given, here is but a stripe");
  }
  RootDigest root;
  for (uint32_t index = 0; index < chunk_count; ++index) {
    root.add(blob.chunks.at(index).meta.digest);
  }
  const Digest128 computed = root.finish();
  if (!given || *given == computed) return computed;
  return fail(ErrorCode::kCorrupt, "root digest: is not that of the chunks that came");
}

Result<BlobStat> Store::seal(BlobId id, uint64_t size, uint32_t chunk_count,
                             std::optional<Digest128> root_digest) {
  Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  while (blob->writing_rows) changed_.wait(lock);  // the same call, made again
  if (blob->removed) return fail(ErrorCode::kNotFound, "the blob was removed meanwhile");
  if (blob->sealed) {
    if (blob->sealed_size != size || blob->sealed_chunks != chunk_count) {
      return fail(ErrorCode::kAlreadyExists,
                  fmt::format("size: the blob was sealed with {} bytes", blob->sealed_size));
    }
    if (root_digest && *root_digest != blob->root_digest) {
      return fail(ErrorCode::kAlreadyExists, "root digest: the blob was sealed with another");
    }
    return stat_of(*blob);
  }
  BIGCAST_TRY(check_complete(*blob, size, chunk_count));
  BIGCAST_ASSIGN(blob->root_digest, root_of(*blob, chunk_count, root_digest));
  blob->sealed = true;  // before the rows: no chunk may come while they are written
  blob->sealed_size = size;
  blob->sealed_chunks = chunk_count;
  if (blob->is_durable()) {
    const auto durable = make_durable(lock, blob);
    if (blob->removed) return fail(ErrorCode::kNotFound, "the blob was removed meanwhile");
    if (!durable) {
      blob->sealed = false;
      return tl::unexpected<Error>(durable.error());
    }
  }
  cancel_reservation(*blob);
  if (blob->has_name()) start_ttl(*blob);
  std::optional<BlobId> replaced;
  if (blob->has_name()) replaced = bind_name(lock, blob);
  if (blob->removed) return fail(ErrorCode::kNotFound, "the blob was removed meanwhile");
  BlobStat stat = stat_of(*blob);
  stat.replaced = replaced;
  return stat;
}

// The name passes from the blob that has it, if any, which is removed and returned.
std::optional<BlobId> Store::bind_name(Lock& lock, const BlobPtr& blob) {
  while (!blob->removed) {
    const auto [it, is_free] = names_.try_emplace(blob->key, blob->options.id);
    if (is_free || it->second == blob->options.id) return std::nullopt;
    const BlobPtr old = blobs_.at(it->second);
    if (old->writing_rows) {  // it was sealed before this one, and then replaced
      changed_.wait(lock);
      continue;
    }
    it->second = blob->options.id;
    const auto removed = remove_blob(lock, old);
    if (!removed) log().warn("replaced blob {}: {}", blob->key, removed.error().message);
    return old->options.id;
  }
  return std::nullopt;
}

Result<void> Store::remove(BlobId id) {
  Lock lock(mutex_);
  while (true) {
    BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
    if (!blob->writing_rows) return remove_blob(lock, blob);
    changed_.wait(lock);
  }
}

// Requires: no seal is writing its rows.
Result<void> Store::remove_blob(Lock& lock, const BlobPtr& blob) {
  blobs_.erase(blob->options.id);
  by_serial_.erase(blob->serial);
  if (blob->expires_at) expiries_.erase({*blob->expires_at, blob->options.id});
  pinned_ -= std::exchange(blob->pinned_bytes, 0);
  blob->removed = true;
  if (blob->is_home()) {
    const auto name = names_.find(blob->key);
    if (name != names_.end() && name->second == blob->options.id) names_.erase(name);
    cancel_reservation(*blob);
    const auto size = home_chunk_sizes_.find(blob->options.chunk_size);
    if (--size->second == 0) home_chunk_sizes_.erase(size);
  }
  auto freed = free_chunks(lock, blob);
  if (blob->is_home()) leave_share(*blob);
  return freed;
}

Result<void> Store::drop_chunks(BlobId id) {
  Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  if (blob->is_home()) {
    return fail(ErrorCode::kInvalidArgument, "a home does not drop its chunks: remove the blob");
  }
  return free_chunks(lock, blob);
}

// Frees all chunks at once; those that another thread moves, that thread frees. A durable blob's
// rows go first: if they can't, its place on disk stays taken.
Result<void> Store::free_chunks(Lock& lock, const BlobPtr& blob) {
  leave_to_holders(*blob);
  if (!park(*blob)) {
    while (!blob->spare.empty()) punch_spare(*blob);
  }
  std::vector<StoredChunk*> ours;
  for (auto& [index, chunk] : blob->chunks) {
    unlist(chunk);
    end_damage(chunk);
    chunk.version = ++versions_;
    chunk.doomed = true;
    count(chunk);
    if (chunk.busy) continue;
    chunk.busy = true;
    ours.push_back(&chunk);
  }
  const bool erase_rows = blob->removed && blob->has_rows;
  auto memory_file = blob->memory_file;
  begin_move();
  lock.unlock();
  Result<void> erased;
  if (erase_rows) erased = disk_->erase(blob->options.id);
  for (StoredChunk* chunk : ours) {
    if (chunk->pages > 0 && !chunk->small && chunk->views == 0) {  // else the last view does it
      memory_file->punch(uint64_t{chunk->meta.index} * blob->options.chunk_size, chunk->pages);
    }
  }
  memory_file.reset();
  lock.lock();
  for (StoredChunk* chunk : ours) {
    if (blob->frozen) leave_frozen(*blob, *chunk);
    memory_used_ -= chunk->pages;
    add_used(*blob, -static_cast<int64_t>(chunk->charged));
    if (chunk->pages > 0 && !chunk->small) --blob->in_memory_file;
    blob->withhold(*chunk);
    blob->chunks.erase(chunk->meta.index);
    --chunks_;
  }
  if (erase_rows && erased) blob->has_rows = false;
  if (!erased && erased.error().code == ErrorCode::kResourceExhausted) {
    unerased_.emplace(blob->options.id, blob);
  }
  close_if_empty(*blob);
  close_frozen(lock, *blob);
  release_withheld(lock, blob);
  end_move(true);
  while (parked_.size() > limits::kSpareFilesMax) free_parked(lock);
  return erased;
}

std::vector<BlobId> Store::remove_lease(LeaseId lease) {
  std::vector<BlobId> ids;
  Lock lock(mutex_);
  std::vector<BlobPtr> blobs;
  for (const auto& [id, blob] : blobs_) {
    if (!lease.is_zero() && blob->options.lease == lease) blobs.push_back(blob);
  }
  for (const BlobPtr& blob : blobs) {
    while (blob->writing_rows) changed_.wait(lock);
    if (blob->removed) continue;
    ids.push_back(blob->options.id);
    const auto removed = remove_blob(lock, blob);
    if (!removed) {
      log().warn("removing blob {} of an ended lease: {}", blob->key, removed.error().message);
    }
  }
  return ids;
}

Result<BlobId> Store::find(std::string_view name_space, std::string_view name) const {
  const Lock lock(mutex_);
  const std::string key = fmt::format("{}/{}", name_space, name);
  const auto it = names_.find(key);
  if (it == names_.end()) return fail(ErrorCode::kNotFound, fmt::format("no blob named {}", key));
  return it->second;
}

Result<BlobStat> Store::stat(BlobId id) const {
  const Lock lock(mutex_);
  BIGCAST_ASSIGN(const BlobPtr blob, find_blob(id));
  return stat_of(*blob);
}

std::vector<uint32_t> Store::stored_chunks(BlobId id) const {
  return chunks_if(id, [](const StoredChunk& chunk) { return chunk.readable(); });
}

std::vector<uint32_t> Store::resident_chunks(BlobId id) const {
  return chunks_if(id,
                   [](const StoredChunk& chunk) { return chunk.readable() && chunk.in_memory; });
}

std::vector<uint32_t> Store::chunks_if(BlobId id, bool (*wanted)(const StoredChunk&)) const {
  std::vector<uint32_t> indices;
  const Lock lock(mutex_);
  const auto blob = find_blob(id);
  if (!blob) return indices;
  for (const auto& [index, chunk] : (*blob)->chunks) {
    if (wanted(chunk)) indices.push_back(index);
  }
  return indices;
}

BlobStat Store::stat_of(const StoredBlob& blob) const {
  BlobStat stat;
  stat.id = blob.options.id;
  stat.name_space = blob.options.name_space;
  stat.name = blob.options.name;
  stat.role = blob.options.role;
  stat.chunk_size = blob.options.chunk_size;
  stat.size = blob.known_size();
  stat.sealed = blob.sealed;
  stat.chunk_count = blob.total.chunks;
  stat.stored_size = blob.total.stored;
  stat.memory_bytes = blob.total.memory;
  stat.disk_bytes = blob.total.disk;
  if (blob.sealed) stat.root_digest = blob.root_digest;
  stat.lease = blob.options.lease;
  stat.durability = blob.options.durability;
  stat.created_at = blob.created_at;
  stat.ttl = blob.options.ttl;
  stat.expires_at = blob.expires_at;
  stat.pins = blob.pins;
  stat.stripe = blob.options.stripe;
  stat.note = blob.options.note;
  stat.mappable = blob.options.mappable;
  return stat;
}

std::vector<BlobStat> Store::list(std::string_view name_space, std::string_view prefix,
                                  std::string_view after, size_t limit) const {
  const std::string base = fmt::format("{}/", name_space);
  const std::string wanted = base + std::string(prefix);
  limit = std::min(limit, limits::kListPageMax + 1);  // one beyond a page tells that there is more
  const Lock lock(mutex_);
  const bool begins_after = !after.empty() && base + std::string(after) >= wanted;
  return list_from(
      begins_after ? names_.upper_bound(base + std::string(after)) : names_.lower_bound(wanted),
      wanted, limit);
}

std::vector<BlobStat> Store::list_all(std::string_view first_key, size_t limit) const {
  const Lock lock(mutex_);
  return list_from(names_.lower_bound(first_key), "", std::min(limit, limits::kListPageMax));
}

std::vector<BlobStat> Store::list_from(Names::const_iterator it, std::string_view prefix,
                                       size_t limit) const {
  std::vector<BlobStat> result;
  for (; it != names_.end() && result.size() < limit && it->first.starts_with(prefix); ++it) {
    result.push_back(stat_of(*blobs_.at(it->second)));
  }
  return result;
}

StoreUsage Store::usage() const {
  const Lock lock(mutex_);
  StoreUsage usage = counters_;
  usage.memory_budget = memory_budget_;
  usage.memory_used = memory_used_;
  usage.memory_spare = spare_bytes_;
  usage.memory_mapped = held_;
  usage.memory_mapped_left = held_left_;
  usage.memory_unread_max = unread_max();
  usage.chunks_damaged = damaged_.size();
  usage.disk_budget = disk_ ? disk_->budget() : 0;
  usage.disk_used = disk_ ? disk_->used() : 0;
  usage.reserved = reserved_;
  usage.pinned = pinned_;
  usage.blobs = blobs_.size();
  usage.removals_left = unerased_.size();
  usage.descriptors = descriptors_;
  usage.disk_read_only = disk_ && disk_->is_read_only();
  return usage;
}

std::vector<NamespaceUsage> Store::namespaces() const {
  std::map<std::string, NamespaceUsage, std::less<>> all;
  const Lock lock(mutex_);
  for (const auto& [name, quota] : quotas_) all[name] = {name, quota, true};
  for (const auto& [name, share] : shares_) all[name] = share->usage;
  std::vector<NamespaceUsage> result;
  result.reserve(all.size());
  for (auto& [name, usage] : all) result.push_back(std::move(usage));
  return result;
}

std::string Store::disk_failure() const { return disk_ ? disk_->failure() : std::string(); }

}  // namespace bigcast
