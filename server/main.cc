#include <fmt/format.h>
#ifdef BIGCAST_MIMALLOC
#include <mimalloc.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>

#include "base/log.h"
#include "server/config.h"
#include "server/daemon.h"
#include "server/node.h"

namespace bigcast {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitSocketInUse = 3;  // client_native's election of embedded nodes looks for it
constexpr int kExitPortInUse = 4;
constexpr int kExitDiskInUse = 5;
constexpr int kExitDiskDamaged = 6;

int report(const Error& error) {
  fmt::print(stderr, "bigcastd: {}\n", error.message);
  return error.code == ErrorCode::kInvalidArgument ? kExitUsage : kExitError;
}

int report(const StartFailure& failure) {
  const int code = report(failure.error);
  if (failure.error.code == ErrorCode::kCorrupt) return kExitDiskDamaged;
  if (failure.error.code != ErrorCode::kAlreadyExists) return code;
  if (failure.setting == "socket") return kExitSocketInUse;
  return failure.setting == "disk" ? kExitDiskInUse : kExitPortInUse;
}

// From here on neither /proc/PID/environ nor a child process shows the secret.
void forget_secret_variable() {
  char* text = std::getenv("BIGCAST_SECRET");
  if (text == nullptr) return;
  std::memset(text, 0, std::strlen(text));
  unsetenv("BIGCAST_SECRET");
}

// libuv reads this once, at the first piece of work.
void size_thread_pool() {
  const unsigned threads = std::max(4U, std::thread::hardware_concurrency());
  setenv("UV_THREADPOOL_SIZE", std::to_string(threads).c_str(), /*overwrite=*/0);
}

int serve(const Config& config, Daemon& daemon) {
  rpc::UvLoop loop;
  std::unique_ptr<Node> node;
  {
    auto started = Node::start(loop, config);
    if (!started) return report(started.error());
    node = std::move(*started);
  }
  auto term = loop.on_signal(SIGTERM);
  auto interrupt = loop.on_signal(SIGINT);
  auto idle = config.exit_when_idle ? node->on_idle() : kj::Promise<void>(kj::NEVER_DONE);
  if (auto ready = daemon.ready(node->ready_line(), config.log_file); !ready) {
    return report(ready.error());
  }
  log().info("{} is ready: {}", config.name, node->ready_line());
#ifdef BIGCAST_MIMALLOC
  log().debug("allocator: mimalloc {}", mi_version());
#endif
  term.exclusiveJoin(kj::mv(interrupt)).exclusiveJoin(kj::mv(idle)).wait(loop.wait_scope());
  log().info("stopping: running calls may end");
  bool forced = false;
  auto again = loop.on_signal(SIGTERM).exclusiveJoin(loop.on_signal(SIGINT)).then([&forced] {
    forced = true;
  });
  node->drain().exclusiveJoin(kj::mv(again)).wait(loop.wait_scope());
  if (forced) {
    log().warn("stopped at the second signal");
    std::_Exit(kExitError);
  }
  node.reset();
  // A node that was started for one application leaves no trace; fails if others put files there.
  if (config.exit_when_idle && !config.disk_path.empty()) rmdir(config.disk_path.c_str());
  log().info("stopped");
  return 0;
}

int run(int argc, char** argv) {
  auto parsed = parse_command_line(argc, argv, [](const std::string& name) {
    return static_cast<const char*>(std::getenv(name.c_str()));
  });
  forget_secret_variable();
  if (!parsed) {
    report(parsed.error());
    return kExitUsage;
  }
  switch (parsed->action) {
    case CommandLine::Action::kPrintAndExit:
      fmt::print("{}", parsed->text);
      return 0;
    case CommandLine::Action::kCheckConfig:
      fmt::print("bigcastd: the configuration is valid\n");
      return 0;
    case CommandLine::Action::kRun:
      break;
  }
  if (auto set = set_log_level(parsed->config.log_level); !set) return report(set.error());
  std::signal(SIGPIPE, SIG_IGN);
  size_thread_pool();
  Daemon daemon;
  if (parsed->config.daemonize) {
    auto forked = daemon.fork();
    if (!forked) return report(forked.error());
    if (*forked) return **forked;  // the parent's exit code
  }
  return serve(parsed->config, daemon);
}

}  // namespace
}  // namespace bigcast

int main(int argc, char** argv) {
  try {
    return bigcast::run(argc, argv);
  } catch (const kj::Exception& exception) {
    fmt::print(stderr, "bigcastd: {}\n", exception.getDescription().cStr());
  } catch (const std::exception& exception) {
    fmt::print(stderr, "bigcastd: {}\n", exception.what());
  }
  return 1;
}
