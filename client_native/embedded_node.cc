#include "client_native/embedded_node.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <kj/io.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "base/ids.h"
#include "base/limits.h"
#include "rpc/address.h"
#include "rpc/auth.h"
#include "rpc/connection.h"
#include "rpc/io_thread.h"
#include "rpc/login.h"

namespace bigcast {

namespace {

using SteadyClock = std::chrono::steady_clock;
using Deadline = SteadyClock::time_point;
constexpr int kExitSocketInUse = 3;  // bigcastd's: another has the socket
constexpr auto kPollInterval = std::chrono::milliseconds(10);
constexpr auto kElectionInterval = std::chrono::milliseconds(50);

// ---- Is a node there? ----

enum class Found : uint8_t { kNode, kLeavingNode };  // one that drains takes nothing new

// Logs in to whoever answers: a squatter that does not know the secret is UNAUTHENTICATED.
Result<Found> probe(rpc::IoThread& io, const std::string& application_id, const Secret& secret,
                    Deadline deadline) {
  BIGCAST_ASSIGN(const auto address, rpc::Address::parse(embedded_node_address(application_id)));
  const auto key = rpc::NamespaceKey::derive(secret, "default");
  const auto left = std::max<int64_t>(
      1,
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now()).count());
  return io.blocking([&]() {
    auto& loop = io.loop();
    auto late = loop.timer().afterDelay(left * kj::MILLISECONDS).then([&]() -> Result<Found> {
      return fail(ErrorCode::kUnavailable, address.to_string() + ": the login is not answered");
    });
    return rpc::Connection::connect(loop, address)
        .then([&](Result<kj::Own<rpc::Connection>> connection) -> kj::Promise<Result<Found>> {
          if (!connection) return Result<Found>(tl::unexpected(connection.error()));
          auto& peer = **connection;
          return rpc::login(loop, peer, key, LeaseId{}, "probe")
              .then([&](Result<rpc::Session::Client> session) -> kj::Promise<Result<Found>> {
                if (!session) return Result<Found>(tl::unexpected(session.error()));
                return session->infoRequest().send().then([](auto response) -> Result<Found> {
                  return response.getInfo().getDraining() ? Found::kLeavingNode : Found::kNode;
                });
              })
              .attach(kj::mv(*connection));
        })
        .catch_([](kj::Exception&& exception) -> Result<Found> {
          return tl::unexpected(rpc::to_error(exception));
        })
        .exclusiveJoin(kj::mv(late));
  });
}

// ---- The command line and the environment of a node ----

// The node's own directory below the first path that can be written. Its name tells applications
// and hosts apart where several share a file system.
Result<std::optional<std::string>> make_disk_directory(const EmbeddedNodeOptions& options) {
  if (options.disk_paths.empty() || options.disk_bytes == 0) return std::nullopt;
  struct stat name_space {};
  stat("/proc/self/ns/net", &name_space);
  std::string host;  // namespaces of different machines may have the same number
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), host);
  std::string problem;
  for (const std::string& path : options.disk_paths) {
    auto directory = fmt::format("{}/bigcast-{}-{}-{}-{}", path, options.application_id, host,
                                 name_space.st_ino, getuid());
    const bool made = mkdir(directory.c_str(), 0700) == 0 || errno == EEXIST;
    if (made && access(directory.c_str(), W_OK | X_OK) == 0) return directory;
    problem = errno_message("disk path " + path, errno);
  }
  return fail(ErrorCode::kIo, problem);
}

// Into a directory, so that each of the nodes has a file of its own.
Result<void> make_trace_directory(const EmbeddedNodeOptions& options) {
  if (options.trace_directory.empty()) return {};
  std::error_code error;
  std::filesystem::create_directories(options.trace_directory, error);
  if (!error) return {};
  return fail(ErrorCode::kIo,
              fmt::format("trace directory {}: {}", options.trace_directory, error.message()));
}

