#include "server/puller.h"

#include <fmt/format.h>
#include <kj/debug.h>

#include <algorithm>

#include "base/log.h"
#include "server/relay.h"
#include "server/swarm.h"

namespace bigcast {
namespace {

void set(std::vector<bool>& bits, uint32_t index, bool value) {
  if (index >= bits.size()) bits.resize(index + 1);
  bits[index] = value;
}

// Whether a chunk that the store refuses with this is the fault of who sent it.
bool is_senders(ErrorCode code) {
  return code == ErrorCode::kCorrupt || code == ErrorCode::kInvalidArgument;
}

}  // namespace

kj::Own<FetchedChunk> failed_fetch(Error error) {
  auto fetched = kj::refcounted<FetchedChunk>();
  fetched->error = std::move(error);
  return fetched;
}

Puller::Puller(NodeCore& core, RelayBlob& blob)
    : core_(core), blob_(blob), home_(core, blob, *this), tasks_(*this) {}

Puller::~Puller() noexcept(false) { KJ_ASSERT(readers_.empty(), "a reader outlives the puller"); }

void Puller::taskFailed(kj::Exception&& exception) {
  const Error error = rpc::to_error(exception);
  log().warn("relaying blob {}: {}", blob_.id().to_string(), error.to_string());
}

Puller::Reader::~Reader() noexcept(false) {
  puller_.readers_.erase(this);
  puller_.wake();
}

void Puller::Reader::reads(uint32_t index) {
  puller_.unread_.erase(index);
  if (position_ == index) return;
  position_ = index;
  puller_.wake();
}

kj::Promise<kj::Own<FetchedChunk>> Puller::fetch(uint32_t index) {
  auto paf = kj::newPromiseAndFulfiller<kj::Own<FetchedChunk>>();
  auto& waiters = waiting_[index];
  std::erase_if(waiters, [](auto& waiter) { return !waiter->isWaiting(); });
  waiters.push_back(kj::mv(paf.fulfiller));
  set(held_, index, false);
  wake();
  return kj::mv(paf.promise);
}

void Puller::finish(uint32_t index, kj::Own<FetchedChunk> fetched) {
  retries_.erase(index);
  const auto found = waiting_.find(index);
  if (found == waiting_.end()) return;
  Waiters waiters = std::move(found->second);
  waiting_.erase(found);
  for (auto& waiter : waiters) waiter->fulfill(kj::addRef(*fetched));
}

void Puller::fail_all(const Error& error) {
  while (!waiting_.empty()) finish(waiting_.begin()->first, failed_fetch(error));
}

void Puller::copies_dropped() {
  ++*drops_;
  held_.clear();
  tried_.clear();
  began_.reset();
  first_bytes_ = first_chunks_ = 0;
  is_complete_ = false;
  prefetch_from_ = 0;
  transfers_.clear();  // what readers wait for is asked for again
  prefetches_ = false;
  forget_unread();
  for (Reader* reader : readers_) reader->position_.reset();  // nothing ahead until it reads on
  home_.leave();                                              // and joins again, with nothing
}

void Puller::prefetch() {
  prefetches_ = true;
  wake();
}

void Puller::settle() {
  prefetches_ = false;
  transfers_.clear();
  home_.leave();
}

void Puller::forget_unread() {
  for (const auto& [index, size] : unread_) core_.metrics->bytes_prefetch_wasted += size;
  unread_.clear();
}

// ---- What is wanted.

void Puller::wake() {
  if (stepping_) return;
  stepping_ = true;
  tasks_.add(kj::evalLater([this] {
    stepping_ = false;
    step();
  }));
}

void Puller::wake_in(uint32_t delay_ms) {
  tasks_.add(core_.loop.timer().afterDelay(delay_ms * kj::MILLISECONDS).then([this] { wake(); }));
}

void Puller::step() {
  if (blob_.ended()) return;
  give_up_late();
  end_beyond();
  measure_complete();
  auto wanted = wanted_now();
  if (wanted.empty() && transfers_.empty()) sources_.clear();
  home_.step(std::move(wanted));
}

// The blob is sealed: those who wait for more learn where it ends.
void Puller::end_beyond() {
  const auto end = blob_.sealed_end();
  if (!end) return;
  while (!waiting_.empty() && waiting_.rbegin()->first >= end->chunk_count) {
    auto fetched = kj::refcounted<FetchedChunk>();
    fetched->end = *end;
    finish(waiting_.rbegin()->first, kj::mv(fetched));
  }
}

uint32_t Puller::window() const {
  const StoreUsage usage = core_.store->usage();
  const uint32_t stripes = blob_.stripe().count;  // each is read ahead
  const uint64_t share =
      (usage.memory_budget + usage.disk_budget) / limits::kWindowStoreShare / stripes;
  const auto chunks = static_cast<uint32_t>(
      std::clamp<uint64_t>(share / blob_.chunk_size(), 1, limits::kWindowChunks));
  return chunks * stripes;
}

std::vector<uint32_t> Puller::wanted_now() {
  std::set<uint32_t> wanted;
  const TimePoint now = core_.clock.now();
  const auto is_free = [&](uint32_t index) {
    const auto retry = retries_.find(index);
    return !transfers_.contains(index) &&
           (retry == retries_.end() || retry->second.not_before <= now);
  };
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    std::erase_if(it->second, [](auto& waiter) { return !waiter->isWaiting(); });
    it = it->second.empty() ? waiting_.erase(it) : std::next(it);
  }
  for (const auto& [index, waiters] : waiting_) {
    if (wanted.size() < limits::kWantedMax && is_free(index)) wanted.insert(index);
  }
  const auto end = blob_.sealed_end();
  const uint32_t last = end ? end->chunk_count : limits::kChunksPerBlobMax;
  const Stripe stripe = blob_.stripe();
  const uint32_t ahead = reads_ahead_ ? window() : 0;
  for (const Reader* reader : readers_) {
    if (!reader->position_) continue;
    for (uint32_t i = *reader->position_; i < std::min(last, *reader->position_ + ahead); i++) {
      if (wanted.size() >= limits::kWantedMax) break;
      if (stripe.has(i) && !has(tried_, i) && is_free(i)) wanted.insert(i);
    }
  }
  if (prefetches_) {
    const auto is_done = [&](uint32_t index) { return !stripe.has(index) || has(tried_, index); };
    while (prefetch_from_ < last && is_done(prefetch_from_)) prefetch_from_++;
    uint32_t free = blob_.keeps() ? limits::kWantedMax : free_chunks();
    for (uint32_t i = prefetch_from_; i < last && free > 0; i++) {
      if (wanted.size() >= limits::kWantedMax) break;
      if (!is_done(i) && is_free(i) && wanted.insert(i).second) free--;
    }
    wait_for_memory(free == 0 && prefetch_from_ < last);
  }
  return {wanted.begin(), wanted.end()};
}

