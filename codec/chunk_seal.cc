#include "codec/chunk_seal.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <cassert>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

namespace bigcast {
namespace {

using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

constexpr std::string_view kSalt = "bigcast chunks 1";

template <typename Word>
void put_little_endian(unsigned char* out, Word word) {
  for (size_t i = 0; i < sizeof word; ++i) out[i] = static_cast<unsigned char>(word >> (8 * i));
}

std::string info_of(Id128 key_id) {
  std::array<unsigned char, 16> info{};
  put_little_endian(info.data(), key_id.hi);
  put_little_endian(info.data() + 8, key_id.lo);
  return {info.begin(), info.end()};
}

const unsigned char* chars(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* chars(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

// What can only fail for want of memory or of the cipher: then nothing can be kept secret.
void must(bool done) {
  if (!done) std::abort();
}

// Keyed for one chunk, its additional data given.
Context start(const Key256& key, uint32_t index, uint32_t raw_size, bool encrypts) {
  Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  std::array<unsigned char, 12> nonce{};
  put_little_endian(nonce.data(), index);
  std::array<unsigned char, 4> more{};
  put_little_endian(more.data(), raw_size);
  int size = 0;
  must(context && EVP_CipherInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(),
                                    nonce.data(), encrypts ? 1 : 0) == 1);
  must(EVP_CipherUpdate(context.get(), nullptr, &size, more.data(), more.size()) == 1);
  return context;
}

uint64_t divided_up(uint64_t size, uint64_t by) { return (size + by - 1) / by; }

}  // namespace

ChunkSeal::ChunkSeal(const Secret& secret, Id128 key_id)
    : key_(hkdf_sha256(secret.bytes(), kSalt, info_of(key_id))) {}

ChunkSeal::~ChunkSeal() { OPENSSL_cleanse(key_.data(), key_.size()); }

ChunkMeta ChunkSeal::seal(const ChunkMeta& meta, std::span<std::byte> bytes) const {
  assert(bytes.size() == meta.stored_size + kSealOverhead);
  ChunkMeta sealed = meta;
  sealed.codec = Codec::kSealed;
  sealed.raw_size += kSealOverhead;
  sealed.stored_size += kSealOverhead;
  const Context context = start(key_, meta.index, sealed.raw_size, true);
  unsigned char* const data = chars(bytes);
  int size = 0;
  must(EVP_EncryptUpdate(context.get(), data, &size, data, static_cast<int>(meta.stored_size)) ==
       1);
  must(EVP_EncryptFinal_ex(context.get(), data + size, &size) == 1);
  must(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kSealOverhead,
                           data + meta.stored_size) == 1);
  sealed.digest = digest_of(bytes);
  return sealed;
}

Result<ChunkMeta> ChunkSeal::open(const ChunkMeta& meta, std::span<const std::byte> stored,
                                  std::span<std::byte> into) const {
  if (meta.codec != Codec::kSealed) {
    ++refused_;
    return fail(
        ErrorCode::kCorrupt,
        fmt::format("chunk {}: its writer did not make it: it is not encrypted", meta.index));
  }
  ChunkMeta plain = meta;
  plain.raw_size -= kSealOverhead;
  plain.stored_size -= kSealOverhead;
  plain.codec = plain.raw_size == plain.stored_size ? Codec::kRaw : Codec::kLz4;
  assert(stored.size() == meta.stored_size && into.size() >= plain.stored_size);
  const Context context = start(key_, meta.index, meta.raw_size, false);
  auto tag = stored.last(kSealOverhead);
  int size = 0;
  must(EVP_DecryptUpdate(context.get(), chars(into), &size, chars(stored),
                         static_cast<int>(plain.stored_size)) == 1);
  must(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kSealOverhead,
                           const_cast<unsigned char*>(chars(tag))) == 1);
  if (EVP_DecryptFinal_ex(context.get(), chars(into) + size, &size) != 1) {
    ++refused_;
    return fail(ErrorCode::kCorrupt,
                fmt::format("chunk {}: its writer did not make it", meta.index));
  }
  return plain;
}

uint64_t sealed_size(uint64_t size, uint32_t chunk_size) {
  return size + kSealOverhead * divided_up(size, chunk_size - kSealOverhead);
}

uint64_t unsealed_size(uint64_t size, uint32_t chunk_size) {
  return size - kSealOverhead * divided_up(size, chunk_size);
}

}  // namespace bigcast
