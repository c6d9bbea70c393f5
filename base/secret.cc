#include "base/secret.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace bigcast {

Result<Secret> Secret::from_text(std::string_view text, std::string_view source, size_t size_min) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  text = first == std::string_view::npos
             ? std::string_view()
             : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
  if (text.size() < size_min || text.size() > limits::kSecretSizeMax) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}: a secret has {} to {} bytes, this one has {}", source, size_min,
                            limits::kSecretSizeMax, text.size()));
  }
  Secret secret;
  secret.bytes_ = std::string(text);
  return secret;
}

Result<Secret> Secret::from_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return fail(errno == ENOENT ? ErrorCode::kInvalidArgument : ErrorCode::kIo,
                errno_message("secret file " + path, errno));
  }
  struct stat status {};
  std::array<char, limits::kSecretSizeMax + 1> buffer{};
  const bool statted = fstat(fd, &status) == 0;
  const ssize_t size = read(fd, buffer.data(), buffer.size());
  const int error_number = errno;
  close(fd);
  if (!statted || size < 0) {
    return fail(ErrorCode::kIo, errno_message("secret file " + path, error_number));
  }
  if (!S_ISREG(status.st_mode) || (status.st_mode & 077) != 0) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("secret file {}: others can read it (mode {:04o}); chmod 0600 it", path,
                            status.st_mode & 07777));
  }
  auto secret =
      from_text(std::string_view(buffer.data(), static_cast<size_t>(size)), "secret file " + path);
  OPENSSL_cleanse(buffer.data(), buffer.size());
  return secret;
}

Secret::Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) { other.wipe(); }

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    wipe();
    bytes_ = std::move(other.bytes_);
    other.wipe();
  }
  return *this;
}

Secret::~Secret() { wipe(); }

Secret Secret::clone() const {
  Secret copy;
  copy.bytes_ = bytes_;
  return copy;
}

void Secret::wipe() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
  bytes_.clear();
}

}  // namespace bigcast
