#include "eviction/demand.h"

#include <algorithm>

namespace bigcast::eviction {
namespace {

constexpr uint32_t kBlobEnd = 1u << kChunkIndexBits;

}  // namespace

Demand::Blob& Demand::blob_at(uint64_t number) {
  Blob& blob = blobs_[number];
  blob.number = number;
  return blob;
}

void Demand::drop_if_idle(const Blob& blob) {
  if (!blob.resident.empty() || !blob.ascending.empty() || blob.unordered > 0) return;
  blobs_.erase(blob.number);
}

Queue<Demand::Node>& Demand::queue_at(Place place) {
  switch (place) {
    case Place::kUsed:
      return used_;
    case Place::kUnread:
      return unread_;
    case Place::kReleased:
      return released_;
    default:
      return needed_;
  }
}

void Demand::move(Slot slot, Place to) {
  queue_at(table_[slot].place).unlink(slot);
  table_[slot].place = to;
  queue_at(to).push(slot);
}

Demand::Place Demand::idle_place(const Blob& blob, const Node& node) const {
  if (blob.released) return Place::kReleased;
  return node.unread ? Place::kUnread : Place::kUsed;
}

void Demand::insert(Entry entry, uint64_t size) {
  Blob& blob = blob_at(blob_of(entry));
  blob.resident.add(chunk_of(entry));
  const Slot slot = table_.add(entry, size);
  table_[slot].place = idle_place(blob, table_[slot]);
  queue_at(table_[slot].place).push(slot);
  if (Stream* stream = nearest(blob, chunk_of(entry))) {
    extend(*stream, int64_t{chunk_of(entry)} - stream->next);
  }
}

void Demand::hit(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot == kNoSlot) return;
  Node& node = table_[slot];
  node.unread = false;
  move(slot, node.place == Place::kUnread ? Place::kUsed : node.place);
}

void Demand::mark_prefetched(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot == kNoSlot) return;
  table_[slot].unread = true;
  if (table_[slot].place == Place::kUsed) move(slot, Place::kUnread);
}

void Demand::erase(Entry entry) {
  const Slot slot = table_.find(entry);
  if (slot != kNoSlot) remove(slot);
}

Entry Demand::remove(Slot slot) {
  const Entry entry = table_[slot].entry;
  queue_at(table_[slot].place).unlink(slot);
  table_.remove(slot);
  Blob& blob = blobs_.at(blob_of(entry));
  blob.resident.remove(chunk_of(entry));
  drop_if_idle(blob);
  return entry;
}

void Demand::release_blob(uint64_t number) {
  const auto it = blobs_.find(number);
  if (it == blobs_.end()) return;
  Blob& blob = it->second;
  blob.released = true;
  for (auto chunk = blob.resident.first_from(0); chunk;
       chunk = blob.resident.first_from(*chunk + 1)) {
    const Slot slot = table_.find(entry_of(number, *chunk));
    if (table_[slot].place != Place::kNeeded) move(slot, Place::kReleased);
  }
}

std::optional<Entry> Demand::evict() {
  const Slot slot = victim();
  if (slot == kNoSlot) return std::nullopt;
  return remove(slot);
}

// It is, unless it would leave next itself.
bool Demand::is_worth_a_place(Entry entry) {
  insert(entry, 0);
  const bool leaves_next = table_[victim()].entry == entry;
  erase(entry);
  return !leaves_next;
}

Slot Demand::victim() {
  for (Queue<Node>* queue : {&released_, &unread_, &used_}) {
    const Slot slot = first_idle(*queue);
    if (slot != kNoSlot) return slot;
  }
  const Slot slot = farthest();
  return slot != kNoSlot ? slot : needed_.oldest();
}

bool Demand::is_needed(const Blob& blob, uint32_t chunk) {
  if (!blob.ascending.empty() && blob.ascending.front()->next <= chunk) return true;
  const uint32_t reads = chunk < blob.unordered_reads.size() ? blob.unordered_reads[chunk] : 0;
  return reads < blob.unordered;
}

// The oldest that no stream needs; sets aside those before it.
Slot Demand::first_idle(Queue<Node>& queue) {
  while (!queue.empty()) {
    const Slot slot = queue.oldest();
    const Entry entry = table_[slot].entry;
    if (!is_needed(blobs_.at(blob_of(entry)), chunk_of(entry))) return slot;
    move(slot, Place::kNeeded);
  }
  return kNoSlot;
}

// A stream's reach is exact once it is the farthest of all: then its chunk goes.
Slot Demand::farthest() {
  while (!heap_.empty() && heap_.front()->reach >= 0) {
    Stream& stream = *heap_.front();
    const auto last = stream.blob->resident.last_before(end_of(stream));
    const int64_t reach = last ? std::max<int64_t>(int64_t{*last} - stream.next, -1) : -1;
    if (reach == stream.reach) return table_.find(entry_of(stream.blob->number, *last));
    set_reach(stream, reach);
  }
  return kNoSlot;
}

void Demand::settle(const Blob& blob, uint32_t begin, uint32_t end) {
  for (auto chunk = blob.resident.first_from(begin); chunk && *chunk < end;
       chunk = blob.resident.first_from(*chunk + 1)) {
    const Slot slot = table_.find(entry_of(blob.number, *chunk));
    if (table_[slot].place == Place::kNeeded && !is_needed(blob, *chunk)) {
      move(slot, idle_place(blob, table_[slot]));
    }
  }
}

