#include "tests/bench/mapped.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "client_native/client.h"
#include "codec/codec.h"

namespace bigcast::bench {

namespace {

using Bytes = std::span<const std::byte>;

constexpr int kSecondPasses = 5;

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

// A memfd of our own with the same bytes, mapped by `map`.
class OwnMemory {
 public:
  explicit OwnMemory(Bytes bytes) : size_(bytes.size()), fd_(memfd_create("bench", MFD_CLOEXEC)) {
    if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(size_)) != 0) {
      throw std::system_error(errno, std::generic_category(), "memfd");
    }
    void* const written = map_file(fd_, size_, PROT_READ | PROT_WRITE);
    std::memcpy(written, bytes.data(), size_);
    munmap(written, size_);
  }
  OwnMemory(const OwnMemory&) = delete;
  OwnMemory& operator=(const OwnMemory&) = delete;
  ~OwnMemory() {
    if (mapped_ != nullptr) munmap(mapped_, size_);
    close(fd_);
  }

  Bytes map() {
    mapped_ = map_file(fd_, size_, PROT_READ);
    madvise(mapped_, size_, MADV_POPULATE_READ);
    return {static_cast<const std::byte*>(mapped_), size_};
  }

 private:
  const size_t size_;
  const int fd_;
  void* mapped_ = nullptr;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
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
  auto start = std::chrono::steady_clock::now();
  BIGCAST_ASSIGN(const auto mapping, client->map_ref(blob.ref));
  out.first_s = seconds_since(start);
  OwnMemory own(mapping->bytes());
  start = std::chrono::steady_clock::now();
  const Bytes retained = own.map();
  digest_seconds(retained);
  out.fresh_s = seconds_since(start);
  // In turn: what the machine does beside them changes from second to second.
  std::vector<double> ours;
  std::vector<double> bound;
  for (int round = 0; round < kSecondPasses; ++round) {
    ours.push_back(digest_seconds(mapping->bytes()));
    bound.push_back(digest_seconds(retained));
  }
  out.second_s = median(std::move(ours));
  out.retained_s = median(std::move(bound));
  return out;
}

}  // namespace bigcast::bench
