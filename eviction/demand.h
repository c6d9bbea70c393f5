#pragma once

#include <unordered_map>
#include <vector>

#include "eviction/index_set.h"
#include "eviction/table.h"

namespace bigcast::eviction {

// What the open streams will not need leaves first; ours (docs/adr/0012-evict-by-demand.md). In
// this order:
//
//   1. chunks of released blobs, the one that was used longest ago first;
//   2. prefetched chunks that nobody has read, the oldest first;
//   3. other chunks that no open stream has still to read, by LRU;
//   4. the chunk whose nearest stream is farthest from it, counted in chunks;
//   5. what a stream that takes resident chunks first has still to read: it is due now. By LRU.
//
// A chunk of 1 to 3 that a stream comes to need stays in its queue until it would leave; only then
// it is set aside, and it returns to the queue's newer end when no stream needs it any more.
// Farthest-first is Belady's rule ("A study of replacement algorithms for a virtual-storage
// computer", IBM Systems Journal 5(2), 1966) for the part of the future that is known.
//
// An operation costs a few look-ups, and a logarithm of the number of streams; opening and closing
// a stream that takes resident chunks first, closing the last one and releasing a blob also cost a
// look at each of the blob's chunks.
class Demand final : public Policy {
 public:
  Demand() = default;
  Demand(const Demand&) = delete;
  Demand& operator=(const Demand&) = delete;

  std::string_view name() const override { return "demand"; }
  bool is_worth_a_place(Entry entry) override;
  void insert(Entry entry, uint64_t size) override;
  void hit(Entry entry) override;
  void erase(Entry entry) override;
  std::optional<Entry> evict() override;
  size_t size() const override { return table_.size(); }

  void open_stream(uint64_t stream, uint64_t blob, ReadOrder order) override;
  void advance_stream(uint64_t stream, uint32_t chunk) override;
  void close_stream(uint64_t stream) override;
  void release_blob(uint64_t blob) override;
  void mark_prefetched(Entry entry) override;

 private:
  enum class Place : uint8_t { kUsed, kUnread, kReleased, kNeeded };
  struct Node : QueueNode {
    Place place = Place::kUsed;
    bool unread = false;
  };
  struct Blob;
  struct Stream {
    Blob* blob = nullptr;
    ReadOrder order = ReadOrder::kAscending;
    uint32_t next = 0;       // kAscending: it has still to read this chunk and all that follow
    size_t rank = 0;         // ... in blob->ascending
    size_t at = 0;           // ... in heap_
    int64_t reach = -1;      // ... at least the distance to the farthest chunk it is nearest to
    std::vector<bool> read;  // kResidentFirst
  };
  // A blob with resident chunks or open streams.
  struct Blob {
    uint64_t number = 0;
    bool released = false;
    IndexSet resident;
    std::vector<Stream*> ascending;         // by `next`
    uint32_t unordered = 0;                 // streams that take resident chunks first ...
    std::vector<uint32_t> unordered_reads;  // ... and how many of them have read each chunk
  };

  Blob& blob_at(uint64_t number);
  void drop_if_idle(const Blob& blob);
  Queue<Node>& queue_at(Place place);
  void move(Slot slot, Place to);
  Place idle_place(const Blob& blob, const Node& node) const;
  Entry remove(Slot slot);
  Slot victim();  // kNoSlot when empty

  static bool is_needed(const Blob& blob, uint32_t chunk);
  Slot first_idle(Queue<Node>& queue);
  Slot farthest();
  // What no stream needs any more of the chunks from `begin` to before `end` returns to its queue.
  void settle(const Blob& blob, uint32_t begin, uint32_t end);

  void advance_ascending(Stream& stream, uint32_t next);
  void advance_unordered(Stream& stream, uint32_t chunk);
  void join(Stream& stream);
  void leave(Stream& stream);
  void leave_unordered(Stream& stream);
  static Stream* nearest(const Blob& blob, uint32_t chunk);
  static uint32_t end_of(const Stream& stream);
  void extend(Stream& stream, int64_t reach);
  void set_reach(Stream& stream, int64_t reach);
  void put(size_t at, Stream* stream);
  void sift(Stream* stream);

  Table<Node> table_;
  Queue<Node> used_{table_};
  Queue<Node> unread_{table_};
  Queue<Node> released_{table_};
  Queue<Node> needed_{table_};
  std::unordered_map<uint64_t, Blob> blobs_;
  std::unordered_map<uint64_t, Stream> streams_;
  std::vector<Stream*> heap_;  // of the ascending ones, the farthest reach first
};

}  // namespace bigcast::eviction
