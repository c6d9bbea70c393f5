#pragma once

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/refcount.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "server/chunk_source.h"
#include "server/core.h"
#include "server/home_follower.h"

namespace bigcast {

class RelayBlob;

// What a fetch brought: a chunk's bytes, the end of the blob, or an error.
struct FetchedChunk final : kj::Refcounted {
  struct End {
    uint32_t chunk_count = 0;
    uint64_t size = 0;
  };
  std::optional<Error> error;
  std::optional<End> end;
  bool kept = false;  // the store has it: better read it there than keep this
  bigcast::ChunkMeta meta;
  std::span<const std::byte> bytes;  // stored bytes, readable up to the next multiple of 8
  // Keep `bytes`; the credit counts them until the last reader is served.
  kj::Own<CreditPool::Credit> credit;
  kj::Maybe<capnp::Response<rpc::Blob::ReadResults>> response;
};

kj::Own<FetchedChunk> failed_fetch(Error error);

// The home will never have the blob again.
inline bool is_gone(ErrorCode code) {
  return code == ErrorCode::kNotFound || code == ErrorCode::kAborted;
}

// Worth another attempt: whoever did not answer may come back.
inline bool is_passing(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kDeadlineExceeded;
}

// Brings a blob's chunks to this node: decides which ones are wanted (what readers wait for, and a
// window ahead of each reader) and fetches each from whom the home names. One fetch a chunk,
// however many readers wait. Belongs to a RelayBlob.
class Puller final : private kj::TaskSet::ErrorHandler {
 public:
  Puller(NodeCore& core, RelayBlob& blob);
  ~Puller() noexcept(false);

  // Someone who reads in order: chunks are fetched ahead of it. Must not outlive the puller.
  class Reader {
   public:
    explicit Reader(Puller& puller) : puller_(puller) { puller_.readers_.insert(this); }
    ~Reader() noexcept(false);
    KJ_DISALLOW_COPY(Reader);
    void reads(uint32_t index);  // it asked for this chunk, here or not

   private:
    friend class Puller;
    Puller& puller_;
    std::optional<uint32_t> position_;
  };

  // For a chunk that the store does not have (any more).
  kj::Promise<kj::Own<FetchedChunk>> fetch(uint32_t index);
  // From now on fetches all of the blob as it comes, as far as memory is free; if the blob keeps,
  // takes the room it needs, as a home does.
  void prefetch();
  void settle();          // nothing is to be fetched any more
  void forget_unread();   // it is gone here: what nobody asked for was fetched for nothing
  void wake();            // the home was found (again), or the blob is sealed
  void copies_dropped();  // forgets what was here and was coming
  void fail_all(const Error& error);

  // For the follower.
  void wake_in(uint32_t delay_ms);
  void start(rpc::Assignment::Reader assignment);
  uint32_t room() const;
  bool is_fetching() const { return !transfers_.empty(); }
  bool is_awaited() const { return !waiting_.empty(); }
  bool has_copies() const;
  const std::vector<bool>& held() const { return held_; }

 private:
  // What becomes of an assignment.
  struct Outcome {
    std::optional<rpc::FetchFailure> why;  // none: it came
    kj::Own<FetchedChunk> fetched;
    bool is_ours = false;  // this node is to keep it and could not: nobody else can help
  };
  struct Transfer {
    bool from_home = false;
    bool arrived = false;                    // its bytes are here
    bool ahead = false;                      // when it came no reader waited for it or was near
    std::optional<bigcast::ChunkMeta> meta;  // as the home knows it, for a peer's answer
    TimePoint started;
    kj::Promise<void> task = nullptr;
  };
  // A chunk that the home could not give.
  struct Retry {
    uint32_t corrupt = 0;   // answers that failed their checksum
    size_t other_home = 0;  // 0: the one that is followed; else so many behind it
    std::optional<TimePoint> failing_since;
    TimePoint not_before;
    uint32_t backoff_ms = limits::kReconnectBackoffMinMs;
  };
  using Waiters = std::vector<kj::Own<kj::PromiseFulfiller<kj::Own<FetchedChunk>>>>;

  rpc::Address home_for(uint32_t index, const rpc::Address& followed) const;
  void step();
  void end_beyond();
  std::vector<uint32_t> wanted_now();
  bool is_near_reader(uint32_t index) const;
  uint32_t free_chunks() const;
  void wait_for_memory(bool is_full);
  uint32_t window() const;  // how many indices ahead, of which some may be of other stripes

  // Fetching.
  kj::Promise<Outcome> transfer(uint32_t index, kj::Own<ChunkSource> source);
  kj::Promise<kj::Maybe<kj::Own<CreditPool::Credit>>> credit_in_time();
  kj::Promise<Outcome> keep(uint32_t index, ChunkSource::Response response,
                            kj::Own<CreditPool::Credit> credit);
  kj::Maybe<kj::Own<ChunkSource>> source_at(const rpc::Address& address, bool is_home);
  void on_outcome(uint32_t index, Outcome outcome);
  void report(uint32_t index, const Outcome& outcome, bool from_home);
  void give_up_late();
  void took(Duration time);  // a chunk, or so long has it not come
  void on_fetched(uint32_t index, kj::Own<FetchedChunk> fetched, const Transfer& transfer);
  void on_not_kept(uint32_t index, const Error& error);
  void on_home_failure(uint32_t index, const Error& error);
  void finish(uint32_t index, kj::Own<FetchedChunk> fetched);
  void measure_first(uint32_t size);
  void measure_complete();
  void taskFailed(kj::Exception&& exception) override;

  NodeCore& core_;
  RelayBlob& blob_;
  // How often the copies were dropped: seen by what puts chunks, and outlives this.
  const std::shared_ptr<std::atomic<uint32_t>> drops_ = std::make_shared<std::atomic<uint32_t>>(0);
  bool reads_ahead_ = true;  // until a chunk could not be kept
  std::set<Reader*> readers_;
  std::map<uint32_t, Waiters> waiting_;
  std::map<uint32_t, kj::Own<Transfer>> transfers_;
  std::map<uint32_t, Retry> retries_;
  std::map<std::string, kj::Own<ChunkSource>> sources_;
  std::vector<bool> held_;   // kept, as far as is known
  std::vector<bool> tried_;  // fetched or failed before: not fetched ahead again
  bool prefetches_ = false;
  uint32_t prefetch_from_ = 0;           // all before it were tried
  bool prefetch_waits_ = false;          // for memory to become free
  std::map<uint32_t, uint32_t> unread_;  // prefetched: stored size
  std::optional<Duration> usual_;        // what a chunk takes, whoever gives it
  HomeFollower home_;
  bool stepping_ = false;  // a step is due
  // For the metrics: what came for the first time, since when.
  std::optional<TimePoint> began_;
  uint64_t first_bytes_ = 0;
  uint32_t first_chunks_ = 0;
  bool is_complete_ = false;
  kj::TaskSet tasks_;
};

}  // namespace bigcast
