#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bigcast::test {

struct NodeOptions {
  std::string secret;                  // empty: an open node
  std::string memory = "64m";          // as --memory takes it
  std::string listen = "127.0.0.1:0";  // or "none"
  std::string socket;                  // empty: an abstract socket of its own; or "none"
  std::vector<std::string> more;       // further arguments
};

// A real bigcastd, started for a test and ended by its pid. It also ends itself when nobody was
// attached for a minute, so that a test that crashes leaves nothing behind.
class NodeProcess {
 public:
  // Waits until the node is ready; throws std::runtime_error with its own words if it does not
  // get there.
  explicit NodeProcess(NodeOptions options = {});
  ~NodeProcess();  // kills it if it still runs
  NodeProcess(const NodeProcess&) = delete;
  NodeProcess& operator=(const NodeProcess&) = delete;

  const std::string& tcp() const { return tcp_; }        // "127.0.0.1:PORT"
  const std::string& socket() const { return socket_; }  // "unix:@..."
  const std::string& http() const { return http_; }
  pid_t pid() const { return pid_; }

  // Sends `signal` and waits for the end. Returns the exit code, or 128 + the signal that ended it.
  int end(int signal);
  int wait();  // for a node that ends by itself
  std::string log() const;

 private:
  void spawn(const NodeOptions& options, int output);
  void read_ready_line(int output);

  pid_t pid_ = -1;
  int log_fd_;
  std::string tcp_, socket_, http_;
};

// True if a process of that id exists and is not a zombie.
bool process_runs(pid_t pid);

}  // namespace bigcast::test
