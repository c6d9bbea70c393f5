#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "base/hkdf.h"
#include "base/ids.h"
#include "base/secret.h"
#include "codec/codec.h"

namespace bigcast {

// Encrypts and authenticates the chunks of one blob from its writer to its readers: AES-256-GCM
// over a chunk's encoded form, with a key that nodes do not have. Whoever else holds or carries a
// chunk can neither read it nor change it, nor put another one in its place.
//
// Key: HKDF-SHA256(secret, salt "bigcast chunks 1", info: the key id, hi then lo, little-endian).
// Each upload has a key id of its own, so that a key never sees an index twice. Nonce: the chunk's
// index, little-endian, in 12 bytes. Additional data: the raw size, little-endian, in 4. The tag
// follows the bytes. Thread-safe.
class ChunkSeal {
 public:
  ChunkSeal(const Secret& secret, Id128 key_id);
  ~ChunkSeal();
  ChunkSeal(const ChunkSeal&) = delete;
  ChunkSeal& operator=(const ChunkSeal&) = delete;

  // Seals what encode_chunk made, in place: `bytes` are meta.stored_size and room for
  // kSealOverhead.
  ChunkMeta seal(const ChunkMeta& meta, std::span<std::byte> bytes) const;

  // Opens `stored` into `into`, which has room for it, and returns what decode_chunk needs; CORRUPT
  // if it is not what was sealed, and then `into` is to be thrown away. `into` may be `stored`.
  Result<ChunkMeta> open(const ChunkMeta& meta, std::span<const std::byte> stored,
                         std::span<std::byte> into) const;

  // Chunks that `open` refused: their checksum was right, or they would not have come so far.
  uint32_t refused() const { return refused_; }

 private:
  Key256 key_;
  mutable std::atomic<uint32_t> refused_{0};
};

// How many bytes there are with the seals of all chunks, of `size` bytes, and back.
uint64_t sealed_size(uint64_t size, uint32_t chunk_size);
uint64_t unsealed_size(uint64_t size, uint32_t chunk_size);

}  // namespace bigcast
