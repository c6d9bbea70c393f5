#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace bigcast::eviction {

// What a policy keeps: a chunk, named by a number that its owner gives the blob and by its index.
// A chunk that comes back has the same name, so that a policy can remember it. Only `demand` looks
// inside; to the others it is any number.
using Entry = uint64_t;
constexpr int kChunkIndexBits = 20;
constexpr Entry entry_of(uint64_t blob, uint32_t chunk) { return blob << kChunkIndexBits | chunk; }
constexpr uint64_t blob_of(Entry entry) { return entry >> kChunkIndexBits; }
constexpr uint32_t chunk_of(Entry entry) { return entry & ((1u << kChunkIndexBits) - 1); }

// How an open stream goes through its blob.
enum class ReadOrder : uint8_t {
  kAscending,      // chunk by chunk
  kResidentFirst,  // what is resident, then the rest; each in ascending order
};

// Decides which entry leaves next. Pure bookkeeping: knows no chunk's bytes, clock or network, so
// that stores and simulators drive the same code. Not thread-safe: the owner locks.
//
// The owner decides when something leaves: on a miss it calls expect(), evict() until there is
// room, and insert(). Sizes are in any unit, the same as the capacity's.
class Policy {
 public:
  using Entry = eviction::Entry;

  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;
  // Whether an entry of this size is worth keeping. An owner that must keep it may.
  virtual bool admits(uint64_t size) const { return true; }
  // Whether `entry`, which was just read from a slower tier and is not in the policy, is worth the
  // place of what would leave next.
  virtual bool is_worth_a_place(Entry entry) { return true; }

  // `entry` was asked for, is not resident, and will be inserted once there is room.
  virtual void expect(Entry entry, uint64_t size) {}
  // `entry` is new and resident. Requires: not in the policy.
  virtual void insert(Entry entry, uint64_t size) = 0;
  // `entry` was read. No-op if it is not in the policy. Allocates nothing.
  virtual void hit(Entry entry) = 0;
  // `entry` is gone or may not be evicted for now. No-op if it is not in the policy.
  virtual void erase(Entry entry) = 0;
  // Removes and returns the entry to evict next; nothing when empty.
  virtual std::optional<Entry> evict() = 0;
  virtual size_t size() const = 0;

  // Hints, of which most policies make nothing. A stream's number is its owner's, and unique while
  // it is open; what is said of one that is not open, or of an unknown entry, is ignored.
  virtual void open_stream(uint64_t stream, uint64_t blob, ReadOrder order) {}
  // The stream has read the chunk, which need not be resident. An ascending one is then past it.
  virtual void advance_stream(uint64_t stream, uint32_t chunk) {}
  virtual void close_stream(uint64_t stream) {}
  // Nobody will open the blob again.
  virtual void release_blob(uint64_t blob) {}
  // `entry` was fetched before anybody asked for it; its first hit ends that.
  virtual void mark_prefetched(Entry entry) {}
};

constexpr std::array<std::string_view, 8> kPolicyNames = {"fifo",   "lru", "clock", "sieve",
                                                          "s3fifo", "arc", "gdsf",  "demand"};

// By the names above; null for another. `capacity` is the sum of sizes that the owner keeps at
// most; it is more than 0.
std::unique_ptr<Policy> make_policy(std::string_view name, uint64_t capacity);

}  // namespace bigcast::eviction
