#include "codec/chunk_seal.h"

#include <doctest/doctest.h>
#include <openssl/evp.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "base/limits.h"

namespace bigcast {
namespace {

using Bytes = std::vector<std::byte>;

Secret secret_of(char c) { return Secret::from_text(std::string(32, c), "test").value(); }

Bytes some_bytes(size_t size) {
  std::mt19937 random(7);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

struct Sealed {
  ChunkMeta meta;
  Bytes bytes;
};

Sealed seal(const ChunkSeal& seal, uint32_t index, const Bytes& raw) {
  Bytes compressed(encode_bound(raw.size()));
  const ChunkMeta meta = encode_chunk(index, raw, compressed, Compression::kAuto);
  Bytes bytes = meta.codec == Codec::kRaw ? raw : compressed;
  bytes.resize(meta.stored_size + kSealOverhead);
  return {seal.seal(meta, bytes), bytes};
}

// What a reader does. Returns the raw bytes.
Result<Bytes> open(const ChunkSeal& seal, const ChunkMeta& meta, const Bytes& stored) {
  Bytes opened(stored.size());
  BIGCAST_ASSIGN(const ChunkMeta plain, seal.open(meta, stored, opened));
  Bytes raw(plain.raw_size);
  BIGCAST_TRY(decode_chunk(plain, std::span(opened).first(plain.stored_size), raw));
  return raw;
}

void check_refused(const ChunkSeal& seal, const ChunkMeta& meta, const Bytes& stored) {
  const uint32_t before = seal.refused();
  const auto opened = open(seal, meta, stored);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().code == ErrorCode::kCorrupt);
  CHECK(seal.refused() == before + 1);
}

constexpr Id128 kKeyId{0x0102030405060708, 0x1112131415161718};

}  // namespace

TEST_CASE("what is sealed opens to itself, compressed or not, and looks like a chunk to nodes") {
  const ChunkSeal chunks(secret_of('s'), kKeyId);
  for (const Bytes& raw : {some_bytes(1), some_bytes(100'000), Bytes(100'000), Bytes(1)}) {
    const Sealed sealed = seal(chunks, 3, raw);
    CHECK(sealed.meta.codec == Codec::kSealed);
    CHECK(sealed.meta.raw_size == raw.size() + kSealOverhead);
    CHECK(check_meta(sealed.meta, limits::kChunkSizeDefault));
    CHECK(verify_chunk(sealed.meta, sealed.bytes));
    const auto opened = open(chunks, sealed.meta, sealed.bytes);
    REQUIRE(opened);
    CHECK(*opened == raw);
  }
  CHECK(chunks.refused() == 0);
}

TEST_CASE("it is AES-256-GCM by the documented key, nonce and additional data") {
  const Bytes raw = some_bytes(1000);
  const Sealed sealed = seal(ChunkSeal(secret_of('s'), kKeyId), 0x0a0b, raw);
  std::string info;
  for (const uint64_t word : {kKeyId.hi, kKeyId.lo}) {
    for (int i = 0; i < 8; ++i) info += static_cast<char>(word >> (8 * i));
  }
  const Key256 key = hkdf_sha256(std::string(32, 's'), "bigcast chunks 1", info);
  const std::array<unsigned char, 12> nonce = {0x0b, 0x0a};
  const std::array<unsigned char, 4> more = {0xf8, 0x03};  // 1016
  Bytes expected(raw.size() + kSealOverhead);
  auto* out = reinterpret_cast<unsigned char*>(expected.data());
  int size = 0;
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  REQUIRE(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nullptr, key.data(), nonce.data()) == 1);
  REQUIRE(EVP_EncryptUpdate(context, nullptr, &size, more.data(), 4) == 1);
  REQUIRE(EVP_EncryptUpdate(context, out, &size, reinterpret_cast<const unsigned char*>(raw.data()),
                            1000) == 1);
  REQUIRE(EVP_EncryptFinal_ex(context, out + size, &size) == 1);
  REQUIRE(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, out + 1000) == 1);
  EVP_CIPHER_CTX_free(context);
  CHECK(sealed.bytes == expected);
}

TEST_CASE("nothing but what was sealed, where it was sealed, is opened") {
  const ChunkSeal chunks(secret_of('s'), kKeyId);
  const Sealed good = seal(chunks, 3, Bytes(100'000));
  for (const size_t at : {size_t{0}, good.bytes.size() / 2, good.bytes.size() - 1}) {
    Bytes altered = good.bytes;
    altered[at] ^= std::byte{1};
    check_refused(chunks, good.meta, altered);
  }
  ChunkMeta elsewhere = good.meta;
  elsewhere.index = 4;
  check_refused(chunks, elsewhere, good.bytes);
  ChunkMeta longer = good.meta;
  longer.raw_size++;
  check_refused(chunks, longer, good.bytes);
  ChunkMeta shorter = good.meta;
  shorter.stored_size--;
  check_refused(chunks, shorter, Bytes(good.bytes.begin(), good.bytes.end() - 1));
  ChunkMeta naked = good.meta;
  naked.codec = Codec::kLz4;
  check_refused(chunks, naked, good.bytes);
  check_refused(ChunkSeal(secret_of('t'), kKeyId), good.meta, good.bytes);
  check_refused(ChunkSeal(secret_of('s'), {kKeyId.hi, kKeyId.lo + 1}), good.meta, good.bytes);
  check_refused(ChunkSeal(secret_of('s'), {kKeyId.lo, kKeyId.hi}), good.meta, good.bytes);
}

TEST_CASE("a sealed chunk says nothing of its bytes, and nobody takes it for an open one") {
  const ChunkSeal chunks(secret_of('s'), kKeyId);
  const std::string text = "find me, if you can: ";
  Bytes raw;
  for (int i = 0; i < 3; ++i) {
    for (const char c : text) raw.push_back(static_cast<std::byte>(c));
  }
  const Sealed sealed = seal(chunks, 0, raw);
  const std::string stored(reinterpret_cast<const char*>(sealed.bytes.data()), sealed.bytes.size());
  CHECK(stored.find("find me") == std::string::npos);
  Bytes out(sealed.meta.raw_size);
  CHECK(decode_chunk(sealed.meta, sealed.bytes, out).error().code == ErrorCode::kPermissionDenied);
}

TEST_CASE("a chunk that has no room for a seal is refused before it is opened") {
  ChunkMeta meta;
  meta.codec = Codec::kSealed;
  meta.raw_size = 100;
  meta.stored_size = kSealOverhead;
  CHECK(check_meta(meta, limits::kChunkSizeDefault).error().code == ErrorCode::kInvalidArgument);
  meta.stored_size = 101;
  CHECK(check_meta(meta, limits::kChunkSizeDefault).error().code == ErrorCode::kInvalidArgument);
}

TEST_CASE("sizes with and without seals") {
  constexpr uint32_t kChunk = limits::kChunkSizeMin;
  constexpr uint64_t kRoom = kChunk - kSealOverhead;
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{1}, kRoom, kRoom + 1, 3 * kRoom, 7 * kRoom - 1}) {
    const uint64_t chunks = (size + kRoom - 1) / kRoom;
    CHECK(sealed_size(size, kChunk) == size + chunks * kSealOverhead);
    CHECK(unsealed_size(sealed_size(size, kChunk), kChunk) == size);
  }
}

}  // namespace bigcast