// Nothing tells when memory becomes free.
void Puller::wait_for_memory(bool is_full) {
  if (!is_full || prefetch_waits_) return;
  prefetch_waits_ = true;
  const auto delay = limits::kPrefetchRetryMs * kj::MILLISECONDS;
  tasks_.add(core_.loop.timer().afterDelay(delay).then([this] {
    prefetch_waits_ = false;
    wake();
  }));
}

uint32_t Puller::free_chunks() const {
  const StoreUsage usage = core_.store->usage();
  const uint64_t taken = usage.memory_used + transfers_.size() * uint64_t{blob_.chunk_size()};
  if (taken >= usage.memory_unread_max) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(
      (usage.memory_unread_max - taken) / blob_.chunk_size(), limits::kWantedMax));
}

bool Puller::is_near_reader(uint32_t index) const {
  if (waiting_.contains(index)) return true;
  const uint32_t ahead = reads_ahead_ ? window() : 0;
  return std::ranges::any_of(readers_, [&](const Reader* reader) {
    return reader->position_ && index >= *reader->position_ && index - *reader->position_ < ahead;
  });
}

bool Puller::has_copies() const { return std::ranges::find(held_, true) != held_.end(); }

// How many more chunks there is a place for. One always, so that it is our turn some time.
uint32_t Puller::room() const {
  const uint32_t size = blob_.chunk_size();
  const uint64_t fit = std::min<uint64_t>(core_.credits->bytes_max() / size, fetches_at_once(size));
  const uint64_t left = fit > transfers_.size() ? fit - transfers_.size() : 0;
  const uint64_t free = (core_.credits->bytes_max() - core_.credits->bytes_used()) / size;
  const uint64_t room = std::min(left, free);
  return static_cast<uint32_t>(transfers_.empty() ? std::max<uint64_t>(room, 1) : room);
}

// ---- Fetching.

kj::Maybe<kj::Own<ChunkSource>> Puller::source_at(const rpc::Address& address, bool is_home) {
  const auto found = sources_.find(address.to_string());
  if (found != sources_.end()) return kj::addRef(*found->second);
  auto link = blob_.bulk_link(address);
  KJ_IF_MAYBE (own, link) {
    auto source = kj::refcounted<ChunkSource>(kj::addRef(core_), kj::mv(*own), blob_.id(), is_home);
    sources_[address.to_string()] = kj::addRef(*source);
    return kj::mv(source);
  }
  return nullptr;
}

