#include "client_native/node_memory.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "base/limits.h"

namespace bigcast::test {

namespace {

using limits::kGiB;
using limits::kMiB;

class FakeCgroups {
 public:
  FakeCgroups() {
    char pattern[] = "/tmp/bigcast-cgroup-XXXXXX";
    root = mkdtemp(pattern);
  }
  ~FakeCgroups() { std::filesystem::remove_all(root); }
  void set(const std::string& file, const std::string& value) const {
    const auto path = std::filesystem::path(root) / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << value << "\n";
  }
  std::string root;
};

}  // namespace

TEST_CASE("a node gets 1 GiB, 5 % of RAM or half of what the cgroup has free, at least 64 MiB") {
  constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
  CHECK(node_memory_for(100 * kGiB, kNone) == kGiB);
  CHECK(node_memory_for(10 * kGiB, kNone) == kGiB / 2);
  CHECK(node_memory_for(100 * kGiB, 600 * kMiB) == 300 * kMiB);
  CHECK(node_memory_for(kGiB, kNone) == 64 * kMiB);
  CHECK(node_memory_for(100 * kGiB, 0) == 64 * kMiB);
}

TEST_CASE("cgroup version 2: the tightest level counts, less what can be reclaimed") {
  const FakeCgroups cgroups;
  cgroups.set("a/memory.max", "1000");
  cgroups.set("a/memory.current", "700");
  cgroups.set("a/memory.stat", "anon 1\ninactive_file 100");
  cgroups.set("a/b/memory.max", "max");
  cgroups.set("a/b/memory.current", "600");
  CHECK(cgroup_free_memory(cgroups.root, "0::/a/b\n") == 400);
  CHECK(cgroup_free_memory(cgroups.root, "0::/\n") == std::numeric_limits<uint64_t>::max());
}

TEST_CASE("cgroup version 1, beside a version 2 without memory") {
  const FakeCgroups cgroups;
  cgroups.set("memory/c/memory.limit_in_bytes", "5000");
  cgroups.set("memory/c/memory.usage_in_bytes", "6000");
  cgroups.set("memory/c/memory.stat", "total_inactive_file 2500");
  CHECK(cgroup_free_memory(cgroups.root, "5:cpu:/c\n4:memory:/c\n0::/\n") == 1500);
}

}  // namespace bigcast::test
