#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace bigcast::cli {

// Where `get` writes. A regular file appears under its name only when it is complete: until then
// the bytes are in a file without a name, which goes with the process however that ends, or, where
// the file system has no such files, in NAME.part-*, which is removed if `finish` is never reached
// unless the process is killed. "-" is standard output; devices and pipes are written as they are.
class TargetFile {
 public:
  static Result<std::unique_ptr<TargetFile>> open(const std::string& path);
  ~TargetFile();
  TargetFile(const TargetFile&) = delete;
  TargetFile& operator=(const TargetFile&) = delete;

  // Whether write() takes bytes in any order: a file does, a pipe does not.
  bool takes_any_order() const { return any_order_; }
  // `offset`: where in the file; goes for nothing where they have to come in order.
  Result<void> write(std::string_view bytes, uint64_t offset);
  Result<void> finish();

 private:
  TargetFile(std::string name, int fd, bool owned)
      : name_(std::move(name)), fd_(fd), owned_(owned) {}
  static Result<std::unique_ptr<TargetFile>> open_beside(const std::string& path, int mode);

  int give_name();  // 0 or errno

  const std::string name_;
  int fd_;
  const bool owned_;
  bool any_order_ = false;
  bool nameless_ = false;
  std::string temporary_;  // to be renamed to name_
};

}  // namespace bigcast::cli
