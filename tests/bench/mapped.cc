#include "tests/bench/mapped.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <span>
#include <system_error>

#include "client_native/client.h"
#include "codec/codec.h"

namespace bigcast::bench {

namespace {

using Bytes = std::span<const std::byte>;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double digest_seconds(Bytes bytes) {
  const auto start = std::chrono::steady_clock::now();
  RootDigest root;
  for (size_t offset = 0; offset < bytes.size(); offset += limits::kChunkSizeDefault) {
    const size_t size = std::min<size_t>(limits::kChunkSizeDefault, bytes.size() - offset);
    root.add(digest_of(bytes.subspan(offset, size)));
  }
  (void)root.finish();
  return seconds_since(start);
}

void* map_file(int fd, size_t size, int access) {
  void* const data = mmap(nullptr, size, access, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
  return data;
}

// A memfd of our own with the same bytes.
void measure_own(Bytes bytes, MappedRead& out) {
  const int fd = memfd_create("bigcast-bench", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes.size())) != 0) {
    throw std::system_error(errno, std::generic_category(), "memfd");
  }
  void* const written = map_file(fd, bytes.size(), PROT_READ | PROT_WRITE);
  std::memcpy(written, bytes.data(), bytes.size());
  munmap(written, bytes.size());
  const auto start = std::chrono::steady_clock::now();
  void* const fresh = map_file(fd, bytes.size(), PROT_READ);
  madvise(fresh, bytes.size(), MADV_POPULATE_READ);
  const Bytes mapped(static_cast<const std::byte*>(fresh), bytes.size());
  digest_seconds(mapped);
  out.fresh_s = seconds_since(start);
  out.retained_s = digest_seconds(mapped);
  munmap(fresh, bytes.size());
  close(fd);
}

}  // namespace

Result<MappedRead> measure_mapped(const std::string& server, const std::string& name_space,
                                  const std::string& name) {
  ClientOptions options;
  options.servers = {server};
  options.name_space = name_space;
  options.client_name = "bench";
  BIGCAST_ASSIGN(const auto client, Client::connect(std::move(options)));
  BIGCAST_ASSIGN(const BlobSummary blob, client->stat(name));
  BIGCAST_TRY(client->map_ref(blob.ref));
  MappedRead out;
  const auto start = std::chrono::steady_clock::now();
  BIGCAST_ASSIGN(const auto mapping, client->map_ref(blob.ref));
  out.first_s = seconds_since(start);
  out.second_s = digest_seconds(mapping->bytes());
  measure_own(mapping->bytes(), out);
  return out;
}

}  // namespace bigcast::bench
