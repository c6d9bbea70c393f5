#include "base/secret.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace bigcast {
namespace {

class TemporaryFile {
 public:
  TemporaryFile(const std::string& content, mode_t mode) {
    std::string pattern = "/tmp/bigcast-secret-XXXXXX";
    const int fd = mkstemp(pattern.data());
    REQUIRE(fd >= 0);
    close(fd);
    path = pattern;
    std::ofstream(path) << content;
    REQUIRE(chmod(path.c_str(), mode) == 0);
  }
  ~TemporaryFile() { unlink(path.c_str()); }
  std::string path;
};

const std::string kGood = "0123456789abcdef0123456789abcdef";

}  // namespace

TEST_CASE("a secret file of the owner's is read, white space dropped") {
  const TemporaryFile file("  " + kGood + "\n", 0600);
  const auto secret = Secret::from_file(file.path);
  REQUIRE(secret);
  CHECK(secret->bytes() == kGood);
}

TEST_CASE("a secret that others can read, is too short, too long or missing is refused by name") {
  const auto refused = [](const std::string& path, const std::string& why) {
    const auto secret = Secret::from_file(path);
    REQUIRE_FALSE(secret);
    CHECK(secret.error().code == ErrorCode::kInvalidArgument);
    CHECK(secret.error().message.find(path) != std::string::npos);
    CHECK(secret.error().message.find(why) != std::string::npos);
  };
  refused(TemporaryFile(kGood, 0640).path, "secret file");  // gone by then: missing
  const TemporaryFile readable(kGood, 0644);
  refused(readable.path, "0644");
  const TemporaryFile brief("short", 0600);
  refused(brief.path, "32 to 4096");
  const TemporaryFile lengthy(std::string(5000, 'x'), 0600);
  refused(lengthy.path, "32 to 4096");
  refused("/nonexistent/secret", "No such file");
}

TEST_CASE("moving a secret leaves nothing behind") {
  Secret a = Secret::from_text(kGood, "test").value();
  const Secret b = std::move(a);
  CHECK(a.empty());  // NOLINT(bugprone-use-after-move): what this test is about
  CHECK(b.bytes() == kGood);
}

}  // namespace bigcast
