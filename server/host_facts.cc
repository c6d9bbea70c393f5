#include "server/host_facts.h"

#include <fmt/format.h>
#include <gnu/libc-version.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <utility>

namespace bigcast {
namespace {

// "max" (version 2) and a number near 2^63 (version 1) both mean that there is no limit.
uint64_t limit_in(const std::string& path) {
  constexpr uint64_t kNoLimit = uint64_t{1} << 60;
  uint64_t limit = 0;
  std::ifstream(path) >> limit;
  return limit >= kNoLimit ? 0 : limit;
}

// Of the control group and all above it, as any of them may be the one that kills.
uint64_t least_limit(const std::string& root, std::string group, const char* file) {
  uint64_t least = 0;
  for (;;) {
    const uint64_t limit = limit_in(root + group + "/" + file);
    if (limit != 0 && (least == 0 || limit < least)) least = limit;
    if (group.empty() || group == "/") return least;
    group.resize(group.rfind('/'));
  }
}

uint64_t count_descriptors() {
  std::error_code error;
  uint64_t count = 0;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    count++;
  }
  return count;
}

// Of "2.36" or, as distributions may write it, "2.36.9000-stable": both numbers.
std::pair<int, int> glibc_version(std::string_view text) {
  std::pair<int, int> version{0, 0};
  const char* const end = text.data() + text.size();
  const auto [dot, problem] = std::from_chars(text.data(), end, version.first);
  if (problem == std::errc() && dot != end) std::from_chars(dot + 1, end, version.second);
  return version;
}

}  // namespace

uint64_t memory_limit(const std::string& own_groups, const std::string& mount) {
  std::ifstream groups(own_groups);  // lines of "ID:CONTROLLERS:PATH"
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    uint64_t limit = 0;
    if (controllers == ",,") limit = least_limit(mount, group, "memory.max");
    if (controllers.find(",memory,") != std::string::npos) {
      limit = least_limit(mount + "/memory", group, "memory.limit_in_bytes");
    }
    if (limit != 0) return limit;
  }
  return 0;
}

HostFacts look_at_host(const std::string& disk_path) {
  HostFacts facts;
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) facts.descriptor_limit = files.rlim_cur;
  facts.descriptors_open = count_descriptors();
  facts.memory_limit = memory_limit("/proc/self/cgroup", "/sys/fs/cgroup");
  struct sysinfo machine {};
  if (sysinfo(&machine) == 0) {
    facts.memory_of_machine = uint64_t{machine.totalram} * machine.mem_unit;
  }
  struct statvfs disk {};
  if (!disk_path.empty() && statvfs(disk_path.c_str(), &disk) == 0) {
    facts.disk_free = uint64_t{disk.f_bavail} * disk.f_frsize;
  }
  return facts;
}

std::string glibc_here() { return gnu_get_libc_version(); }

Result<void> check_glibc(std::string_view oldest, std::string_view here) {
  if (glibc_version(here) >= glibc_version(oldest)) return {};
  return fail(ErrorCode::kUnsupported,
              fmt::format("needs glibc {} or newer, and here is {}", oldest, here));
}

}  // namespace bigcast
