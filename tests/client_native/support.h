#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "base/limits.h"
#include "client_native/client.h"
#include "tests/support/node_process.h"

namespace bigcast::test {

constexpr uint32_t kSmallChunk = limits::kChunkSizeMin;
inline const std::string kSecret = "a secret for tests, 32 bytes and more";

inline std::string random_bytes(size_t size, uint64_t seed = 1) {
  std::mt19937_64 generator(seed);
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; i += 8) {
    const uint64_t word = generator();
    std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return bytes;
}

inline std::string compressible_bytes(size_t size) {
  std::string bytes;
  bytes.reserve(size + 32);
  for (uint64_t line = 0; bytes.size() < size; ++line) {
    bytes += "line " + std::to_string(line) + " of many\n";
  }
  bytes.resize(size);
  return bytes;
}

inline ClientOptions options_for(const std::string& server, const std::string& local = "",
                                 const std::string& secret = "") {
  ClientOptions options;
  if (!server.empty()) options.servers = {server};
  options.local_node = local;
  if (!secret.empty()) options.secret = Secret::from_text(secret, "test").value();
  options.client_name = "test";
  return options;
}

inline std::unique_ptr<Client> connect(ClientOptions options) {
  auto client = Client::connect(std::move(options));
  if (!client) FAIL(client.error().to_string());
  return std::move(*client);
}

// Streams `bytes`; stops at the first error.
inline Result<void> send(Upload& upload, std::string_view bytes) {
  while (!bytes.empty()) {
    BIGCAST_ASSIGN(const auto buffer, upload.next_buffer());
    const size_t size = std::min(bytes.size(), buffer.size());
    std::memcpy(buffer.data(), bytes.data(), size);
    BIGCAST_TRY(upload.commit(size));
    bytes.remove_prefix(size);
  }
  return {};
}

inline UploadOptions named(const std::string& name, uint32_t chunk_size = kSmallChunk) {
  UploadOptions options;
  options.name = name;
  options.chunk_size = chunk_size;
  options.until_removed = true;
  return options;
}

// Returns the ref.
inline std::string put(Client& client, const UploadOptions& options, std::string_view bytes) {
  auto upload = client.upload(options);
  if (!upload) FAIL(upload.error().to_string());
  if (auto sent = send(**upload, bytes); !sent) FAIL(sent.error().to_string());
  auto ref = (*upload)->seal();
  if (!ref) FAIL(ref.error().to_string());
  return *ref;
}

inline Result<std::string> read_all(Download& download) {
  std::string bytes;
  for (;;) {
    BIGCAST_ASSIGN(const auto chunk, download.next());
    if (chunk.empty()) return bytes;
    bytes.append(reinterpret_cast<const char*>(chunk.data()), chunk.size());
  }
}

inline std::unique_ptr<Download> open_ref(Client& client, const std::string& ref) {
  auto download = client.download_ref(ref);
  if (!download) FAIL(download.error().to_string());
  return std::move(*download);
}

// Not CHECK(a == b): a failure must not print megabytes.
inline void check_same(const Result<std::string>& got, const std::string& expected) {
  if (!got) FAIL(got.error().to_string());
  CHECK(got->size() == expected.size());
  const bool same = *got == expected;
  CHECK(same);
}

// Waits for what comes about by itself; the bound is only there to end a broken test.
template <typename Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 600; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return false;
}

template <typename T>
void check_error(const Result<T>& result, ErrorCode code, const std::string& text = "") {
  REQUIRE_FALSE(result.has_value());
  CHECK_MESSAGE(result.error().code == code, result.error().to_string());
  CHECK_MESSAGE(result.error().message.find(text) != std::string::npos, result.error().message);
}

}  // namespace bigcast::test
