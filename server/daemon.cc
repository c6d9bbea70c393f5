#include "server/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

namespace bigcast {
namespace {

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

Result<void> redirect(const char* path, int flags, std::initializer_list<int> targets) {
  const int fd = open(path, flags | O_CLOEXEC, 0600);
  if (fd < 0) return fail(ErrorCode::kIo, errno_message(path, errno));
  for (const int target : targets) dup2(fd, target);
  close(fd);
  return {};
}

}  // namespace

Result<std::optional<int>> Daemon::fork() {
  // What the starter left open (a JVM's sockets and jars) must not live as long as the node.
  close_range(STDERR_FILENO + 1, ~0U, 0);
  std::array<int, 2> ready{};
  if (pipe2(ready.data(), O_CLOEXEC) != 0) {
    return fail(ErrorCode::kIo, errno_message("daemonize: pipe", errno));
  }
  const pid_t child = ::fork();
  if (child < 0) return fail(ErrorCode::kIo, errno_message("daemonize: fork", errno));
  if (child == 0) {
    close(ready[0]);
    ready_fd_ = ready[1];
    setsid();
    return std::optional<int>();
  }
  close(ready[1]);
  return std::optional<int>(wait_for_child(ready[0], child));
}

int Daemon::wait_for_child(int ready_fd, int child) {
  std::string line;
  std::array<char, 512> buffer{};
  while (true) {
    const ssize_t size = read(ready_fd, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    line.append(buffer.data(), static_cast<size_t>(size));
  }
  close(ready_fd);
  if (!line.empty() && line.back() == '\n') {
    return write_all(STDOUT_FILENO, line) ? 0 : 1;
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  fmt::print(stderr, "bigcastd: ended by signal {}\n", WTERMSIG(status));
  return 1;
}

Result<void> Daemon::open_log(const std::string& log_file) {
  if (log_file.empty()) return {};
  return redirect(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND, {STDERR_FILENO});
}

Result<void> Daemon::ready(const std::string& line, const std::string& log_file) {
  BIGCAST_TRY(open_log(log_file));
  if (ready_fd_ < 0) {
    if (!write_all(STDOUT_FILENO, line + "\n")) {
      return fail(ErrorCode::kIo, errno_message("standard output", errno));
    }
    return {};
  }
  if (log_file.empty()) BIGCAST_TRY(redirect("/dev/null", O_WRONLY, {STDERR_FILENO}));
  BIGCAST_TRY(redirect("/dev/null", O_RDWR, {STDIN_FILENO, STDOUT_FILENO}));
  if (chdir("/") != 0) return fail(ErrorCode::kIo, errno_message("chdir /", errno));
  write_all(ready_fd_, line + "\n");  // nobody may be waiting any more
  close(ready_fd_);
  ready_fd_ = -1;
  return {};
}

}  // namespace bigcast