std::vector<std::string> arguments_of(const EmbeddedNodeOptions& options,
                                      const std::optional<std::string>& disk) {
  const uint64_t memory = options.memory_bytes ? options.memory_bytes : default_node_memory();
  const uint32_t grace = options.grace_ms ? options.grace_ms : limits::kLeaseGraceDefaultMs;
  const std::string grace_text = std::to_string(grace) + "ms";
  const std::string listen =
      options.listen_host.empty()
          ? "none"
          : rpc::Address::tcp(options.listen_host, options.listen_port).to_string();
  std::vector<std::string> arguments = {
      options.program,    "--daemonize",
      "--socket",         embedded_node_address(options.application_id),
      "--listen",         listen,
      "--http",           "none",
      "--memory",         std::to_string(memory),
      "--lease-grace",    grace_text,
      "--exit-when-idle", grace_text};
  if (!options.advertise_host.empty()) {
    arguments.insert(arguments.end(),
                     {"--advertise",
                      rpc::Address::tcp(options.advertise_host, options.listen_port).to_string()});
  }
  if (disk) {
    arguments.insert(arguments.end(),
                     {"--disk", *disk, "--disk-size", std::to_string(options.disk_bytes)});
  }
  if (!options.log_file.empty()) {
    arguments.insert(arguments.end(), {"--log-file", options.log_file});
  }
  if (!options.trace_directory.empty()) {
    arguments.insert(arguments.end(), {"--record-trace", options.trace_directory});
  }
  return arguments;
}

// This process's environment without settings that were not meant for the node (Spark gives its
// executors secrets by variables that begin with _SPARK_), and its secret.
std::vector<std::string> environment_of(const EmbeddedNodeOptions& options) {
  std::vector<std::string> environment;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view setting(*entry);
    if (!setting.starts_with("BIGCAST_") && !setting.starts_with("_SPARK_")) {
      environment.emplace_back(setting);
    }
  }
  if (!options.secret.empty()) {
    environment.push_back("BIGCAST_SECRET=" + std::string(options.secret.bytes()));
  }
  return environment;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// ---- The process ----

// posix_spawn, because fork in a process with threads (a JVM) may run nothing of ours before exec.
Result<pid_t> spawn(const EmbeddedNodeOptions& options, std::vector<std::string>& arguments,
                    int words_fd) {
  auto environment = environment_of(options);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, words_fd, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, words_fd, STDERR_FILENO);
