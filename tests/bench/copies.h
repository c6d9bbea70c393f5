#pragma once

#include <cstdint>

namespace bigcast::bench {

// What the bounds of `scripts/bench loopback` took. CPU time is of the thread that sent, which is 0
// where there is none, and of the one that received.
struct Copied {
  double seconds = 0;
  double sender_cpu_s = 0;
  double receiver_cpu_s = 0;
};

// Both move `size` bytes of a memfd that is resident, in chunks of the default size, into a ring of
// buffers as large as a download's window. They throw std::system_error.

// Over one TCP connection on loopback. The sender sends from a mapping or, if `via_buffer`, from a
// buffer that it reads each chunk into, as a node does.
Copied copy_by_socket(uint64_t size, bool via_buffer);
// By pread; then XXH3-128 of the copy.
Copied copy_by_pread(uint64_t size);

}  // namespace bigcast::bench
