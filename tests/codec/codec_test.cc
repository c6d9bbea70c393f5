#include "codec/codec.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string_view>

#include "base/limits.h"

namespace bigcast {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

Bytes text_bytes(size_t size) {
  constexpr std::string_view kText = "the quick brown fox jumps over the lazy dog, again; ";
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>(kText[(i * 7 / 5) % kText.size()]);
  }
  return bytes;
}

struct Encoded {
  ChunkMeta meta;
  Bytes stored;
};

Encoded encode(const Bytes& raw, Compression compression = Compression::kAuto) {
  Bytes buffer(encode_bound(raw.size()));
  Encoded result;
  result.meta = encode_chunk(3, raw, buffer, compression);
  result.stored = result.meta.codec == Codec::kRaw ? raw : buffer;
  result.stored.resize(result.meta.stored_size);
  return result;
}

// Decodes into a buffer with a guard behind raw_size and checks that the guard stands.
Result<Bytes> decode_guarded(const ChunkMeta& meta, const Bytes& stored) {
  constexpr size_t kGuard = 4096;
  Bytes buffer(meta.raw_size + kGuard, std::byte{0xA5});
  const auto result = decode_chunk(meta, stored, buffer);
  CHECK(std::all_of(buffer.begin() + meta.raw_size, buffer.end(),
                    [](std::byte b) { return b == std::byte{0xA5}; }));
  if (!result) return tl::unexpected<Error>(result.error());
  buffer.resize(meta.raw_size);
  return buffer;
}

}  // namespace

TEST_CASE("the digest is XXH3-128 as published") {
  const Digest128 empty = digest_of({});
  CHECK(empty.hi == 0x99aa06d3014798d8ULL);
  CHECK(empty.lo == 0x6001c324468d497fULL);
}

TEST_CASE("the root digest depends on every chunk and on their order") {
  const Digest128 a{1, 2};
  const Digest128 b{3, 4};
  RootDigest ab;
  ab.add(a);
  ab.add(b);
  RootDigest ba;
  ba.add(b);
  ba.add(a);
  RootDigest only_a;
  only_a.add(a);
  CHECK_FALSE(ab.finish() == ba.finish());
  CHECK_FALSE(ab.finish() == only_a.finish());
  CHECK(RootDigest().finish() == digest_of({}));
  // hi before lo, little-endian: part of the format.
  const Bytes bytes = [] {
    Bytes result(16);
    result[0] = std::byte{1};
    result[8] = std::byte{2};
    return result;
  }();
  CHECK(only_a.finish() == digest_of(bytes));
}

