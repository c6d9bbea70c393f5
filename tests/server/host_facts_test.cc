#include "server/host_facts.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "tests/server/fixture.h"

namespace bigcast::testing {
namespace {

// What this process would be told of its control groups.
class Groups {
 public:
  explicit Groups(const std::string& own) : own_(directory_.write("own", own)) {}
  void limit(const std::string& path, const std::string& file, const std::string& text) {
    std::filesystem::create_directories(directory_.path("mount" + path));
    directory_.write("mount" + path + "/" + file, text + "\n");
  }
  uint64_t least() const { return memory_limit(own_, directory_.path("mount")); }

 private:
  const TemporaryDirectory directory_;
  const std::string own_;
};

TEST_CASE("the memory limit of control groups, version 2, is the least from the own to the root") {
  Groups groups("0::/system.slice/bigcastd.service\n");
  CHECK(groups.least() == 0);
  groups.limit("/system.slice/bigcastd.service", "memory.max", "max");
  CHECK(groups.least() == 0);
  groups.limit("/system.slice", "memory.max", "8589934592");
  CHECK(groups.least() == 8589934592);
  groups.limit("/system.slice/bigcastd.service", "memory.max", "1073741824");
  CHECK(groups.least() == 1073741824);
  groups.limit("/system.slice", "memory.max", "536870912");
  CHECK(groups.least() == 536870912);
  groups.limit("/system.slice/another.service", "memory.max", "1");
  CHECK(groups.least() == 536870912);
}

TEST_CASE("... and of version 1, beside which version 2 may be mounted, too") {
  Groups groups("7:cpu,cpuacct:/a\n5:memory:/a/b\n1:name=systemd:/a\n0::/\n");
  CHECK(groups.least() == 0);
  groups.limit("/memory/a/b", "memory.limit_in_bytes", "9223372036854771712");  // none
  CHECK(groups.least() == 0);
  groups.limit("/memory/a", "memory.limit_in_bytes", "268435456");
  groups.limit("/cpu,cpuacct/a", "memory.limit_in_bytes", "1");  // not a limit of memory
  CHECK(groups.least() == 268435456);
}

TEST_CASE("in a container the mount is the own group, whatever that is called outside") {
  Groups groups("0::/../../docker/0123\n");
  groups.limit("", "memory.max", "268435456");
  CHECK(groups.least() == 268435456);
  Groups nobody("");
  CHECK(nobody.least() == 0);
}

}  // namespace
}  // namespace bigcast::testing
