// A node's configuration file.

#include "server/config.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "server/settings.h"
#include "tests/fuzz/target.h"

std::vector<std::string> fuzz_seeds() {
  return {bigcast::example_config(),
          "memory = \"64m\"\nlisten = [\"127.0.0.1:0\"]\nlease_grace = \"1s\"\n",
          "quota = [\"team=1g\", \"b=5\"]\nlog_level = \"debug\"\ndaemonize = true\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int fd = memfd_create("config", MFD_CLOEXEC);
  if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != static_cast<ssize_t>(size))
    std::abort();
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const auto parsed = bigcast::parse_config_file(path, [](const std::string&) { return nullptr; });
  // An error says where.
  if (!parsed && parsed.error().message.empty()) std::abort();
  return 0;
}
