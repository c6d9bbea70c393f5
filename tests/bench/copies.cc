#include "tests/bench/copies.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <ctime>
#include <span>
#include <system_error>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "codec/codec.h"

namespace bigcast::bench {

namespace {

using Clock = std::chrono::steady_clock;
using Bytes = std::span<std::byte>;

constexpr size_t kChunk = limits::kChunkSizeDefault;

template <typename T>
T check(T result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { close(fd_); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  operator int() const { return fd_; }

 private:
  const int fd_;
};

// A resident memfd and a mapping of it.
class Source {
 public:
  explicit Source(uint64_t size)
      : fd_(check(memfd_create("bigcast-bench", MFD_CLOEXEC), "memfd")), size_(size) {
    check(ftruncate(fd_, static_cast<off_t>(size)), "ftruncate");
    void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, 0);
    if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    bytes_ = static_cast<std::byte*>(at);
    for (uint64_t i = 0; i < size; i += 64) bytes_[i] = static_cast<std::byte>(i >> 12);
  }
  ~Source() { munmap(bytes_, size_); }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  Bytes mapped(uint64_t offset) const {
    return {bytes_ + offset, std::min<uint64_t>(kChunk, size_ - offset)};
  }
  void read(uint64_t offset, Bytes into) const {
    for (size_t done = 0; done < into.size();) {
      const auto at = static_cast<off_t>(offset + done);
      done += static_cast<size_t>(
          check(pread(fd_, into.data() + done, into.size() - done, at), "pread"));
    }
  }
  uint64_t size() const { return size_; }

 private:
  const Fd fd_;
  const uint64_t size_;
  std::byte* bytes_ = nullptr;
};

// As many buffers as a download holds, touched.
class Ring {
 public:
  Ring() : buffers_(limits::kDownloadWindowChunks, std::vector<std::byte>(kChunk)) {}
  Bytes next(size_t size) {
    return Bytes(buffers_[turn_++ % buffers_.size()]).first(std::min(kChunk, size));
  }

 private:
  std::vector<std::vector<std::byte>> buffers_;
  size_t turn_ = 0;
};

double thread_cpu_s() {
  timespec now{};
  check(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), "clock_gettime");
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

double seconds_since(Clock::time_point started) {
  return std::chrono::duration<double>(Clock::now() - started).count();
}

void send_all(int fd, const Source& source, bool via_buffer) {
  Ring ring;
  for (uint64_t offset = 0; offset < source.size(); offset += kChunk) {
    Bytes chunk = source.mapped(offset);
    if (via_buffer) {
      const Bytes buffer = ring.next(chunk.size());
      source.read(offset, buffer);
      chunk = buffer;
    }
    while (!chunk.empty()) {
      const auto sent = check(send(fd, chunk.data(), chunk.size(), MSG_NOSIGNAL), "send");
      chunk = chunk.subspan(static_cast<size_t>(sent));
    }
  }
}

void receive_all(int fd, uint64_t size) {
  Ring ring;
  while (size > 0) {
    for (Bytes rest = ring.next(size); !rest.empty();) {
      const auto got = check(recv(fd, rest.data(), rest.size(), 0), "recv");
      if (got == 0) throw std::system_error(ECONNRESET, std::generic_category(), "recv");
      rest = rest.subspan(static_cast<size_t>(got));
      size -= static_cast<size_t>(got);
    }
  }
}

}  // namespace

Copied copy_by_socket(uint64_t size, bool via_buffer) {
  const Source source(size);
  const Fd listener(check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof address;
  check(bind(listener, generic, length), "bind");
  check(listen(listener, 1), "listen");
  check(getsockname(listener, generic, &length), "getsockname");
  const Fd out(check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  check(connect(out, generic, length), "connect");
  const Fd in(check(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), "accept"));

  Copied result;
  const double cpu_before = thread_cpu_s();
  const auto started = Clock::now();
  std::thread sender([&] {
    send_all(out, source, via_buffer);
    result.sender_cpu_s = thread_cpu_s();
  });
  receive_all(in, size);
  result.seconds = seconds_since(started);
  result.receiver_cpu_s = thread_cpu_s() - cpu_before;
  sender.join();
  return result;
}

Copied copy_by_pread(uint64_t size) {
  const Source source(size);
  Ring ring;
  RootDigest digests;  // so that no digest can be left out as unused
  const double cpu_before = thread_cpu_s();
  const auto started = Clock::now();
  for (uint64_t offset = 0; offset < size; offset += kChunk) {
    const Bytes chunk = ring.next(size - offset);
    source.read(offset, chunk);
    digests.add(digest_of(chunk));
  }
  Copied result;
  result.seconds = seconds_since(started);
  result.receiver_cpu_s = thread_cpu_s() - cpu_before;
  return result;
}

}  // namespace bigcast::bench
