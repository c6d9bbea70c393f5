#include <fmt/format.h>
#ifdef BIGCAST_MIMALLOC
#include <mimalloc.h>
#endif
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <thread>

#include "base/limits.h"
#include "base/log.h"
#include "blobstore/memfd.h"
#include "server/config.h"
#include "server/daemon.h"
#include "server/host_facts.h"
#include "server/node.h"
#include "server/service_manager.h"

namespace bigcast {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitSocketInUse = 3;  // client_native's election of embedded nodes looks for it
constexpr int kExitPortInUse = 4;
constexpr int kExitDiskInUse = 5;
constexpr int kExitDiskDamaged = 6;

// Portable programs are told theirs; others run with what they were built with.
#ifdef BIGCAST_OLDEST_GLIBC
const std::string kOldestGlibc = BIGCAST_OLDEST_GLIBC;
#else
const std::string kOldestGlibc = fmt::format("{}.{}", __GLIBC__, __GLIBC_MINOR__);
#endif

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

// libuv reads this once, at the first piece of work. Half of them may wait for a disk
// (NodeCore::put_on_pool).
void size_thread_pool() {
  const unsigned threads = 2 * std::max(4U, std::thread::hardware_concurrency());
  setenv("UV_THREADPOOL_SIZE", std::to_string(threads).c_str(), /*overwrite=*/0);
}

// The command line, read again whenever somebody asks for it.
class Invocation {
 public:
  Invocation(int argc, char** argv) : argc_(argc), argv_(argv) {}

  Result<CommandLine> parse() const {
    return parse_command_line(argc_, argv_, [](const std::string& name) {
      return static_cast<const char*>(std::getenv(name.c_str()));
    });
  }

  // SIGHUP: as at the start, but for the secret of the environment, which is forgotten there.
  void reload(CommandLine& running) const {
    const Config& config = running.config;
    const bool from_variable = config.secret_file.empty() && !config.secret.empty();
    const std::string secret(from_variable ? config.secret.bytes() : "");
    auto next = parse_command_line(argc_, argv_, [&](const std::string& name) {
      if (name == "BIGCAST_SECRET" && from_variable) return secret.c_str();
      return static_cast<const char*>(std::getenv(name.c_str()));
    });
    if (auto opened = Daemon::open_log(config.log_file); !opened) {
      log().error("reload: {}", opened.error().message);
    }
    if (!next) {
      log().error("reload: nothing is changed: {}", next.error().message);
      return;
    }
    const auto changes = bigcast::reload(running, std::move(*next));
    for (const std::string& change : changes) log().info("reload: {}", change);
    if (changes.empty()) log().info("reload: no setting has changed");
    start_logging(config);
  }

  static void start_logging(const Config& config) {
    (void)set_log_level(config.log_level);  // checked when it was read
    set_log_format(config.log_format);
  }

 private:
  const int argc_;
  char** const argv_;
};

kj::Promise<void> reload_on_hangup(rpc::UvLoop& loop, kj::Promise<void> hangup,
                                   std::function<void()> reload) {
  return hangup.then([&loop, reload = std::move(reload)]() mutable {
    reload();
    return reload_on_hangup(loop, loop.on_signal(SIGHUP), std::move(reload));
  });
}

// False if a second signal came first.
bool drain(rpc::UvLoop& loop, Node& node) {
  bool forced = false;
  auto again = loop.on_signal(SIGTERM).exclusiveJoin(loop.on_signal(SIGINT)).then([&forced] {
    forced = true;
  });
  node.drain().exclusiveJoin(kj::mv(again)).wait(loop.wait_scope());
  return !forced;
}

// Opens what may have been moved away, and reads all settings again.
void reload(const Invocation& invocation, CommandLine& line, Node& node,
            const ServiceManager& manager) {
  manager.reloading();
  if (auto opened = node.core().audit.open(line.config.audit_log); !opened) {
    log().error("reload: audit_log: {}", opened.error().message);
  }
  invocation.reload(line);
  node.core().store->set_quotas(line.config.quota, line.config.default_quota);
  manager.ready(node.ready_line());
}

// Each connection is one, and each blob that has a memory file; nothing here uses select(2).
Result<void> raise_descriptor_limit() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return {};
  if (files.rlim_max < limits::kDescriptorsMin) {
    return fail(ErrorCode::kResourceExhausted,
                fmt::format("descriptors: its limit is {}, a node needs {}, and one more for each "
                            "connection and each blob in memory that is above 1 MiB, of several "
                            "chunks or mappable: raise the hard limit (LimitNOFILE in its unit, or "
                            "ulimit -Hn)",
                            files.rlim_max, limits::kDescriptorsMin));
  }
  if (files.rlim_cur == files.rlim_max) return {};
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) {
    log().debug("RLIMIT_NOFILE: {}", errno_message("setrlimit", errno));
  }
  return {};
}

