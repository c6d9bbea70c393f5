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

constexpr auto kFixed = eviction::ReadOrder::kAscending;
constexpr auto kResidentFirst = eviction::ReadOrder::kResidentFirst;

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

  bool is(const char* name) const { return op == fmt::format("\"{}\"", name); }

  Result<uint64_t> stream() const { return number_at(object, "stream", kStreamsRecordedMax); }

  Result<eviction::ReadOrder> order() const {
    const std::string order = object.value("order", nlohmann::json("fixed")).dump();
    if (order == "\"fixed\"") return kFixed;
    if (order == "\"resident-first\"") return kResidentFirst;
    return bad(fmt::format("order: {} is neither fixed nor resident-first", order));
  }

  Result<Chunk> chunk() const {
    constexpr uint64_t kIndexMax = (1u << eviction::kChunkIndexBits) - 1;
    BIGCAST_ASSIGN(const uint64_t index, number_at(object, "chunk", kIndexMax));
    BIGCAST_ASSIGN(const uint64_t bytes, number_at(object, "bytes", limits::kChunkSizeMax));
    return Chunk{static_cast<uint32_t>(index), bytes};
  }
};

BroadcastReplay::Reader::Reader(const Blob& blob, uint64_t stream, eviction::ReadOrder order,
                                Chunks chunks)
    : blob(blob.number),
      stream(stream),
      order(order),
      chunks(std::move(chunks)),
      read(this->chunks.size()) {}

Result<void> BroadcastReplay::run(std::istream& trace) {
  look_ahead(trace);
  trace.clear();
  trace.seekg(0);
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

// What is wrong in a line shows when it is applied.
void BroadcastReplay::look_ahead(std::istream& trace) {
  for (std::string text; std::getline(trace, text);) {
    if (text.find("\"stream\"") == std::string::npos) continue;
    const auto line = Line::parse(text);
    const auto stream = line ? line->stream() : tl::unexpected<Error>(line.error());
    if (!stream) continue;
    auto& opens = recorded_[*stream];
    if (line->is("open")) {
      opens.emplace_back();
    } else if (const auto chunk = line->chunk(); line->is("chunk") && chunk && !opens.empty()) {
      opens.back().push_back(*chunk);
    }
  }
}

Result<void> BroadcastReplay::apply(const Line& line) {
  if (line.time < time_) return bad(fmt::format("t: {} is before {}", line.time, time_));
  run_until(line.time);
  time_ = line.time;
  if (line.is("put")) {
    BIGCAST_ASSIGN(const uint64_t bytes, number_at(line.object, "bytes", kBlobBytesMax));
    const bool is_new = blobs_.try_emplace(line.blob, Blob{blobs_.size(), bytes}).second;
    return is_new ? Result<void>() : bad(fmt::format("blob: {} was put before", line.blob));
  }
  const auto blob = blobs_.find(line.blob);
  if (blob == blobs_.end()) return bad(fmt::format("blob: {} was not put", line.blob));
  if (line.is("read")) {
    start_reader(blob->second, line.time);
  } else if (line.is("release")) {
    cache_.policy().release_blob(blob->second.number);
  } else {
    return apply_recorded(line, blob->second);
  }
  return {};
}

Result<void> BroadcastReplay::apply_recorded(const Line& line, const Blob& blob) {
  if (line.is("chunk")) {
    BIGCAST_ASSIGN(const Chunk chunk, line.chunk());
    const bool has_stream = line.object.contains("stream");
    BIGCAST_ASSIGN(const uint64_t stream, has_stream ? line.stream() : Result<uint64_t>(0));
    const auto reader = has_stream ? readers_.find(stream) : readers_.end();
    if (reader == readers_.end()) {
      cache_.read(eviction::entry_of(blob.number, chunk.index), chunk.bytes);
    } else {
      step(reader->second);
    }
    return {};
  }
  if (!line.is("open") && !line.is("close")) {
    return bad(fmt::format("op: {} is none of put, read, release, open, chunk, close", line.op));
  }
  BIGCAST_ASSIGN(const uint64_t stream, line.stream());
  if (line.is("open")) return open_recorded(line, blob, stream);
  cache_.policy().close_stream(stream);
  readers_.erase(stream);
  return {};
}

Result<void> BroadcastReplay::open_recorded(const Line& line, const Blob& blob, uint64_t stream) {
  BIGCAST_ASSIGN(const eviction::ReadOrder said, line.order());
  auto& opens = recorded_.at(stream);
  Chunks chunks = std::move(opens.front());
  opens.pop_front();
  if (said == kResidentFirst) {  // the order is of what was resident then
    std::ranges::stable_sort(chunks, {}, &Chunk::index);
  }
  const eviction::ReadOrder order = order_.value_or(said);
  cache_.policy().open_stream(stream, blob.number, order);
  readers_.insert_or_assign(stream, Reader(blob, stream, order, std::move(chunks)));
  return {};
}

void BroadcastReplay::start_reader(const Blob& blob, double time) {
  if (blob.bytes == 0) return;
  Chunks chunks;
  for (uint64_t at = 0; at < blob.bytes; at += kChunkBytes) {
    chunks.push_back(
        {static_cast<uint32_t>(chunks.size()), std::min(kChunkBytes, blob.bytes - at)});
  }
  const uint64_t stream = kStreamsRecordedMax + ++streams_;
  const eviction::ReadOrder order = order_.value_or(kFixed);
  readers_.emplace(stream, Reader(blob, stream, order, std::move(chunks)));
  cache_.policy().open_stream(stream, blob.number, order);
  steps_.push({time, stream});
}

void BroadcastReplay::run_until(double time) {
  while (!steps_.empty() && steps_.top().time <= time) {
    const Step now = steps_.top();
    steps_.pop();
    Reader& reader = readers_.at(now.reader);
    step(reader);
    if (!reader.is_done()) {
      steps_.push({now.time + kChunkBytes / kReadBytesPerSecond, now.reader});
    } else {
      cache_.policy().close_stream(now.reader);
      readers_.erase(now.reader);
    }
  }
}

void BroadcastReplay::step(Reader& reader) {
  const size_t at = choose(reader);
  const Chunk& chunk = reader.chunks[at];
  cache_.read(eviction::entry_of(reader.blob, chunk.index), chunk.bytes);
  cache_.policy().advance_stream(reader.stream, chunk.index);
  reader.read[at] = true;
  while (!reader.is_done() && reader.read[reader.first_unread]) ++reader.first_unread;
}

size_t BroadcastReplay::choose(const Reader& reader) const {
  if (reader.order == kFixed) return reader.first_unread;
  for (size_t at = reader.first_unread; at < reader.chunks.size(); ++at) {
    const auto entry = eviction::entry_of(reader.blob, reader.chunks[at].index);
    if (!reader.read[at] && cache_.is_resident(entry)) return at;
  }
  return reader.first_unread;
}

}  // namespace bigcast::bench
