#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "blobstore/stripe.h"
#include "codec/codec.h"

namespace bigcast {

// Adjacent blocks of limits::kDiskAlignment bytes in one extent file.
struct DiskRun {
  uint32_t extent = 0;  // 1 is the file extent-000001
  uint32_t block = 0;
  uint32_t count = 0;
};
using DiskRuns = std::vector<DiskRun>;

// Where a chunk of a durable blob is.
struct ChunkRow {
  ChunkMeta meta;
  DiskRuns runs;
};

// What a sealed durable blob is.
struct BlobRow {
  std::string name_space;
  std::string name;
  LeaseId lease;
  uint32_t chunk_size = 0;
  uint64_t size = 0;
  uint32_t chunk_count = 0;
  Digest128 root_digest;
  uint64_t sequence = 0;  // rises with each seal: of two blobs with one name the higher has it
  Duration ttl{};         // from the seal, or from a later start; 0: none
  Stripe stripe;          // which of the chunks are here
  std::string note;       // of whoever created it
};

// Rows as the index has them (disk_index.h); a chunk's index is in its key.
std::string to_bytes(const BlobRow& row);
std::string to_bytes(const ChunkRow& row);
// CORRUPT unless to_bytes gives these bytes of what they return. Whether a blob's rows make sense
// together is left to their reader.
Result<BlobRow> blob_row(std::string_view bytes);
Result<ChunkRow> chunk_row(uint32_t index, std::string_view bytes);
// CORRUPT.
tl::unexpected<Error> malformed_row(std::string_view of);

template <typename Integer>
void append_big_endian(std::string& out, Integer value) {
  for (int shift = static_cast<int>(sizeof value) * 8 - 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
}

template <typename Integer>
void append_little_endian(std::string& out, Integer value) {
  for (size_t i = 0; i < sizeof value; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

// Takes a row or a key apart. Reading beyond the end gives zeros and makes
// `is_whole` false.
class RowReader {
 public:
  explicit RowReader(std::string_view row) : left_(row) {}

  template <typename Integer>
  Integer little_endian() {
    const std::string_view bytes = take(sizeof(Integer));
    Integer value = 0;
    for (size_t i = bytes.size(); i-- > 0;) {
      value = static_cast<Integer>(value << 8 | static_cast<uint8_t>(bytes[i]));
    }
    return value;
  }
  template <typename Integer>
  Integer big_endian() {
    Integer value = 0;
    for (const char byte : take(sizeof(Integer))) {
      value = static_cast<Integer>(value << 8 | static_cast<uint8_t>(byte));
    }
    return value;
  }
  std::string text() {
    const auto size = little_endian<uint32_t>();
    return std::string(take(size));
  }
  Digest128 digest() {
    Digest128 digest;
    digest.hi = little_endian<uint64_t>();
    digest.lo = little_endian<uint64_t>();
    return digest;
  }
  std::string_view take(size_t size) {
    if (size > left_.size()) {
      is_short_ = true;
      left_ = {};
      return {};
    }
    const std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }
  size_t left() const { return left_.size(); }
  bool is_short() const { return is_short_; }
  bool is_whole() const { return !is_short_ && left_.empty(); }

 private:
  std::string_view left_;
  bool is_short_ = false;
};

}  // namespace bigcast
