#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace bigcast::test {

// Stands between clients and a node and damages what the node sends, at the positions that
// flip_every says, or holds it up: choose them so that logins and headers pass and chunks are hit.
class FaultProxy {
 public:
  FaultProxy();
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  const std::string& address() const { return address_; }  // listens from the start ...
  void forward_to(const std::string& host_port);           // ... and forwards from here on
  // Damages the byte after every `period` bytes of a connection; 0: none.
  void flip_every(uint64_t period) { period_ = period; }
  uint64_t flips() const { return flips_; }
  // A connection on which the node has sent so much gets no more of it, and stays open; 0: none.
  void clog_after(uint64_t bytes) { clog_after_ = bytes; }

 private:
  void accept_loop();
  void serve(int client);
  bool pump(int from, int to, bool damage, uint64_t& passed);

  int listener_ = -1;
  std::string address_;
  std::atomic<int> port_{0};
  std::atomic<uint64_t> period_{0};
  std::atomic<uint64_t> flips_{0};
  std::atomic<uint64_t> clog_after_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::vector<std::thread> servers_;
  std::thread acceptor_;
};

}  // namespace bigcast::test