// When a home's copy can't be read the others have their turns.
rpc::Address Puller::home_for(uint32_t index, const rpc::Address& followed) const {
  const auto retry = retries_.find(index);
  const auto& homes = blob_.homes();
  const auto at = std::ranges::find(homes, followed);
  if (retry == retries_.end() || at == homes.end()) return followed;
  const auto turn = static_cast<size_t>(at - homes.begin()) + retry->second.other_home;
  return homes[turn % homes.size()];
}

void Puller::start(rpc::Assignment::Reader assignment) {
  const uint32_t index = assignment.getIndex();
  if (index >= limits::kChunksPerBlobMax || transfers_.contains(index)) return;
  auto transfer = kj::heap<Transfer>();
  transfer->started = core_.clock.now();
  kj::Maybe<kj::Own<ChunkSource>> source;
  auto* home = blob_.home();
  if (assignment.isPeer()) {
    const auto peer = assignment.getPeer();
    const auto meta = rpc::read(peer.getMeta(), blob_.chunk_size());
    const auto address = rpc::read(peer.getAt());
    if (meta && address) {
      transfer->meta = *meta;
      source = source_at(*address, false);
    }
  } else if (home != nullptr) {
    transfer->from_home = true;
    source = source_at(home_for(index, home->link->address()), true);
  }
  KJ_IF_MAYBE (from, source) {
    if (!began_) began_ = core_.clock.now();
    auto& entry = transfers_[index];
    entry = kj::mv(transfer);
    entry->task =
        this->transfer(index, kj::mv(*from))
            .catch_([](kj::Exception&& exception) {
              return Outcome{rpc::FetchFailure::FAILED, failed_fetch(rpc::to_error(exception))};
            })
            .then([this, index](Outcome outcome) { on_outcome(index, kj::mv(outcome)); })
            .eagerlyEvaluate([this](kj::Exception&& e) { taskFailed(kj::mv(e)); });
    return;
  }
  home_.failed(index, rpc::FetchFailure::DECLINED);
}

kj::Promise<kj::Maybe<kj::Own<CreditPool::Credit>>> Puller::credit_in_time() {
  using MaybeCredit = kj::Maybe<kj::Own<CreditPool::Credit>>;
  auto too_late = core_.loop.timer()
                      .afterDelay(limits::kPeerStallTimeoutMs * kj::MILLISECONDS)
                      .then([]() -> MaybeCredit { return nullptr; });
  return core_.credits->acquire(blob_.chunk_size())
      .then([](kj::Own<CreditPool::Credit> credit) { return MaybeCredit(kj::mv(credit)); })
      .exclusiveJoin(kj::mv(too_late));
}

kj::Promise<Puller::Outcome> Puller::transfer(uint32_t index, kj::Own<ChunkSource> source) {
  return credit_in_time().then([this, index, source = kj::mv(source)](
                                   auto maybe_credit) mutable -> kj::Promise<Outcome> {
    KJ_IF_MAYBE (credit, maybe_credit) {
      transfers_.at(index)->started = core_.clock.now();
      const auto retry = retries_.find(index);
      const bool was_corrupt = retry != retries_.end() && retry->second.corrupt > 0;
      auto read = source->read(index, was_corrupt ? rpc::ReadMode::CHECKED : rpc::ReadMode::BYTES);
      return read.then([this, index, credit = kj::mv(*credit), source = kj::mv(source)](
                           Result<ChunkSource::Response> response) mutable -> kj::Promise<Outcome> {
        if (response) {
          if (response->getResult().isAbsent()) source->reopen();
          return keep(index, kj::mv(*response), kj::mv(credit));
        }
        const bool absent = response.error().code == ErrorCode::kNotFound;
        return Outcome{absent ? rpc::FetchFailure::ABSENT : rpc::FetchFailure::FAILED,
                       failed_fetch(response.error())};
      });
    }
    return Outcome{rpc::FetchFailure::DECLINED,
                   failed_fetch({ErrorCode::kDeadlineExceeded, "no room to receive it"})};
  });
}

