#include "server/audit_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "base/log.h"

namespace bigcast {
namespace {

std::string field(const char* name, const std::string& value) {
  return fmt::format(",\"{}\":{}", name, value.empty() ? "null" : json_quoted(value));
}

std::string line_of(const AuditLog::Event& event) {
  const auto now = std::chrono::system_clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  return fmt::format("{{\"time\":\"{:%Y-%m-%dT%H:%M:%S}.{:03}Z\",\"operation\":\"{}\"",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(now)), ms.count() % 1000,
                     event.operation) +
         field("client", event.client) + field("peer", event.peer) +
         field("namespace", event.name_space) + field("name", event.name) + field("id", event.id) +
         fmt::format(",\"bytes\":{}", event.bytes ? std::to_string(*event.bytes) : "null") +
         field("outcome", event.outcome) + "}\n";
}

}  // namespace

AuditLog::~AuditLog() {
  if (fd_ >= 0) close(fd_);
}

Result<void> AuditLog::open(const std::string& path) {
  if (path.empty()) return {};
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return fail(ErrorCode::kIo, errno_message(path, errno));
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
  return {};
}

void AuditLog::record(const Event& event) {
  if (fd_ < 0) return;
  const std::string line = line_of(event);
  // One write a line: others may append to the file, too.
  const bool written = write(fd_, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  if (!written && !failing_) log().error("audit_log: {}", errno_message("write", errno));
  failing_ = !written;
}

}  // namespace bigcast
