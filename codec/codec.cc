#include "codec/codec.h"

#include <fmt/format.h>
#include <lz4.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // makes XXH3 choose AVX2 or AVX-512 at run time
#endif

#include <algorithm>
#include <array>
#include <cassert>
#include <new>

#include "base/limits.h"

namespace bigcast {
namespace {

constexpr int kLz4Acceleration = 4;
constexpr size_t kSampleSize = 64 * limits::kKiB;
// Compression must save a tenth, else the reader's decompression is not worth it.
constexpr size_t kWorthwhilePercent = 90;

static_assert(limits::kChunkSizeMax <= LZ4_MAX_INPUT_SIZE);

const char* text_of(std::span<const std::byte> bytes) {
  return reinterpret_cast<const char*>(bytes.data());
}

bool worthwhile(size_t compressed, size_t raw) {
  return compressed * 100 < raw * kWorthwhilePercent;
}

// A sample as large as the chunk would compress it twice: then the whole chunk decides.
bool sample_shrinks(std::span<const std::byte> raw) {
  if (raw.size() <= 2 * kSampleSize) return true;
  const auto sample = raw.subspan((raw.size() - kSampleSize) / 2, kSampleSize);
  std::array<char, LZ4_COMPRESSBOUND(kSampleSize)> scratch;
  const int size =
      LZ4_compress_fast(text_of(sample), scratch.data(), static_cast<int>(sample.size()),
                        static_cast<int>(scratch.size()), kLz4Acceleration);
  return size > 0 && worthwhile(static_cast<size_t>(size), sample.size());
}

// 0: leave the chunk raw.
size_t compress(std::span<const std::byte> raw, std::span<std::byte> stored) {
  if (!sample_shrinks(raw)) return 0;
  const int size = LZ4_compress_fast(
      text_of(raw), reinterpret_cast<char*>(stored.data()), static_cast<int>(raw.size()),
      static_cast<int>(std::min<size_t>(stored.size(), LZ4_MAX_INPUT_SIZE)), kLz4Acceleration);
  if (size <= 0 || !worthwhile(static_cast<size_t>(size), raw.size())) return 0;
  return static_cast<size_t>(size);
}

void append_little_endian(std::byte* out, uint64_t word) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<std::byte>(word >> (8 * i));
}

}  // namespace

Digest128 digest_of(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

PieceDigest::PieceDigest() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_);
}

PieceDigest::~PieceDigest() { XXH3_freeState(state_); }

void PieceDigest::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_, bytes.data(), bytes.size());
}

Digest128 PieceDigest::finish() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_);
  return {hash.high64, hash.low64};
}

void RootDigest::add(const Digest128& chunk) { chunks_.push_back(chunk); }

Digest128 RootDigest::finish() const {
  std::vector<std::byte> bytes(chunks_.size() * 16);
  for (size_t i = 0; i < chunks_.size(); ++i) {
    append_little_endian(&bytes[i * 16], chunks_[i].hi);
    append_little_endian(&bytes[i * 16 + 8], chunks_[i].lo);
  }
  return digest_of(bytes);
}

size_t encode_bound(size_t raw_size) {
  assert(raw_size <= limits::kChunkSizeMax);
  return static_cast<size_t>(LZ4_compressBound(static_cast<int>(raw_size)));
}

ChunkMeta encode_chunk(uint32_t index, std::span<const std::byte> raw, std::span<std::byte> stored,
                       Compression compression) {
  ChunkMeta meta;
  meta.index = index;
  meta.raw_size = static_cast<uint32_t>(raw.size());
  const size_t compressed = compression == Compression::kNever ? 0 : compress(raw, stored);
  meta.codec = compressed == 0 ? Codec::kRaw : Codec::kLz4;
  meta.stored_size = compressed == 0 ? meta.raw_size : static_cast<uint32_t>(compressed);
  meta.digest = digest_of(compressed == 0 ? raw : stored.first(compressed));
  return meta;
}

Result<void> verify_chunk(const ChunkMeta& meta, std::span<const std::byte> stored) {
  if (stored.size() != meta.stored_size) {
    return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: has {} bytes instead of {}", meta.index,
                                                 stored.size(), meta.stored_size));
  }
  if (digest_of(stored) != meta.digest) {
    return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: checksum differs", meta.index));
  }
  return {};
}

Result<void> decode_chunk(const ChunkMeta& meta, std::span<const std::byte> stored,
                          std::span<std::byte> raw) {
  if (raw.size() < meta.raw_size) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("chunk {}: the buffer has {} bytes, {} are needed", meta.index,
                            raw.size(), meta.raw_size));
  }
  if (meta.raw_size > limits::kChunkSizeMax || stored.size() > limits::kChunkSizeMax) {
    return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: is too large", meta.index));
  }
  if (meta.codec == Codec::kRaw) {
    if (stored.size() != meta.raw_size) {
      return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: has {} bytes instead of {}",
                                                   meta.index, stored.size(), meta.raw_size));
    }
    std::copy(stored.begin(), stored.end(), raw.begin());
    return {};
  }
  if (meta.codec == Codec::kSealed) {
    return fail(ErrorCode::kPermissionDenied,
                fmt::format("chunk {}: is encrypted, only its writer's application can read it",
                            meta.index));
  }
  if (meta.codec != Codec::kLz4) {
    return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: unknown codec {}", meta.index,
                                                 static_cast<unsigned>(meta.codec)));
  }
  const int size =
      LZ4_decompress_safe(text_of(stored), reinterpret_cast<char*>(raw.data()),
                          static_cast<int>(stored.size()), static_cast<int>(meta.raw_size));
  if (size < 0 || static_cast<uint32_t>(size) != meta.raw_size) {
    return fail(ErrorCode::kCorrupt, fmt::format("chunk {}: LZ4 does not decode to {} bytes",
                                                 meta.index, meta.raw_size));
  }
  return {};
}

Result<void> check_meta(const ChunkMeta& meta, uint32_t chunk_size) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("chunk {}: {}", meta.index, why));
  };
  if (meta.index >= limits::kChunksPerBlobMax) return refuse("the index is above the limit");
  if (meta.codec > Codec::kSealed) return refuse("unknown codec");
  if (meta.raw_size < 1 || meta.raw_size > chunk_size) {
    return refuse("the raw size is not within 1 and the chunk size");
  }
  if (meta.stored_size < 1 || meta.stored_size > chunk_size) {
    return refuse("the stored size is not within 1 and the chunk size");
  }
  if (meta.codec == Codec::kRaw && meta.stored_size != meta.raw_size) {
    return refuse("a raw chunk's sizes must be equal");
  }
  if (meta.stored_size > meta.raw_size) {
    return refuse("a chunk must not be larger than its raw bytes");
  }
  if (meta.codec == Codec::kSealed && meta.stored_size <= kSealOverhead) {
    return refuse("a sealed chunk must be larger than its seal");
  }
  return {};
}

}  // namespace bigcast