#if __GLIBC_PREREQ(2, 34)
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
#endif
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  const int problem = posix_spawn(&pid, options.program.c_str(), &actions, &attributes,
                                  pointers_to(arguments).data(), pointers_to(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  for (std::string& entry : environment) explicit_bzero(entry.data(), entry.size());
  if (problem != 0) {
    return fail(ErrorCode::kUnavailable, errno_message("start bigcastd", problem));
  }
  return pid;
}

// Waits for that process only: a host process's other children are none of our business.
std::optional<int> wait_until(pid_t pid, Deadline deadline) {
  for (;;) {
    int status = 0;
    const pid_t ended = waitpid(pid, &status, WNOHANG);
    if (ended == pid) return status;
    // ECHILD: somebody else reaped it; then only the socket can tell what became of the node.
    if (ended < 0 && errno != EINTR) return 0;
    if (SteadyClock::now() >= deadline) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return std::nullopt;
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

// Without the program's path, which is another each time that it is unpacked: who tells the same
// thing once would tell it again.
std::string last_words(int fd, const std::string& program) {
  std::string words(limits::kNodeWordsMax, '\0');
  const ssize_t got = pread(fd, words.data(), words.size(), 0);
  words.resize(got > 0 ? static_cast<size_t>(got) : 0);
  while (!words.empty() && std::isspace(static_cast<unsigned char>(words.back()))) words.pop_back();
  std::replace(words.begin(), words.end(), '\n', ' ');
  const std::string name = "bigcastd";
  for (size_t at = 0; (at = words.find(program, at)) != std::string::npos; at += name.size()) {
    words.replace(at, program.size(), name);
  }
  return words.empty() ? "it said nothing" : words;
}

Result<std::optional<std::string>> run(const EmbeddedNodeOptions& options,
                                       const std::optional<std::string>& disk, Deadline deadline) {
  auto arguments = arguments_of(options, disk);
  const kj::AutoCloseFd words(memfd_create("bigcast-node-words", MFD_CLOEXEC));
  if (words.get() < 0) return fail(ErrorCode::kIo, errno_message("memfd_create", errno));
  BIGCAST_ASSIGN(const pid_t pid, spawn(options, arguments, words.get()));
  const auto started = SteadyClock::now();
  const auto status = wait_until(pid, deadline);
  std::string said = last_words(words.get(), options.program);
  if (!status) {
    const auto waited =
        std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - started);
    return fail(ErrorCode::kUnavailable,
                fmt::format("bigcastd: not ready after {} ms: {}", waited.count(), said));
  }
  if (WIFEXITED(*status) && WEXITSTATUS(*status) == 0) return std::nullopt;
  if (WIFEXITED(*status) && WEXITSTATUS(*status) == kExitSocketInUse) return said;
  const std::string end = WIFEXITED(*status) ? "exit code " + std::to_string(WEXITSTATUS(*status))
                                             : "signal " + std::to_string(WTERMSIG(*status));
  return fail(ErrorCode::kUnavailable, "bigcastd: " + end + ": " + said);
}

// Starts a node and waits until it is ready. Nothing: it is; else what it said of another node that
// has the socket.
Result<std::optional<std::string>> start(const EmbeddedNodeOptions& options, Deadline deadline) {
  BIGCAST_TRY(make_trace_directory(options));
  BIGCAST_ASSIGN(const auto disk, make_disk_directory(options));
  auto ended = run(options, disk, deadline);
  // Nobody else removes the directory of a node that could not run. That of one that does has
  // files.
  if (!ended && disk) rmdir(disk->c_str());
  return ended;
}

Deadline deadline_in(uint32_t ms) { return SteadyClock::now() + std::chrono::milliseconds(ms); }

Result<void> check_id(const std::string& application_id) {
  if (auto id = Id128::parse(application_id); !id) {
    return fail(ErrorCode::kInvalidArgument, "application id: " + id.error().message);
  }
  return {};
}

// Too late to begin anything: a probe that was not answered ends a little before the deadline.
bool is_late(Deadline deadline) { return SteadyClock::now() + kPollInterval >= deadline; }

// Ready means that it listens; the first answer may still take a moment.
Result<void> attach(rpc::IoThread& io, const EmbeddedNodeOptions& options, Deadline deadline) {
  for (;;) {
    auto answer = probe(io, options.application_id, options.secret, deadline);
    if (answer) return {};
    if (is_late(deadline) || answer.error().code == ErrorCode::kUnauthenticated) {
      return tl::unexpected(answer.error());
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace

std::string embedded_node_address(const std::string& application_id) {
  return "unix:@bigcast-" + application_id;
}

Result<bool> embedded_node_answers(const std::string& application_id, const Secret& secret) {
  BIGCAST_TRY(check_id(application_id));
  rpc::IoThread io;
  const auto answer = probe(io, application_id, secret, deadline_in(limits::kNodeStartTimeoutMs));
  if (!answer && answer.error().code == ErrorCode::kUnauthenticated) {
    return tl::unexpected(answer.error());
  }
  return answer == Found::kNode;
}

Result<bool> ensure_embedded_node(const EmbeddedNodeOptions& options) {
  BIGCAST_TRY(check_id(options.application_id));
  const Deadline deadline = deadline_in(options.start_timeout_ms);
  rpc::IoThread io;
  std::string in_use;
  for (;;) {
    auto present = probe(io, options.application_id, options.secret, deadline);
    if (present == Found::kNode) return false;
    if (!present && present.error().code == ErrorCode::kUnauthenticated) {
      return tl::unexpected(present.error());
    }
    if (is_late(deadline)) {
      if (in_use.empty() && !present) return tl::unexpected(present.error());
      return fail(ErrorCode::kUnavailable, "bigcastd: " + in_use);
    }
    if (present == Found::kLeavingNode) {
      in_use = embedded_node_address(options.application_id) + ": its node is about to stop";
    } else {
      BIGCAST_ASSIGN(auto lost, start(options, deadline));
      if (!lost) {
        BIGCAST_TRY(attach(io, options, deadline));
        return true;
      }
      in_use = std::move(*lost);
    }
    // Another one has the socket: it is about to answer, or about to leave it.
    std::this_thread::sleep_for(kElectionInterval);
  }
}

}  // namespace bigcast