kj::Promise<Puller::Outcome> Puller::keep(uint32_t index, ChunkSource::Response response,
                                          kj::Own<CreditPool::Credit> credit) {
  transfers_.at(index)->arrived = true;
  const auto result = response.getResult();
  const auto fails = [](rpc::FetchFailure why, Error error) {
    return Outcome{why, failed_fetch(std::move(error))};
  };
  const auto lies = [&](const std::string& what) {
    return fails(rpc::FetchFailure::FAILED, {ErrorCode::kCorrupt, "the answer is " + what});
  };
  if (result.isError()) return fails(rpc::FetchFailure::FAILED, rpc::read(result.getError()));
  if (result.isAbsent()) {
    return fails(rpc::FetchFailure::ABSENT, {ErrorCode::kNotFound, "the holder lost it"});
  }
  if (!result.isChunk()) return lies("not a chunk");
  const auto meta = rpc::read(result.getChunk().getMeta(), blob_.chunk_size());
  if (!meta) return lies(meta.error().message);
  const auto data = result.getChunk().getData();
  const auto& expected = transfers_.at(index)->meta;
  if (meta->index != index || data.size() < meta->stored_size || (expected && *expected != *meta)) {
    return lies("another chunk");
  }
  auto fetched = kj::refcounted<FetchedChunk>();
  fetched->meta = *meta;
  fetched->bytes = {reinterpret_cast<const std::byte*>(data.begin()), meta->stored_size};
  fetched->credit = kj::mv(credit);
  fetched->response = kj::mv(response);
  transfers_.at(index)->ahead = !blob_.keeps() && !is_near_reader(index);
  const Put why = transfers_.at(index)->ahead ? Put::kAhead : Put::kAwaited;
  return core_
      .put_on_pool([store = core_.store, id = blob_.id(), meta = *meta, bytes = fetched->bytes, why,
                    keeps = blob_.keeps(), held = kj::addRef(*fetched), drops = drops_,
                    drops_before = drops_->load()]() -> Result<bool> {
        const auto stored = store->put_chunk(id, meta, bytes, why);  // verifies it
        // What was under way when the copies were dropped came after them.
        if (stored && drops->load() != drops_before) (void)store->drop_chunks(id);
        if (stored) return true;
        if (is_senders(stored.error().code) || keeps) {
          return tl::unexpected(stored.error());
        }
        // Not kept, for want of room, a failing disk or because copies were just asked to go: those
        // who wait get the bytes all the same. The store may not have come to look at them.
        BIGCAST_TRY(verify_chunk(meta, bytes));
        return false;
      })
      .then([fetched = kj::mv(fetched)](Result<bool> kept) mutable {
        if (!kept) {
          // Whoever sent it did its part.
          const bool is_ours = !is_senders(kept.error().code);
          const auto why = is_ours ? rpc::FetchFailure::DECLINED : rpc::FetchFailure::FAILED;
          return Outcome{why, failed_fetch(kept.error()), is_ours};
        }
        fetched->kept = *kept;
        return Outcome{std::nullopt, kj::mv(fetched)};
      });
}

void Puller::on_outcome(uint32_t index, Outcome outcome) {
  auto transfer = kj::mv(transfers_.at(index));
  transfers_.erase(index);
  const bool from_home = transfer->from_home;
  if (!outcome.why) {
    on_fetched(index, kj::mv(outcome.fetched), *transfer);
  } else {
    report(index, outcome, from_home);
  }
  core_.destroy_later(kj::mv(transfer));  // its task is what runs now
  wake();
}

void Puller::report(uint32_t index, const Outcome& outcome, bool from_home) {
  home_.failed(index, *outcome.why);
  const Error& error = *outcome.fetched->error;
  if (error.code == ErrorCode::kCorrupt) core_.metrics->checksum_failures++;
  if (outcome.is_ours) return on_not_kept(index, error);
  if (*outcome.why == rpc::FetchFailure::DECLINED) return;
  log().info("chunk {} of blob {} from {}: {}", index, blob_.id().to_string(),
             from_home ? "its home" : "a peer", error.to_string());
  if (!from_home) core_.metrics->peer_fetch_failures++;
  // What a peer can't give says nothing about the home.
  if (from_home) on_home_failure(index, error);
}

// A home in the making can't keep a chunk: no other source would change that.
void Puller::on_not_kept(uint32_t index, const Error& error) {
  if (blob_.ended()) return;
  log().warn("chunk {} of blob {}: can't be kept: {}", index, blob_.id().to_string(),
             error.to_string());
  if (is_passing(error.code)) return on_home_failure(index, error);  // tried again
  blob_.end(error);
}

