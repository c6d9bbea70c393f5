#pragma once

#include <optional>
#include <string>

#include "base/error.h"

namespace bigcast {

// How the process tells its starter that it is ready, in the foreground or in the background.
class Daemon {
 public:
  // Goes into the background: call it before any thread exists. In the parent it waits until the
  // child is ready (then it prints the child's ready line) or has failed (the child shares its
  // standard error), and returns the code to exit with; in the child it returns nothing.
  Result<std::optional<int>> fork();

  // Prints `line` and, in the background, lets go of the starter's streams. From then on the log
  // goes to `log_file` if there is one.
  Result<void> ready(const std::string& line, const std::string& log_file);

  // Opens `log_file` again, which somebody may have moved away; nothing if it is empty.
  static Result<void> open_log(const std::string& log_file);

 private:
  int wait_for_child(int ready_fd, int child);
  int ready_fd_ = -1;  // in the background: where the parent waits for the ready line
};

}  // namespace bigcast
