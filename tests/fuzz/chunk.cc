// A chunk as it comes: what is said of it, and its bytes, LZ4 or not.

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/limits.h"
#include "codec/codec.h"
#include "tests/fuzz/target.h"

namespace {

using bigcast::ChunkMeta;

// Before the stored bytes.
struct Head {
  uint32_t index;
  uint32_t raw_size;
  uint8_t codec;
};
constexpr size_t kHeadSize = 9;

std::string input_of(uint32_t raw_size, bigcast::Compression compression) {
  std::vector<std::byte> raw(raw_size);
  for (size_t i = 0; i < raw.size(); i++) raw[i] = static_cast<std::byte>(i / 7 % 50);
  std::vector<std::byte> stored(bigcast::encode_bound(raw_size));
  const ChunkMeta meta = bigcast::encode_chunk(3, raw, stored, compression);
  const auto& bytes = meta.codec == bigcast::Codec::kRaw ? raw : stored;
  std::string input(kHeadSize, '\0');
  std::memcpy(input.data(), &meta.index, 4);
  std::memcpy(input.data() + 4, &meta.raw_size, 4);
  input[8] = static_cast<char>(meta.codec);
  return input.append(reinterpret_cast<const char*>(bytes.data()), meta.stored_size);
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  return {input_of(1, bigcast::Compression::kNever), input_of(300, bigcast::Compression::kNever),
          input_of(300, bigcast::Compression::kAuto),
          input_of(60'000, bigcast::Compression::kAuto)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kHeadSize) return 0;
  const std::span<const std::byte> stored(reinterpret_cast<const std::byte*>(data) + kHeadSize,
                                          size - kHeadSize);
  ChunkMeta meta;
  std::memcpy(&meta.index, data, 4);
  std::memcpy(&meta.raw_size, data + 4, 4);
  meta.codec = static_cast<bigcast::Codec>(data[8]);
  meta.stored_size = static_cast<uint32_t>(stored.size());
  meta.digest = bigcast::digest_of(stored);
  if (!check_meta(meta, bigcast::limits::kChunkSizeMin)) return 0;
  if (!verify_chunk(meta, stored)) std::abort();
  std::vector<std::byte> raw(meta.raw_size);
  if (!decode_chunk(meta, stored, raw)) return 0;
  // What decodes has one size and is always the same.
  std::vector<std::byte> again(meta.raw_size, std::byte{0xA5});
  if (!decode_chunk(meta, stored, again) || raw != again) std::abort();
  return 0;
}
