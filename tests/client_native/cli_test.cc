#include <doctest/doctest.h>

#include <map>

#include "client_native/cli/command_line.h"
#include "client_native/cli/output.h"
#include "client_native/cli/progress.h"

namespace bigcast::cli {

namespace {

using Variables = std::map<std::string, std::string>;

Result<CommandLine> parse(std::vector<const char*> arguments, const Variables& variables = {}) {
  arguments.insert(arguments.begin(), "bigcast");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data(),
                            [&](const char* name) -> const char* {
                              const auto found = variables.find(name);
                              return found == variables.end() ? nullptr : found->second.c_str();
                            });
}

void refused(const std::vector<const char*>& arguments, const std::string& name,
             const Variables& variables = {}) {
  const auto line = parse(arguments, variables);
  REQUIRE_FALSE(line);
  CHECK(line.error().code == ErrorCode::kInvalidArgument);
  CHECK_MESSAGE(line.error().message.find(name) != std::string::npos, line.error().message);
}

}  // namespace

TEST_CASE("put takes its key from the file's name unless told") {
  auto line = parse({"put", "/data/table.bin"});
  REQUIRE(line);
  CHECK(line->keys.front().to_string() == "default/table.bin");
  CHECK(line->servers == std::vector<std::string>{"127.0.0.1:7420"});
  line = parse({"put", "-", "--key", "a/b", "--replace", "--chunk-size", "64K", "--no-compress"});
  REQUIRE(line);
  CHECK(line->keys.front().to_string() == "a/b");
  CHECK(line->replace);
  CHECK(line->chunk_size == 65536);
  CHECK_FALSE(line->compress);
  CHECK(line->homes == 1);
  line = parse({"put", "x", "--homes", "2", "--server", "a:1", "--server", "b:1"});
  REQUIRE(line);
  CHECK(line->homes == 2);
}

TEST_CASE("global options stand anywhere; flags win over the environment") {
  const auto line = parse(
      {"ls", "ns/abc", "--json", "--server", "h:1", "--server", "unix:/s", "--timeout", "500ms"},
      {{"BIGCAST_SERVER", "e:1"}});
  REQUIRE(line);
  CHECK(line->json);
  CHECK(line->servers == std::vector<std::string>{"h:1", "unix:/s"});
  CHECK(line->prefix.name_space == "ns");
  CHECK(line->prefix.name == "abc");
  CHECK(line->timeout_ms == 500);
  const auto listed = parse({"ping"}, {{"BIGCAST_SERVER", "a:1,b:2"}});
  REQUIRE(listed);
  CHECK(listed->servers == std::vector<std::string>{"a:1", "b:2"});
}

TEST_CASE("what is wrong on the command line is named") {
  refused({}, "command");
  refused({"fetch"}, "fetch");
  refused({"put"}, "file");
  refused({"put", "x", "--colour"}, "--colour");
  refused({"put", "-"}, "--key");
  refused({"put", "x", "--chunk-size", "5"}, "--chunk-size");
  refused({"put", "x", "--chunk-size", "32m"}, "--chunk-size");
  refused({"put", "x", "--chunk-size", "1x"}, "--chunk-size");
  for (const char* wrong : {"", "0", "2", "1x", "-1"}) {  // of one server
    refused({"put", "x", "--homes", wrong}, "--homes");
  }
  refused({"put", "x", "--homes", "3", "--server", "a:1", "--server", "b:1"}, "1 to 2");
  refused({"put", "x", "--key", "plain"}, "plain");
  refused({"put", "x", "--key", "a/../b"}, "a/../b");
  refused({"get", "a/b"}, "file");
  refused({"ls", ".hidden"}, "namespace");
  for (const char* wrong : {"", "30", "0s", "25h"})
    refused({"ping", "--timeout", wrong}, "--timeout");
  refused({"ping", "--secret", "x"}, "--secret");
  refused({"ping", "--secret=x"}, "--secret-file");
  refused({"ping", "--secret-file", "/nonexistent"}, "/nonexistent");
  refused({"ping"}, "BIGCAST_SECRET", {{"BIGCAST_SECRET", "short"}});
  refused({"ping"}, "both", {{"BIGCAST_SECRET", "s"}, {"BIGCAST_SECRET_FILE", "f"}});
}

TEST_CASE("exit codes are the documented ones") {
  CHECK(exit_code(ErrorCode::kOk) == 0);
  CHECK(exit_code(ErrorCode::kIo) == 1);
  CHECK(exit_code(ErrorCode::kCorrupt) == 1);
  CHECK(exit_code(ErrorCode::kInvalidArgument) == 2);
  CHECK(exit_code(ErrorCode::kNotFound) == 3);
  CHECK(exit_code(ErrorCode::kUnauthenticated) == 4);
  CHECK(exit_code(ErrorCode::kPermissionDenied) == 4);
  CHECK(exit_code(ErrorCode::kUnavailable) == 5);
  CHECK(exit_code(ErrorCode::kDeadlineExceeded) == 5);
}

TEST_CASE("figures for people") {
  CHECK(human_bytes(1023) == "1023 B");
  CHECK(human_bytes(1536) == "1.5 KiB");
  CHECK(human_bytes(limits::kMiB - 1) == "1.0 MiB");
  CHECK(human_ms(59'999) == "59 s");
  CHECK(human_ms(3'700'000) == "1 h 1 m");
  CHECK(progress_line("x", 512, 1024, 1.0) == "x  50 %  512 B of 1.0 KiB  512 B/s  1 s left");
  CHECK(progress_line("x", 512, std::nullopt, 1.0) == "x  512 B  512 B/s");
}

}  // namespace bigcast::cli
