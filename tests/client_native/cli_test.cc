#include <doctest/doctest.h>

#include <map>

#include "client_native/cli/command_line.h"
#include "client_native/cli/doctor.h"
#include "client_native/cli/output.h"
#include "client_native/cli/progress.h"
#include "rpc/auth.h"

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
  refused({"unpni", "a/b"}, "did you mean unpin");
  refused({"unpin"}, "key");
  for (const char* wrong : {"", "5", "1ms", "2h"})
    refused({"top", "--interval", wrong}, "--interval");
  for (const char* wrong : {"", "0", "x", "4294967296"})
    refused({"top", "--count", wrong}, "--count");
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

TEST_CASE("keys of namespaces are made of the nodes' secret only") {
  const Variables secret = {{"BIGCAST_SECRET", std::string(32, 's')}};
  const auto key = parse({"key", "team"}, secret);
  REQUIRE(key);
  CHECK(key->command == CommandLine::Command::kPrint);
  CHECK(key->any_namespace == "default");
  const std::string expected = rpc::NamespaceKey::derive(key->secret, "team").to_text();
  CHECK(key->text == expected + "\n");
  CHECK(parse({"key", "team", "--json"}, secret)->text ==
        "{\"namespace\":\"team\",\"key\":\"" + expected + "\"}\n");
  const Variables of_key = {{"BIGCAST_SECRET", expected}};
  CHECK(parse({"ping"}, of_key)->any_namespace == "team");
  refused({"key", "team"}, "namespace team", of_key);
  refused({"key", "../team"}, "namespace", secret);
  refused({"key"}, "namespace", secret);
  refused({"key", "team"}, "BIGCAST_SECRET");
  refused({"ping"}, "bigcast-key-1", {{"BIGCAST_SECRET", expected + "0"}});
  REQUIRE(parse({"doctor"}, {{"BIGCAST_SECRET", expected + "0"}})->bad_secret);
}

TEST_CASE("ranges are as in HTTP") {
  const auto range = [](const char* text) {
    const auto line = parse({"get", "a/b", "-", "--range", text});
    REQUIRE_MESSAGE(line, text);
    return *line->range;
  };
  CHECK(range("0-0").end == 1);
  CHECK(range("10-20").first == 10);
  CHECK(range("10-20").end == 21);
  CHECK(range("7-").first == 7);
  CHECK(range("7-").end == UINT64_MAX);
  CHECK(parse({"get", "a/b", "-", "--range=-5"})->range->last == 5);
  for (const char* wrong : {"", "-", "5", "2-1", "a-b", "1-2-3", "1k-2k", "+1-2", "0x1-2",
                            "18446744073709551616-", "0-18446744073709551615"}) {
    refused({"get", "a/b", "-", "--range", wrong}, "--range");
  }
  refused({"get", "a/b", "-", "--range=-0"}, "--range");
  refused({"get", "a/b", "-", "--rnage", "1-2"}, "did you mean --range");
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
  for (const char* command :
       {"put", "get", "ls", "stat", "rm", "du", "ping", "info", "nodes", "pin", "unpin", "top",
        "doctor", "bench", "key", "version", "completion", "man"}) {
    const auto help = parse({command, "--help"});
    REQUIRE(help);
    CHECK(help->command == CommandLine::Command::kPrint);
    CHECK_MESSAGE(help->text.find(std::string("bigcast ") + command) != std::string::npos,
                  help->text);
    CHECK(man->text.find(std::string(".SS bigcast ") + command) != std::string::npos);
    for (const std::string& script : scripts) CHECK(script.find(command) != std::string::npos);
    refused({command, "--jsno"}, "did you mean --json");
  }
}

Patient well() {
  Patient patient;
  patient.server = "10.0.0.1:7420";
  patient.client_version = "1.0";
  patient.node.summary.version = "1.0";
  patient.node.summary.advertised = "10.0.0.1:7420";
  patient.node.summary.memory_budget = limits::kGiB;
  patient.node.memory_of_machine = 4 * limits::kGiB;
  patient.node.descriptor_limit = 65536;
  patient.node.descriptors_open = 20;
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
  patient.node.summary.advertised = "127.0.0.1:7420";
  check_found(patient, "address", true, "127.0.0.1");
  patient = well();
  patient.node.not_ready = "draining";
  check_found(patient, "not-ready", true, "draining");
  patient = well();
  patient.clock_ms = 100'000;
  patient.node.clock_ms = 40'000;
  check_found(patient, "clock", false, "1 m 0 s behind");
  patient = well();
  patient.node.descriptor_limit = 1024;
  check_found(patient, "descriptors", false, "20 of 1024");
  patient.node.descriptors_open = 900;
  check_found(patient, "descriptors", true, "900 of 1024");
  patient = well();
  patient.node.memory_limit = limits::kGiB;
  check_found(patient, "memory", true, "control group");
  patient = well();
  patient.node.memory_of_machine = limits::kGiB;
  check_found(patient, "memory", true, "of the machine's 1.0 GiB");
  patient = well();
  patient.node.large_pages_unasked = true;
  check_found(patient, "large-pages", false, "did not ask");
  patient = well();
  patient.node.summary.disk_budget = 10 * limits::kGiB;
  patient.node.summary.disk_used = 2 * limits::kGiB;
  patient.node.disk_free = 8 * limits::kGiB;
  CHECK(diagnose({patient}).empty());
  patient.node.disk_free = limits::kGiB;
  check_found(patient, "disk", true, "8.0 GiB on a file system with 1.0 GiB free");
  patient = well();
  patient.node.checksum_failures = 2;
  check_found(patient, "damage", false, "2 chunks");
  patient.node.chunks_quarantined = 1;
  check_found(patient, "damage", true, "1 chunks");
  patient = well();
  patient.node.unreachable = {{"10.0.0.9:7420", {ErrorCode::kUnavailable, "no route"}}};
  check_found(patient, "peer", true, "10.0.0.9:7420: UNAVAILABLE: no route");
  Patient other = well();
  other.server = "10.0.0.2:7420";
  other.node.summary.version = other.client_version = "0.9";
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
