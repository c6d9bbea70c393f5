#include "client_native/node_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include "base/limits.h"
#include "client_native/embedded_node.h"

namespace bigcast {

namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

struct Files {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // key in memory.stat
};
constexpr Files kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                             "total_inactive_file"};
constexpr Files kVersion2 = {"memory.max", "memory.current", "inactive_file"};

std::optional<uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;  // also "max"
}

uint64_t read_stat(const std::string& path, std::string_view wanted) {
  std::ifstream file(path);
  std::string key;
  uint64_t value = 0;
  while (file >> key >> value) {
    if (key == wanted) return value;
  }
  return 0;
}

uint64_t free_at(const std::string& directory, const Files& files) {
  const auto limit = read_number(directory + "/" + files.limit);
  const auto usage = read_number(directory + "/" + files.usage);
  if (!limit || !usage) return kNoLimit;
  const uint64_t reclaimable = read_stat(directory + "/memory.stat", files.reclaimable);
  const uint64_t held = *usage - std::min(*usage, reclaimable);
  return *limit - std::min(*limit, held);
}

// The least of all levels: the parents' limits hold as well.
uint64_t free_from(const std::string& mount, std::string path, const Files& files) {
  uint64_t least = kNoLimit;
  for (;;) {
    least = std::min(least, free_at(mount + path, files));
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return least;
    path.resize(slash);
  }
}

}  // namespace

uint64_t cgroup_free_memory(const std::string& mount, std::string_view proc_cgroup) {
  uint64_t least = kNoLimit;
  std::istringstream lines{std::string(proc_cgroup)};
  for (std::string line; std::getline(lines, line);) {  // "4:memory:/a/b" or "0::/a/b"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (path == "/" || path.find("..") != std::string::npos) path.clear();
    if (controllers == "memory") {
      least = std::min(least, free_from(mount + "/memory", path, kVersion1));
    } else if (controllers.empty()) {
      least = std::min(least, free_from(mount, path, kVersion2));
    }
  }
  return least;
}

uint64_t node_memory_for(uint64_t ram, uint64_t cgroup_free) {
  const uint64_t wanted = std::min({limits::kNodeMemoryDefaultMax, ram / 20, cgroup_free / 2});
  return std::max(wanted, limits::kNodeMemoryDefaultMin);
}

uint64_t default_node_memory() {
  const uint64_t ram =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  std::ifstream file("/proc/self/cgroup");
  std::stringstream content;
  content << file.rdbuf();
  return node_memory_for(ram, cgroup_free_memory("/sys/fs/cgroup", content.str()));
}

}  // namespace bigcast
