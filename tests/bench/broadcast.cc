#include "tests/bench/broadcast.h"

#include <fmt/format.h>

#include <algorithm>
#include <istream>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/limits.h"

namespace bigcast::bench {
namespace {

constexpr uint64_t kChunkBytes = 64 * limits::kMiB;
constexpr double kReadBytesPerSecond = 1 * limits::kGiB;
constexpr uint64_t kBlobBytesMax = kChunkBytes << eviction::kChunkIndexBits;
// A recorded stream's number is its node's; those of readers that are made here are above.
constexpr uint64_t kStreamsRecordedMax = 1ull << 62;

tl::unexpected<Error> bad(std::string message) {
  return fail(ErrorCode::kInvalidArgument, std::move(message));
}

uint32_t chunks_in(uint64_t bytes) {
  return static_cast<uint32_t>((bytes + kChunkBytes - 1) / kChunkBytes);
}

uint64_t bytes_in(uint64_t blob_bytes, uint32_t chunk) {
  return std::min(kChunkBytes, blob_bytes - chunk * kChunkBytes);
}

Result<uint64_t> number_at(const nlohmann::json& object, const char* key, uint64_t max) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_integer() || it->get<double>() < 0 ||
      it->get<uint64_t>() > max) {
    return bad(fmt::format("{}: must be a number from 0 to {}", key, max));
  }
  return it->get<uint64_t>();
}

}  // namespace

struct BroadcastReplay::Line {
  double time = 0;
  std::string op;
  std::string blob;
  nlohmann::json object;

  static Result<Line> parse(const std::string& text) {
    Line line;
    line.object = nlohmann::json::parse(text, nullptr, false);
    if (!line.object.is_object()) return bad("is no JSON object");
    const auto time = line.object.find("t");
    if (time == line.object.end() || !time->is_number()) return bad("t: must be a number");
    line.time = time->get<double>();
    line.op = line.object.value("op", nlohmann::json()).dump();
    const auto blob = line.object.find("blob");
    if (blob == line.object.end() || !(blob->is_string() || blob->is_number_integer())) {
      return bad("blob: must be a string or a number");
    }
    line.blob = blob->dump();
    return line;
  }
};

Result<void> BroadcastReplay::run(std::istream& trace) {
  std::string text;
  for (uint64_t number = 1; std::getline(trace, text); ++number) {
    if (text.empty()) continue;
    const auto line = Line::parse(text);
    const auto applied = line ? apply(*line) : tl::unexpected<Error>(line.error());
    if (!applied) return bad(fmt::format("TRACE: line {}: {}", number, applied.error().message));
  }
  run_until(std::numeric_limits<double>::infinity());
  return {};
}

Result<void> BroadcastReplay::apply(const Line& line) {
  if (line.time < time_) return bad(fmt::format("t: {} is before {}", line.time, time_));
  run_until(line.time);
  time_ = line.time;
  if (line.op == "\"put\"") {
    BIGCAST_ASSIGN(const uint64_t bytes, number_at(line.object, "bytes", kBlobBytesMax));
    const bool is_new = blobs_.try_emplace(line.blob, Blob{blobs_.size(), bytes}).second;
    return is_new ? Result<void>() : bad(fmt::format("blob: {} was put before", line.blob));
  }
  const auto blob = blobs_.find(line.blob);
  if (blob == blobs_.end()) return bad(fmt::format("blob: {} was not put", line.blob));
  if (line.op == "\"read\"") {
    start_reader(blob->second, line.time);
  } else if (line.op == "\"release\"") {
    cache_.policy().release_blob(blob->second.number);
  } else {
    return apply_recorded(line, blob->second);
  }
  return {};
}

Result<void> BroadcastReplay::apply_recorded(const Line& line, const Blob& blob) {
  const bool is_chunk = line.op == "\"chunk\"";
  if (!is_chunk && line.op != "\"open\"" && line.op != "\"close\"") {
    return bad(fmt::format("op: {} is none of put, read, release, open, chunk, close", line.op));
  }
  BIGCAST_ASSIGN(const uint64_t stream, number_at(line.object, "stream", kStreamsRecordedMax));
  if (line.op == "\"open\"") {
    cache_.policy().open_stream(stream, blob.number, order_);
  } else if (is_chunk) {
    constexpr uint64_t kIndexMax = (1u << eviction::kChunkIndexBits) - 1;
    BIGCAST_ASSIGN(const uint64_t chunk, number_at(line.object, "chunk", kIndexMax));
    BIGCAST_ASSIGN(const uint64_t bytes, number_at(line.object, "bytes", limits::kChunkSizeMax));
    cache_.read(eviction::entry_of(blob.number, static_cast<uint32_t>(chunk)), bytes);
    cache_.policy().advance_stream(stream, static_cast<uint32_t>(chunk));
  } else {
    cache_.policy().close_stream(stream);
  }
  return {};
}

void BroadcastReplay::start_reader(const Blob& blob, double time) {
  if (blob.bytes == 0) return;
  const uint64_t stream = kStreamsRecordedMax + ++streams_;
  readers_.emplace(stream, Reader{&blob, stream, std::vector<bool>(chunks_in(blob.bytes)), 0});
  cache_.policy().open_stream(stream, blob.number, order_);
  steps_.push({time, stream});
}

void BroadcastReplay::run_until(double time) {
  while (!steps_.empty() && steps_.top().time <= time) {
    const Step now = steps_.top();
    steps_.pop();
    Reader& reader = readers_.at(now.reader);
    if (step(reader)) {
      steps_.push({now.time + kChunkBytes / kReadBytesPerSecond, now.reader});
    } else {
      cache_.policy().close_stream(now.reader);
      readers_.erase(now.reader);
    }
  }
}

bool BroadcastReplay::step(Reader& reader) {
  const uint32_t chunk = choose(reader);
  cache_.read(eviction::entry_of(reader.blob->number, chunk), bytes_in(reader.blob->bytes, chunk));
  cache_.policy().advance_stream(reader.stream, chunk);
  reader.read[chunk] = true;
  const auto count = static_cast<uint32_t>(reader.read.size());
  while (reader.first_unread < count && reader.read[reader.first_unread]) ++reader.first_unread;
  return reader.first_unread < count;
}

uint32_t BroadcastReplay::choose(Reader& reader) const {
  if (order_ == eviction::ReadOrder::kAscending) return reader.first_unread;
  for (uint32_t chunk = reader.first_unread; chunk < reader.read.size(); ++chunk) {
    const auto entry = eviction::entry_of(reader.blob->number, chunk);
    if (!reader.read[chunk] && cache_.is_resident(entry)) return chunk;
  }
  return reader.first_unread;
}

}  // namespace bigcast::bench
