#include "client_native/cli/target_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/ids.h"
#include "client_native/cli/output.h"
#include "client_native/cli/signals.h"

namespace bigcast::cli {

namespace {

std::string temporary_name(const std::string& path) {
  return path + ".part-" + Id128::random().to_string().substr(0, 12);
}

}  // namespace

Result<std::unique_ptr<TargetFile>> TargetFile::open(const std::string& path) {
  if (path == "-") {
    return std::unique_ptr<TargetFile>(new TargetFile("standard output", STDOUT_FILENO, false));
  }
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return open_beside(path, -1);
    return fail(ErrorCode::kIo, errno_message("open " + path, errno));
  }
  if (S_ISREG(status.st_mode)) {
    char* const real = realpath(path.c_str(), nullptr);  // a link stays a link
    if (!real) return fail(ErrorCode::kIo, errno_message("open " + path, errno));
    const std::string target = real;
    std::free(real);
    return open_beside(target, static_cast<int>(status.st_mode & 07777));
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return fail(ErrorCode::kIo, errno_message("open " + path, errno));
  return std::unique_ptr<TargetFile>(new TargetFile(path, fd, true));
}

Result<std::unique_ptr<TargetFile>> TargetFile::open_beside(const std::string& path, int mode) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  std::string temporary;
  int fd = ::open(folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
  if (fd < 0) {  // not every file system has files without a name
    temporary = temporary_name(path);
    set_unfinished_file(temporary);  // before it exists, so that no signal comes between
    fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (fd < 0) {
    const int problem = errno;
    set_unfinished_file("");
    return fail(ErrorCode::kIo, errno_message("create " + path, problem));
  }
  if (mode >= 0) fchmod(fd, static_cast<mode_t>(mode));
  auto file = std::unique_ptr<TargetFile>(new TargetFile(path, fd, true));
  file->any_order_ = true;
  file->nameless_ = temporary.empty();
  file->temporary_ = temporary;
  return file;
}

// A name beside the target's, which it is then renamed to: to link to a name that is taken fails.
int TargetFile::give_name() {
  temporary_ = temporary_name(name_);
  set_unfinished_file(temporary_);
  const std::string self = "/proc/self/fd/" + std::to_string(fd_);
  const int linked =
      linkat(AT_FDCWD, self.c_str(), AT_FDCWD, temporary_.c_str(), AT_SYMLINK_FOLLOW);
  return linked == 0 ? 0 : errno;
}

TargetFile::~TargetFile() {
  if (owned_ && fd_ >= 0) close(fd_);
  if (!temporary_.empty()) {
    unlink(temporary_.c_str());
    set_unfinished_file("");
  }
}

Result<void> TargetFile::write(std::string_view bytes, uint64_t offset) {
  if (any_order_ && lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0) {
    return fail(ErrorCode::kIo, errno_message("write " + name_, errno));
  }
  return write_all(fd_, bytes, name_);
}

Result<void> TargetFile::finish() {
  if (!owned_) return {};
  if (nameless_) {
    if (const int problem = give_name(); problem != 0) {
      return fail(ErrorCode::kIo, errno_message("create " + name_, problem));
    }
  }
  const int closed = close(fd_);  // a full disk on a network file system shows here
  fd_ = -1;
  if (closed != 0) return fail(ErrorCode::kIo, errno_message("write " + name_, errno));
  if (temporary_.empty()) return {};
  if (const int problem = finish_unfinished_file(name_); problem != 0) {
    return fail(ErrorCode::kIo, errno_message("rename to " + name_, problem));
  }
  temporary_.clear();
  return {};
}

}  // namespace bigcast::cli