int serve(const Invocation& invocation, CommandLine& line, Daemon& daemon) {
  const Config& config = line.config;
  if (auto raised = raise_descriptor_limit(); !raised) return report(raised.error());
  const ServiceManager manager;
  rpc::UvLoop loop;
  auto hangup = loop.on_signal(SIGHUP);
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
  for (const std::string& told : misspelt_variables(environ)) {
    log().warn("environment: {}", told);
  }
  if (large_pages_here() == LargePages::kUnasked) {
    log().warn(
        "large pages: the kernel's shmem_enabled gives them to files that did not ask: memory "
        "may be exceeded");
  }
#ifdef BIGCAST_MIMALLOC
  log().debug("allocator: mimalloc {}", mi_version());
#endif
  manager.ready(node->ready_line());
  const auto watchdog = manager.feed_watchdog(loop).eagerlyEvaluate(nullptr);
  auto reloading =
      reload_on_hangup(loop, kj::mv(hangup), [&] { reload(invocation, line, *node, manager); });
  term.exclusiveJoin(kj::mv(interrupt))
      .exclusiveJoin(kj::mv(idle))
      .exclusiveJoin(kj::mv(reloading))
      .wait(loop.wait_scope());
  manager.stopping();
  log().info("stopping: running calls may end");
  if (!drain(loop, *node)) {
    log().warn("stopped at the second signal");
    std::_Exit(kExitError);
  }
  node.reset();
  // A node that was started for one application leaves no trace; fails if others put files there.
  if (config.exit_when_idle && !config.disk_path.empty()) rmdir(config.disk_path.c_str());
  log().info("stopped");
  return 0;
}

int check(const CommandLine& line) {
  for (const std::string& told : misspelt_variables(environ)) {
    fmt::print(stderr, "bigcastd: {}\n", told);
  }
  fmt::print("{}", line.text);
  fmt::print("# the configuration is valid\n");
  return 0;
}

int run(int argc, char** argv) {
  if (auto glibc = check_glibc(kOldestGlibc, glibc_here()); !glibc) return report(glibc.error());
  const Invocation invocation(argc, argv);
  auto parsed = invocation.parse();
  forget_secret_variable();
  if (!parsed) {
    report(parsed.error());
    return kExitUsage;
  }
  switch (parsed->action) {
    case CommandLine::Action::kVersion:
      fmt::print("{}needs glibc {} or newer; here is {}\n", parsed->text, kOldestGlibc,
                 glibc_here());
      return 0;
    case CommandLine::Action::kPrintAndExit:
      fmt::print("{}", parsed->text);
      return 0;
    case CommandLine::Action::kCheckConfig:
      return check(*parsed);
    case CommandLine::Action::kRun:
      break;
  }
  Invocation::start_logging(parsed->config);
  std::signal(SIGPIPE, SIG_IGN);
  size_thread_pool();
  Daemon daemon;
  if (parsed->config.daemonize) {
    auto forked = daemon.fork();
    if (!forked) return report(forked.error());
    if (*forked) return **forked;  // the parent's exit code
  }
  return serve(invocation, *parsed, daemon);
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
