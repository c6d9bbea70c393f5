#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "base/ids.h"
#include "client_native/cli/commands.h"
#include "client_native/cli/output.h"

namespace bigcast::cli {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One chunk of noise, made once: what is measured is Bigcast, not a generator.
std::vector<std::byte> noise(size_t size) {
  std::vector<std::byte> bytes(size);
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 8 <= size; i += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, sizeof word);
  }
  return bytes;
}

Result<double> timed_put(Client& client, const std::string& name, uint64_t size) {
  const auto bytes = noise(limits::kChunkSizeDefault);
  const auto start = Clock::now();
  UploadOptions options;
  options.name = name;
  options.size = size;
  options.until_removed = true;
  BIGCAST_ASSIGN(const auto upload, client.upload(options));
  for (uint64_t done = 0; done < size;) {
    BIGCAST_ASSIGN(const auto buffer, upload->next_buffer());
    const auto part = static_cast<size_t>(std::min<uint64_t>(bytes.size(), size - done));
    std::memcpy(buffer.data(), bytes.data(), part);
    BIGCAST_TRY(upload->commit(part));
    done += part;
  }
  BIGCAST_TRY(upload->seal());
  return seconds_since(start);
}

Result<double> timed_get(Client& client, const std::string& name, uint64_t size) {
  const auto start = Clock::now();
  BIGCAST_ASSIGN(const auto download, client.download_name(name));
  uint64_t done = 0;
  for (;;) {
    BIGCAST_ASSIGN(const auto chunk, download->next());
    if (chunk.empty()) break;
    done += chunk.size();
  }
  if (done == size) return seconds_since(start);
  return fail(ErrorCode::kCorrupt,
              "bench: got " + std::to_string(done) + " bytes of " + std::to_string(size));
}

Result<BenchReport> measure(Client& client, const std::string& name, uint64_t size) {
  BenchReport report{.size = size};
  BIGCAST_ASSIGN(report.put_seconds, timed_put(client, name, size));
  BIGCAST_ASSIGN(report.get_seconds, timed_get(client, name, size));
  return report;
}

}  // namespace

Result<void> bench(const CommandLine& line) {
  BIGCAST_ASSIGN(const auto client, connect(line, line.any_namespace));
  const std::string name = "bench-" + Id128::random().to_string();
  const auto report = measure(*client, name, line.bench_bytes);
  const auto removed = client->remove_name(name);  // also after a get that failed
  if (!report) return tl::unexpected(report.error());
  BIGCAST_TRY(removed);
  return print(line.json ? json_of(*report) : text_of(*report));
}

}  // namespace bigcast::cli
