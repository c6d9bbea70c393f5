#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bigcast::cli {

// Where `get` writes. A regular file appears under its name only when it is complete: until then
// the bytes are in a temporary file beside it, which is removed if `finish` is never reached.
// "-" is standard output; devices and pipes are written as they are.
class TargetFile {
 public:
  static Result<std::unique_ptr<TargetFile>> open(const std::string& path);
  ~TargetFile();
  TargetFile(const TargetFile&) = delete;
  TargetFile& operator=(const TargetFile&) = delete;

  Result<void> write(std::string_view bytes);
  Result<void> finish();

 private:
  TargetFile(std::string name, int fd, bool owned)
      : name_(std::move(name)), fd_(fd), owned_(owned) {}
  static Result<std::unique_ptr<TargetFile>> open_beside(const std::string& path, int mode);

  const std::string name_;
  int fd_;
  const bool owned_;
  std::string temporary_;  // empty: written in place
};

}  // namespace bigcast::cli