void Demand::open_stream(uint64_t number, uint64_t blob_number, ReadOrder order) {
  const auto [it, is_new] = streams_.try_emplace(number);
  if (!is_new) return;
  Stream& stream = it->second;
  stream.blob = &blob_at(blob_number);
  stream.order = order;
  if (order == ReadOrder::kAscending) {
    join(stream);
  } else {
    ++stream.blob->unordered;
  }
}

void Demand::advance_stream(uint64_t number, uint32_t chunk) {
  const auto it = streams_.find(number);
  if (it == streams_.end()) return;
  Stream& stream = it->second;
  if (stream.order == ReadOrder::kAscending) {
    advance_ascending(stream, chunk + 1);
  } else {
    advance_unordered(stream, chunk);
  }
}

void Demand::close_stream(uint64_t number) {
  const auto it = streams_.find(number);
  if (it == streams_.end()) return;
  Stream& stream = it->second;
  Blob& blob = *stream.blob;
  if (stream.order == ReadOrder::kAscending) {
    leave(stream);
  } else {
    leave_unordered(stream);
  }
  streams_.erase(it);
  drop_if_idle(blob);
}

// ---- Streams that take resident chunks first ----

void Demand::advance_unordered(Stream& stream, uint32_t chunk) {
  Blob& blob = *stream.blob;
  if (chunk >= stream.read.size()) stream.read.resize(chunk + 1);
  if (chunk >= blob.unordered_reads.size()) blob.unordered_reads.resize(chunk + 1);
  if (stream.read[chunk]) return;
  stream.read[chunk] = true;
  ++blob.unordered_reads[chunk];
  settle(blob, chunk, chunk + 1);
}

void Demand::leave_unordered(Stream& stream) {
  Blob& blob = *stream.blob;
  --blob.unordered;
  for (size_t chunk = 0; chunk < stream.read.size(); ++chunk) {
    if (stream.read[chunk]) --blob.unordered_reads[chunk];
  }
  settle(blob, 0, kBlobEnd);
}

// ---- Ascending streams: each is the nearest to the chunks up to the next one's ----

Demand::Stream* Demand::nearest(const Blob& blob, uint32_t chunk) {
  const auto behind = [](uint32_t at, const Stream* stream) { return at < stream->next; };
  const auto after = std::upper_bound(blob.ascending.begin(), blob.ascending.end(), chunk, behind);
  return after == blob.ascending.begin() ? nullptr : *std::prev(after);
}

uint32_t Demand::end_of(const Stream& stream) {
  const auto& order = stream.blob->ascending;
  return stream.rank + 1 < order.size() ? order[stream.rank + 1]->next : kBlobEnd;
}

void Demand::join(Stream& stream) {
  auto& order = stream.blob->ascending;
  order.insert(order.begin(), &stream);
  for (size_t rank = 0; rank < order.size(); ++rank) order[rank]->rank = rank;
  heap_.push_back(&stream);
  stream.at = heap_.size() - 1;
  const auto last = stream.blob->resident.last_before(end_of(stream));
  set_reach(stream, last ? int64_t{*last} : -1);
}

void Demand::advance_ascending(Stream& stream, uint32_t next) {
  if (next <= stream.next) return;
  auto& order = stream.blob->ascending;
  if (stream.rank > 0) {  // whoever follows is now the nearest to what this one has read
    Stream& behind = *order[stream.rank - 1];
    extend(behind, int64_t{std::min(next, end_of(stream))} - 1 - behind.next);
  }
  const uint32_t begin = std::exchange(stream.next, next);
  while (stream.rank + 1 < order.size() && order[stream.rank + 1]->next < next) {
    Stream& passed = *order[stream.rank + 1];
    std::swap(order[passed.rank--], order[stream.rank++]);
    if (passed.reach >= 0) extend(stream, passed.reach + passed.next - next);
  }
  settle(*stream.blob, begin, std::min(next, order.front()->next));
}

void Demand::leave(Stream& stream) {
  auto& order = stream.blob->ascending;
  const uint32_t end = end_of(stream);
  order.erase(order.begin() + static_cast<ptrdiff_t>(stream.rank));
  for (size_t rank = stream.rank; rank < order.size(); ++rank) order[rank]->rank = rank;
  if (stream.rank > 0) {
    Stream& behind = *order[stream.rank - 1];
    if (stream.reach >= 0) extend(behind, stream.reach + stream.next - behind.next);
  } else {
    settle(*stream.blob, stream.next, end);
  }
  Stream* last = heap_.back();
  heap_.pop_back();
  if (last != &stream) {
    put(stream.at, last);
    sift(last);
  }
}

// ---- The heap ----

void Demand::extend(Stream& stream, int64_t reach) {
  if (reach > stream.reach) set_reach(stream, reach);
}

void Demand::set_reach(Stream& stream, int64_t reach) {
  stream.reach = reach;
  sift(&stream);
}

void Demand::put(size_t at, Stream* stream) {
  heap_[at] = stream;
  stream->at = at;
}

void Demand::sift(Stream* stream) {
  size_t at = stream->at;
  while (at > 0 && heap_[(at - 1) / 2]->reach < stream->reach) {
    put(at, heap_[(at - 1) / 2]);
    at = (at - 1) / 2;
  }
  while (true) {
    size_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->reach > heap_[child]->reach) ++child;
    if (heap_[child]->reach <= stream->reach) break;
    put(at, heap_[child]);
    at = child;
  }
  put(at, stream);
}

}  // namespace bigcast::eviction
