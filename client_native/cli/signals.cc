#include "client_native/cli/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <thread>

namespace bigcast::cli {

namespace {

// The process's one set of signal handlers has to be global; never destroyed, as the thread that
// uses it outlives main.
struct Unfinished {
  std::mutex mutex;
  std::string path;
};
Unfinished& unfinished() {
  static auto* const instance = new Unfinished;
  return *instance;
}

void wait_for_end(const sigset_t& ends) {
  int number = 0;
  if (sigwait(&ends, &number) != 0) return;
  const std::lock_guard lock(unfinished().mutex);
  if (!unfinished().path.empty()) unlink(unfinished().path.c_str());
  _exit(128 + number);
}

}  // namespace

void end_on_signals() {
  std::signal(SIGPIPE, SIG_IGN);  // NOLINT(concurrency-mt-unsafe): no other thread yet
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  std::thread([ends]() { wait_for_end(ends); }).detach();
}

void set_unfinished_file(const std::string& path) {
  const std::lock_guard lock(unfinished().mutex);
  unfinished().path = path;
}

int finish_unfinished_file(const std::string& path) {
  const std::lock_guard lock(unfinished().mutex);
  if (std::rename(unfinished().path.c_str(), path.c_str()) != 0) return errno;
  unfinished().path.clear();
  return 0;
}

}  // namespace bigcast::cli
