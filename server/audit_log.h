#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"

namespace bigcast {

// Who did what: a line of JSON for each change and each denial, appended to a file. What others
// sent is quoted, so that nobody can forge a line. On the loop's thread.
class AuditLog {
 public:
  struct Event {
    std::string client = {};  // as it calls itself; empty: it never logged in
    std::string peer = {};    // its address
    std::string name_space = {};
    const char* operation = "";
    std::string name = {};  // of the blob
    std::string id = {};
    std::optional<uint64_t> bytes = {};
    std::string outcome = {};  // "ok" or an error
  };

  AuditLog() = default;
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  // Opens the file, or opens it again where it was moved away; empty: nothing is recorded. IO.
  Result<void> open(const std::string& path);
  // A line that can't be written is said in the log, once until one can be again.
  void record(const Event& event);

 private:
  int fd_ = -1;
  bool failing_ = false;
};

}  // namespace bigcast
