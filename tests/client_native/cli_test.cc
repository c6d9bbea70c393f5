#include <doctest/doctest.h>

#include <map>

#include "client_native/cli/command_line.h"
#include "client_native/cli/doctor.h"
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
  CHECK(line->listed.front().name_space == "ns");
  CHECK(line->listed.front().text == "abc");
  CHECK(line->timeout_ms == 500);
  const auto listed = parse({"ping"}, {{"BIGCAST_SERVER", "a:1,b:2"}});
  REQUIRE(listed);
  CHECK(listed->servers == std::vector<std::string>{"a:1", "b:2"});
}

TEST_CASE("what is wrong on the command line is named") {
  refused({}, "command");
  refused({"fetch"}, "fetch");
  refused({"lst"}, "did you mean ls");
  refused({"put", "x", "--replcae"}, "did you mean --replace");
  refused({"ls", "--jsno"}, "did you mean --json");
  refused({"put", "--kye=a/b"}, "did you mean --key");
  refused({"ping", "stray"}, "stray");
  refused({"get", "a/b", "file", "more"}, "file");
  refused({"put", "x", "y", "--key", "a/b"}, "--key");
  refused({"put", "x", "-", "--key", "a/"}, "--key");
  refused({"ls", "n*/x"}, "namespace");
  refused({"rm", "n*/x"}, "namespace");
  refused({"put", "x", "--ttl", "1"}, "--ttl");
  refused({"put", "x", "--ttl", "0s"}, "--ttl");
  refused({"bench", "--size", "0"}, "--size");
  refused({"completion", "bahs"}, "did you mean bash");
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

TEST_CASE("several files get keys of their own") {
  const auto line = parse({"put", "/data/a", "b", "--key", "ns/day/"});
  REQUIRE(line);
  REQUIRE(line->keys.size() == 2);
  CHECK(line->keys[0].to_string() == "ns/day/a");
  CHECK(line->keys[1].to_string() == "ns/day/b");
  CHECK(line->files == std::vector<std::string>{"/data/a", "b"});
}

TEST_CASE("globs match names, and prefixes what begins with them") {
  const KeyPattern glob{"ns", "day-*/part-?"};
  CHECK(glob.prefix() == "day-");
  CHECK(glob.matches("day-1/part-7"));
  CHECK(glob.matches("day-1/x/part-7"));
  CHECK_FALSE(glob.matches("day-1/part-77"));
  const KeyPattern prefix{"ns", "day"};
  CHECK(prefix.matches("day-1"));
  CHECK_FALSE(prefix.matches("Day"));
}

TEST_CASE("every command has its help; completion and man page know all of them") {
  const auto man = parse({"man"});
  REQUIRE(man);
  std::vector<std::string> scripts;
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const auto script = parse({"completion", shell});
    REQUIRE(script);
    scripts.push_back(script->text);
  }
  for (const char* command : {"put", "get", "ls", "stat", "rm", "du", "ping", "info", "nodes",
                              "pin", "doctor", "bench", "version", "completion", "man"}) {
    const auto help = parse({command, "--help"});
    REQUIRE(help);
    CHECK(help->command == CommandLine::Command::kPrint);
    CHECK_MESSAGE(help->text.find(std::string("bigcast ") + command) != std::string::npos,
                  help->text);
    CHECK(man->text.find(std::string(".SS bigcast ") + command) != std::string::npos);
    for (const std::string& script : scripts) CHECK(script.find(command) != std::string::npos);
  }
}

Patient well() {
  Patient patient;
  patient.server = "10.0.0.1:7420";
  patient.client_version = "1.0";
  patient.node.version = "1.0";
  patient.node.advertised = "10.0.0.1:7420";
  return patient;
}

void check_found(const Patient& patient, const std::string& check, bool serious,
                 const std::string& word) {
  const auto findings = diagnose({patient});
  REQUIRE_MESSAGE(findings.size() == 1, check);
  CHECK(findings.front().check == check);
  CHECK(findings.front().serious == serious);
  CHECK_MESSAGE(findings.front().problem.find(word) != std::string::npos, findings.front().problem);
  CHECK_FALSE(findings.front().advice.empty());
}

TEST_CASE("doctor finds what is wrong, and nothing where nothing is") {
  CHECK(diagnose({well(), well()}).empty());
  Patient patient = well();
  patient.error = Error{ErrorCode::kUnavailable, "refused"};
  check_found(patient, "unreachable", true, "refused");
  patient.error = Error{ErrorCode::kUnauthenticated, "proof"};
  check_found(patient, "denied", true, "proof");
  patient.error = Error{ErrorCode::kUnsupported, "2"};
  check_found(patient, "version", true, "protocol");
  patient = well();
  patient.client_version = "1.1";
  check_found(patient, "version", false, "1.1");
  patient = well();
  patient.node.advertised = "127.0.0.1:7420";
  check_found(patient, "address", true, "127.0.0.1");
  patient = well();
  patient.node.draining = true;
  check_found(patient, "not-ready", true, "draining");
  Patient other = well();
  other.server = "10.0.0.2:7420";
  other.node.version = other.client_version = "0.9";
  const auto findings = diagnose({well(), other});
  REQUIRE(findings.size() == 1);
  CHECK(findings.front().problem == "it runs 0.9, 10.0.0.1:7420 runs 1.0");
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
