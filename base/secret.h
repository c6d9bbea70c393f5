#pragma once

#include <string>

#include "base/error.h"
#include "base/limits.h"

namespace bigcast {

// A shared secret. Never logged or put on a command line; wiped when destroyed. Movable only.
class Secret {
 public:
  Secret() = default;
  // `size_min` to 4096 bytes, else INVALID_ARGUMENT. Surrounding white space is dropped first.
  // `source` names the setting in errors.
  static Result<Secret> from_text(std::string_view text, std::string_view source,
                                  size_t size_min = limits::kSecretSizeMin);
  // Reads a regular file that only its owner can read (mode & 077 == 0), else INVALID_ARGUMENT
  // naming the file and the mode; IO when it can't be read.
  static Result<Secret> from_file(const std::string& path);

  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret();

  bool empty() const { return bytes_.empty(); }
  std::string_view bytes() const { return bytes_; }
  Secret clone() const;

 private:
  void wipe();
  std::string bytes_;
};

}  // namespace bigcast