TEST_CASE("what is encoded decodes to itself") {
  for (size_t size : {size_t{1}, size_t{100}, size_t{65536}, size_t{200'000},
                      size_t{limits::kChunkSizeDefault}}) {
    for (const bool compressible : {false, true}) {
      for (const Compression compression : {Compression::kAuto, Compression::kNever}) {
        CAPTURE(size);
        CAPTURE(compressible);
        const Bytes raw = compressible ? text_bytes(size) : random_bytes(size, size);
        const Encoded encoded = encode(raw, compression);
        CHECK(encoded.meta.index == 3);
        CHECK(encoded.meta.raw_size == size);
        CHECK(encoded.meta.stored_size <= size);
        CHECK(check_meta(encoded.meta, limits::kChunkSizeDefault));
        CHECK(verify_chunk(encoded.meta, encoded.stored));
        CHECK(decode_guarded(encoded.meta, encoded.stored).value() == raw);
        const bool expect_lz4 = compressible && size > 1000 && compression == Compression::kAuto;
        if (size > 1000) CHECK((encoded.meta.codec == Codec::kLz4) == expect_lz4);
      }
    }
  }
}

TEST_CASE("a sample from the middle decides") {
  // Compressible but for its middle: stays raw.
  Bytes raw(1 << 20, std::byte{0});
  const Bytes noise = random_bytes(128 << 10, 1);
  std::copy(noise.begin(), noise.end(), raw.begin() + (448 << 10));
  CHECK(encode(raw).meta.codec == Codec::kRaw);
  // Compressible only in its middle: the sample says yes, the result says no.
  raw = random_bytes(1 << 20, 2);
  std::fill(raw.begin() + (480 << 10), raw.begin() + (544 << 10), std::byte{0});
  CHECK(encode(raw).meta.codec == Codec::kRaw);
  CHECK(encode(raw).meta.stored_size == raw.size());
}

TEST_CASE("a changed byte or another size is CORRUPT") {
  const Encoded encoded = encode(text_bytes(200'000));
  for (size_t at : {size_t{0}, encoded.stored.size() / 2, encoded.stored.size() - 1}) {
    Bytes damaged = encoded.stored;
    damaged[at] ^= std::byte{1};
    CHECK(verify_chunk(encoded.meta, damaged).error().code == ErrorCode::kCorrupt);
  }
  Bytes brief = encoded.stored;
  brief.pop_back();
  CHECK(verify_chunk(encoded.meta, brief).error().code == ErrorCode::kCorrupt);
}

TEST_CASE("an LZ4 bomb is CORRUPT and writes nothing past the declared size") {
  const Bytes raw(limits::kChunkSizeDefault, std::byte{0});
  const Encoded bomb = encode(raw);
  REQUIRE(bomb.meta.codec == Codec::kLz4);
  REQUIRE(bomb.stored.size() < 20'000);
  ChunkMeta lie = bomb.meta;
  for (uint32_t declared : {1u, 1000u, limits::kChunkSizeDefault - 1}) {
    lie.raw_size = declared;
    CHECK(decode_guarded(lie, bomb.stored).error().code == ErrorCode::kCorrupt);
  }
  lie.raw_size = limits::kChunkSizeDefault + 1;  // decodes to less than declared
  CHECK(decode_guarded(lie, bomb.stored).error().code == ErrorCode::kCorrupt);
}

TEST_CASE("damaged LZ4 never writes past the declared size") {
  const Encoded encoded = encode(text_bytes(20'000));
  REQUIRE(encoded.meta.codec == Codec::kLz4);
  std::mt19937_64 random(7);
  for (int round = 0; round < 2000; ++round) {
    Bytes damaged = encoded.stored;
    for (int flips = 0; flips < 3; ++flips) {
      damaged[random() % damaged.size()] = static_cast<std::byte>(random());
    }
    damaged.resize(1 + random() % damaged.size());
    const auto result = decode_guarded(encoded.meta, damaged);
    if (!result) CHECK(result.error().code == ErrorCode::kCorrupt);
  }
  CHECK(decode_guarded(encoded.meta, {}).error().code == ErrorCode::kCorrupt);
}

TEST_CASE("decoding refuses a small buffer, a wrong raw size and an unknown codec") {
  const Bytes raw = random_bytes(1000, 3);
  Encoded encoded = encode(raw, Compression::kNever);
  Bytes small(999);
  CHECK(decode_chunk(encoded.meta, encoded.stored, small).error().code ==
        ErrorCode::kInvalidArgument);
  ChunkMeta lie = encoded.meta;
  lie.raw_size = 999;
  CHECK(decode_guarded(lie, encoded.stored).error().code == ErrorCode::kCorrupt);
  lie = encoded.meta;
  lie.codec = static_cast<Codec>(9);
  CHECK(decode_guarded(lie, encoded.stored).error().code == ErrorCode::kCorrupt);
}

TEST_CASE("what a peer declares is checked before memory is taken for it") {
  const auto code = [](const ChunkMeta& meta) {
    const auto result = check_meta(meta, limits::kChunkSizeMin);
    return result ? ErrorCode::kOk : result.error().code;
  };
  ChunkMeta good;
  good.raw_size = good.stored_size = limits::kChunkSizeMin;
  CHECK(code(good) == ErrorCode::kOk);
  good.codec = Codec::kLz4;
  good.stored_size = 1;
  good.index = limits::kChunksPerBlobMax - 1;
  CHECK(code(good) == ErrorCode::kOk);

  const auto bad = [&](auto change) {
    ChunkMeta meta = good;
    change(meta);
    CHECK(code(meta) == ErrorCode::kInvalidArgument);
  };
  bad([](ChunkMeta& m) { m.index = limits::kChunksPerBlobMax; });
  bad([](ChunkMeta& m) { m.index = UINT32_MAX; });
  bad([](ChunkMeta& m) { m.raw_size = 0; });
  bad([](ChunkMeta& m) { m.stored_size = 0; });
  bad([](ChunkMeta& m) { m.raw_size = limits::kChunkSizeMin + 1; });
  bad([](ChunkMeta& m) { m.raw_size = UINT32_MAX; });
  bad([](ChunkMeta& m) { m.stored_size = limits::kChunkSizeMin + 1; });
  bad([](ChunkMeta& m) { m.codec = static_cast<Codec>(2); });
  bad([](ChunkMeta& m) { m.codec = Codec::kRaw; });  // sizes differ
  bad([](ChunkMeta& m) { m.raw_size = 10, m.stored_size = 11; });
}

}  // namespace bigcast
