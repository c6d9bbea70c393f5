#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/ids.h"

struct XXH3_state_s;

namespace bigcast {

// kSealed: raw or LZ4, encrypted by ChunkSeal (chunk_seal.h). Nodes need not know more.
enum class Codec : uint8_t { kRaw = 0, kLz4 = 1, kSealed = 2 };
enum class Compression : uint8_t { kAuto = 0, kNever = 1 };

// What a chunk grows by when it is sealed. It counts to both of its sizes, so that of a sealed
// chunk at most the chunk size less this is the writer's.
constexpr uint32_t kSealOverhead = 16;

// What describes one chunk everywhere: on the wire, in manifests, in the disk tier's index.
struct ChunkMeta {
  uint32_t index = 0;
  uint32_t raw_size = 0;     // bytes before compression
  uint32_t stored_size = 0;  // bytes as they travel and rest; == raw_size when raw
  Codec codec = Codec::kRaw;
  Digest128 digest;  // of the stored bytes

  bool operator==(const ChunkMeta&) const = default;
};

// Of how many chunks `size` bytes are. Requires: chunk_size > 0.
constexpr uint64_t chunks_in(uint64_t size, uint32_t chunk_size) {
  return (size + chunk_size - 1) / chunk_size;
}

// XXH3-128 (Yann Collet, xxHash 0.8).
Digest128 digest_of(std::span<const std::byte> bytes);

// The same of bytes that come in pieces. Not thread-safe.
class PieceDigest {
 public:
  PieceDigest();
  ~PieceDigest();
  PieceDigest(const PieceDigest&) = delete;
  PieceDigest& operator=(const PieceDigest&) = delete;
  void add(std::span<const std::byte> bytes);
  Digest128 finish() const;

 private:
  XXH3_state_s* const state_;
};

// The digest a manifest and a ref carry: XXH3-128 over all chunks' digests in order, each as hi
// then lo, little-endian. Feed chunks in order of their index.
class RootDigest {
 public:
  void add(const Digest128& chunk);
  Digest128 finish() const;

 private:
  std::vector<Digest128> chunks_;
};

// Largest `stored` that encode_chunk needs for `raw_size` bytes.
size_t encode_bound(size_t raw_size);

// Compresses `raw` into `stored` (at least encode_bound bytes) or, when a 64 KiB sample from its
// middle does not shrink below 0.9 or compression is kNever, leaves it raw: then `stored` is not
// written and the caller sends `raw` itself (meta.codec says which). LZ4 block format,
// acceleration 4. Pure; call it on any thread.
ChunkMeta encode_chunk(uint32_t index, std::span<const std::byte> raw, std::span<std::byte> stored,
                       Compression compression);

// Checks `stored` against `meta` (size and digest): CORRUPT if it differs.
Result<void> verify_chunk(const ChunkMeta& meta, std::span<const std::byte> stored);

// Decodes verified bytes into `raw` (at least meta.raw_size bytes). Never writes past
// meta.raw_size; anything that does not decode to exactly that size is CORRUPT. PERMISSION_DENIED
// if it is sealed and was not opened.
Result<void> decode_chunk(const ChunkMeta& meta, std::span<const std::byte> stored,
                          std::span<std::byte> raw);

// Checks what a peer declared before any memory is taken for it: known codec, 1 <= sizes <=
// chunk_size, raw means equal sizes, sealed ones have room for the seal, index below
// limits::kChunksPerBlobMax. INVALID_ARGUMENT.
Result<void> check_meta(const ChunkMeta& meta, uint32_t chunk_size);

}  // namespace bigcast
