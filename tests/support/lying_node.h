#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/secret.h"
#include "rpc/connection.h"
#include "rpc/io_thread.h"

namespace bigcast::test {

// Passes everything on to a real node, but alters each chunk that it is asked for and gives it the
// checksum that fits: what whoever runs a node, or has broken into it, can do.
class LyingNode {
 public:
  enum class Version : uint8_t { kOurs, kNext };
  // Listens on `listen`, and passes on to `target`, both "host:port"; `secret` is that of the node.
  // With the next protocol's version it refuses all logins, as a real node does, and needs no
  // target. Throws std::runtime_error if it can't listen.
  LyingNode(const std::string& listen, const std::string& target, const Secret& secret,
            Version version = Version::kOurs);
  ~LyingNode();
  LyingNode(const LyingNode&) = delete;
  LyingNode& operator=(const LyingNode&) = delete;

  const std::string& address() const { return address_; }
  void lie(bool lies) { lies_ = lies; }  // from the start it does
  uint64_t lies() const { return told_; }

 private:
  struct State;  // lives on the thread
  std::atomic<bool> lies_{true};
  std::atomic<uint64_t> told_{0};
  std::string address_;
  rpc::IoThread io_;
  std::unique_ptr<State> state_;
};

}  // namespace bigcast::test
