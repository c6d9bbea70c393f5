// A row of the disk tier's index: its first byte says which of the two kinds it is.

#include <cstdlib>

#include "base/limits.h"
#include "blobstore/disk_rows.h"
#include "tests/fuzz/target.h"

namespace {

constexpr char kBlob = 0;
constexpr char kChunk = 1;

// What is taken for a row is what was written for it.
template <typename Row>
void check(const bigcast::Result<Row>& row, std::string_view bytes) {
  if (row && to_bytes(*row) != bytes) std::abort();
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  bigcast::BlobRow blob;
  blob.name_space = "app";
  blob.name = "broadcast/7";
  blob.lease = {1, 2};
  blob.chunk_size = bigcast::limits::kChunkSizeDefault;
  blob.size = 123'456'789;
  blob.chunk_count = 30;
  blob.root_digest = {3, 4};
  blob.sequence = 5;
  bigcast::BlobRow stripe = blob;
  stripe.ttl = std::chrono::hours(1);
  stripe.stripe = {1, 2};
  stripe.note = "a ref";
  bigcast::ChunkRow chunk;
  chunk.meta = {0, 300, 200, bigcast::Codec::kLz4, {6, 7}};
  const std::string in_no_run = to_bytes(chunk);
  chunk.runs = {{1, 2, 3}, {2, 0, 1}};
  return {kBlob + to_bytes(blob), kBlob + to_bytes(stripe), kChunk + in_no_run,
          kChunk + to_bytes(chunk)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == kBlob) {
    const auto row = bigcast::blob_row(bytes);
    check(row, bytes);
    // A start divides by these, and adds to the clock.
    if (row && (row->chunk_size == 0 || row->stripe.count == 0)) std::abort();
    if (row && bigcast::TimePoint::clock::now() + row->ttl < bigcast::TimePoint()) std::abort();
  } else {
    check(bigcast::chunk_row(0, bytes), bytes);
  }
  return 0;
}
