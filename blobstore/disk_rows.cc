#include "blobstore/disk_rows.h"

#include <chrono>

#include "base/limits.h"

namespace bigcast {
namespace {

void append_text(std::string& out, std::string_view text) {
  append_little_endian(out, static_cast<uint32_t>(text.size()));
  out += text;
}

void append_digest(std::string& out, const Digest128& digest) {
  append_little_endian(out, digest.hi);
  append_little_endian(out, digest.lo);
}

}  // namespace

tl::unexpected<Error> malformed_row(std::string_view of) {
  return fail(ErrorCode::kCorrupt, "disk index: a malformed row of " + std::string(of));
}

std::string to_bytes(const ChunkRow& row) {
  std::string value;
  append_little_endian(value, row.meta.raw_size);
  append_little_endian(value, row.meta.stored_size);
  value.push_back(static_cast<char>(row.meta.codec));
  append_digest(value, row.meta.digest);
  append_little_endian(value, static_cast<uint32_t>(row.runs.size()));
  for (const DiskRun& run : row.runs) {
    append_little_endian(value, run.extent);
    append_little_endian(value, run.block);
    append_little_endian(value, run.count);
  }
  return value;
}

std::string to_bytes(const BlobRow& row) {
  std::string value;
  append_text(value, row.name_space);
  append_text(value, row.name);
  append_little_endian(value, row.lease.hi);
  append_little_endian(value, row.lease.lo);
  append_little_endian(value, row.chunk_size);
  append_little_endian(value, row.size);
  append_little_endian(value, row.chunk_count);
  append_digest(value, row.root_digest);
  append_little_endian(value, row.sequence);
  append_little_endian(value, static_cast<uint64_t>(row.ttl.count()));
  append_little_endian(value, row.stripe.index);
  append_little_endian(value, row.stripe.count);
  append_text(value, row.note);
  return value;
}

Result<BlobRow> blob_row(std::string_view bytes) {
  RowReader reader(bytes);
  BlobRow row;
  row.name_space = reader.text();
  row.name = reader.text();
  row.lease.hi = reader.little_endian<uint64_t>();
  row.lease.lo = reader.little_endian<uint64_t>();
  row.chunk_size = reader.little_endian<uint32_t>();
  row.size = reader.little_endian<uint64_t>();
  row.chunk_count = reader.little_endian<uint32_t>();
  row.root_digest = reader.digest();
  row.sequence = reader.little_endian<uint64_t>();
  row.ttl = Duration(reader.little_endian<uint64_t>());
  row.stripe.index = reader.little_endian<uint32_t>();
  row.stripe.count = reader.little_endian<uint32_t>();
  row.note = reader.text();
  const bool makes_sense = row.chunk_size > 0 && row.stripe.index < row.stripe.count &&
                           row.ttl >= Duration::zero() &&
                           row.ttl <= std::chrono::milliseconds(limits::kTtlMsMax);
  if (!reader.is_whole() || !makes_sense) return malformed_row("a blob");
  return row;
}

Result<ChunkRow> chunk_row(uint32_t index, std::string_view bytes) {
  RowReader reader(bytes);
  ChunkRow row;
  row.meta.index = index;
  row.meta.raw_size = reader.little_endian<uint32_t>();
  row.meta.stored_size = reader.little_endian<uint32_t>();
  row.meta.codec = static_cast<Codec>(reader.little_endian<uint8_t>());
  row.meta.digest = reader.digest();
  const auto runs = reader.little_endian<uint32_t>();
  if (reader.is_short() || reader.left() != runs * sizeof(DiskRun)) return malformed_row("a chunk");
  row.runs.resize(runs);
  for (DiskRun& run : row.runs) {
    run.extent = reader.little_endian<uint32_t>();
    run.block = reader.little_endian<uint32_t>();
    run.count = reader.little_endian<uint32_t>();
  }
  return row;
}

}  // namespace bigcast
