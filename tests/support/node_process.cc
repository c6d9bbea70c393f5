#include "tests/support/node_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "base/ids.h"

namespace bigcast::test {

namespace {

constexpr int kReadyTimeoutMs = 60'000;  // a sanitizer build on a busy machine is slow

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (auto& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::string word_after(const std::string& line, const std::string& name) {
  const size_t begin = line.find(name + "=");
  if (begin == std::string::npos) return "";
  const size_t value = begin + name.size() + 1;
  return line.substr(value, line.find_first_of(" \n", value) - value);
}

}  // namespace

NodeProcess::NodeProcess(NodeOptions options) : log_fd_(memfd_create("bigcastd-log", MFD_CLOEXEC)) {
  int output[2];
  if (pipe2(output, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  spawn(options, output[1]);
  close(output[1]);
  try {
    read_ready_line(output[0]);
  } catch (...) {
    close(output[0]);
    end(SIGKILL);
    close(log_fd_);
    throw;
  }
  close(output[0]);
}

NodeProcess::~NodeProcess() {
  end(SIGKILL);
  close(log_fd_);
}

void NodeProcess::spawn(const NodeOptions& options, int output) {
  const std::string program = BIGCAST_BIN_DIR "/bigcastd";
  std::vector<std::string> arguments = {
      program,
      "--listen",
      options.listen,
      "--socket",
      options.socket.empty() ? "unix:@bigcast-test-" + Id128::random().to_string() : options.socket,
      "--memory",
      options.memory,
      "--exit-when-idle",
      "60s"};
  const bool has_http =
      std::find(options.more.begin(), options.more.end(), "--http") != options.more.end();
  if (!has_http) arguments.insert(arguments.end(), {"--http", "none"});
  arguments.insert(arguments.end(), options.more.begin(), options.more.end());
  std::vector<std::string> environment;
  for (char** entry = environ; *entry; ++entry) {
    if (std::strncmp(*entry, "BIGCAST_", 8) != 0) environment.emplace_back(*entry);
  }
  if (!options.secret.empty()) environment.push_back("BIGCAST_SECRET=" + options.secret);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, log_fd_, STDERR_FILENO);
  const int problem = posix_spawn(&pid_, program.c_str(), &actions, nullptr,
                                  pointers_to(arguments).data(), pointers_to(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (problem != 0) throw std::runtime_error(program + ": " + std::strerror(problem));
}

void NodeProcess::read_ready_line(int output) {
  std::string line;
  while (line.empty() || line.back() != '\n') {
    pollfd waiting{output, POLLIN, 0};
    if (poll(&waiting, 1, kReadyTimeoutMs) == 0) {
      throw std::runtime_error("bigcastd: not ready in time: " + log());
    }
    char buffer[256];
    const ssize_t got = read(output, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw std::runtime_error("bigcastd: ended before it was ready: " + log());
    line.append(buffer, static_cast<size_t>(got));
  }
  tcp_ = word_after(line, "listen");
  socket_ = word_after(line, "socket");
  http_ = word_after(line, "http");
}

int NodeProcess::end(int signal) {
  if (pid_ <= 0) return 0;
  kill(pid_, signal);
  return wait();
}

int NodeProcess::wait() {
  if (pid_ <= 0) return 0;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string NodeProcess::log() const {
  std::string text(64 * 1024, '\0');
  const ssize_t got = pread(log_fd_, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

bool process_runs(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string content;
  if (!std::getline(file, content)) return false;
  const size_t name_end = content.rfind(')');
  return name_end != std::string::npos && content[name_end + 2] != 'Z';
}

}  // namespace bigcast::test
