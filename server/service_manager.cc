#include "server/service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "base/log.h"

namespace bigcast {
namespace {

std::string take_variable(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value == nullptr ? "" : value;
  unsetenv(name);
  return text;
}

uint64_t monotonic_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

}  // namespace

ServiceManager::ServiceManager() : socket_(take_variable("NOTIFY_SOCKET")) {
  const std::string pid = take_variable("WATCHDOG_PID");
  const std::string period = take_variable("WATCHDOG_USEC");
  std::from_chars(period.data(), period.data() + period.size(), watchdog_us_);
  if (!pid.empty() && pid != std::to_string(getpid())) watchdog_us_ = 0;
}

void ServiceManager::tell(const std::string& message) const {
  sockaddr_un address{};
  if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_.front() == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const auto sent = sendto(fd, message.data(), message.size(), MSG_NOSIGNAL,
                           reinterpret_cast<const sockaddr*>(&address), size);
  if (sent < 0) log().warn("NOTIFY_SOCKET: {}", errno_message(socket_, errno));
  if (fd >= 0) close(fd);
}

void ServiceManager::ready(const std::string& status) const {
  tell(fmt::format("READY=1\nSTATUS={}\nMAINPID={}\n", status, getpid()));
}

void ServiceManager::reloading() const {
  tell(fmt::format("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_us()));
}

void ServiceManager::stopping() const { tell("STOPPING=1\nSTATUS=running calls may end\n"); }

kj::Promise<void> ServiceManager::feed_watchdog(rpc::UvLoop& loop) const {
  if (watchdog_us_ == 0) return kj::NEVER_DONE;
  return feed_forever(loop);
}

kj::Promise<void> ServiceManager::feed_forever(rpc::UvLoop& loop) const {
  tell("WATCHDOG=1");
  return loop.timer().afterDelay(watchdog_us_ / 2 * kj::MICROSECONDS).then([this, &loop] {
    return feed_forever(loop);
  });
}

}  // namespace bigcast