// The home sends nobody else to a peer that is late (Swarm::beat); who waits for it must leave it,
// too, a little later, or its places for fetches stay taken.
void Puller::give_up_late() {
  if (!usual_) return;
  const TimePoint now = core_.clock.now();
  const Duration late_after = std::clamp<Duration>(
      limits::kLateTimesUsual * *usual_, std::chrono::milliseconds(limits::kFetchLateMsMin),
      std::chrono::milliseconds(limits::kFetchLateMsMax));
  for (auto it = transfers_.begin(); it != transfers_.end();) {
    const Transfer& transfer = *it->second;
    const bool is_late = now - transfer.started > late_after;
    if (transfer.from_home || transfer.arrived || !is_late) {
      ++it;
      continue;
    }
    const uint32_t index = it->first;
    took(now - transfer.started);  // else a link that became slow looks like slow peers for ever
    it = transfers_.erase(it);
    report(index,
           {rpc::FetchFailure::FAILED,
            failed_fetch({ErrorCode::kDeadlineExceeded, "it takes much longer than is usual"})},
           false);
  }
}

void Puller::took(Duration time) { usual_ = usual_ ? (7 * *usual_ + time) / 8 : time; }

void Puller::on_fetched(uint32_t index, kj::Own<FetchedChunk> fetched, const Transfer& transfer) {
  Metrics& metrics = *core_.metrics;
  const uint32_t size = fetched->meta.stored_size;
  took(core_.clock.now() - transfer.started);
  (transfer.from_home ? metrics.chunks_fetched_home : metrics.chunks_fetched_peer)++;
  (transfer.from_home ? metrics.bytes_fetched_home : metrics.bytes_fetched_peer) += size;
  if (has(tried_, index)) {
    metrics.chunks_refetched++;
  } else {
    measure_first(size);
  }
  if (unread_.erase(index) > 0) metrics.bytes_prefetch_wasted += size;  // it left unread
  set(tried_, index, true);
  set(held_, index, fetched->kept);
  if (fetched->kept) {
    home_.gained(index);
    if (blob_.keeps()) blob_.live()->chunk_came(index);
    core_.make_room_ahead();
  } else {
    home_.failed(index, rpc::FetchFailure::DECLINED);
    if (!transfer.ahead) reads_ahead_ = false;
  }
  if (transfer.ahead && !waiting_.contains(index)) {
    metrics.bytes_prefetched += size;
    if (fetched->kept) {
      unread_[index] = size;
    } else {
      metrics.bytes_prefetch_wasted += size;
    }
  }
  finish(index, kj::mv(fetched));
}

void Puller::measure_first(uint32_t size) {
  if (first_chunks_ == 0 && began_) {
    core_.metrics->relay_first_chunk_seconds.observe(seconds_of(core_.clock.now() - *began_));
  }
  first_bytes_ += size;
  first_chunks_++;
  measure_complete();
}

// When all chunks of the blob, or of its stripe, have come, be they still here or not.
void Puller::measure_complete() {
  const auto end = blob_.sealed_end();
  if (is_complete_ || !began_ || !end) return;
  const Stripe stripe = blob_.stripe();
  if (first_chunks_ < stripe.chunks_of(end->chunk_count)) return;
  is_complete_ = true;
  const double seconds = seconds_of(core_.clock.now() - *began_);
  core_.metrics->relay_complete_seconds.observe(seconds);
  if (core_.config.link_speed == 0 || seconds <= 0) return;
  const double least =
      static_cast<double>(first_bytes_) / static_cast<double>(core_.config.link_speed);
  core_.metrics->fanout_efficiency.observe(least / seconds);
}

void Puller::on_home_failure(uint32_t index, const Error& error) {
  if (blob_.ended()) return;
  const auto earlier = retries_.find(index);
  const bool is_followed = earlier == retries_.end() || earlier->second.other_home == 0;
  if (is_gone(error.code) && is_followed) return blob_.home_gone(error);
  Retry& retry = retries_[index];
  const TimePoint now = core_.clock.now();
  const bool is_unreadable =
      error.code == ErrorCode::kCorrupt || error.code == ErrorCode::kIo || is_gone(error.code);
  if (is_unreadable || retry.other_home > 0) retry.other_home++;
  if (is_unreadable) {
    const auto tries_max = std::max<size_t>(limits::kCorruptFetchesMax, blob_.homes().size());
    if (++retry.corrupt < tries_max) return;
  } else if (is_passing(error.code)) {
    if (!retry.failing_since) retry.failing_since = now;
    const auto timeout = std::chrono::milliseconds(limits::kProgressTimeoutMs);
    if (blob_.is_attached() && now - *retry.failing_since < timeout) {
      retry.not_before = now + std::chrono::milliseconds(retry.backoff_ms);
      wake_in(retry.backoff_ms + 1);
      retry.backoff_ms = std::min(2 * retry.backoff_ms, limits::kReconnectBackoffMaxMs);
      return;
    }
  }
  if (blob_.keeps()) return blob_.end(error);
  set(tried_, index, true);
  finish(index, failed_fetch(error));
}

}  // namespace bigcast
