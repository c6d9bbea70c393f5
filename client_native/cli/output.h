#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "client_native/client.h"

// What the user and scripts read: documented in docs/CLI.md, held by tests/client_native.
namespace bigcast::cli {

// 0 ok, 1 error, 2 usage, 3 not found, 4 denied, 5 unavailable.
int exit_code(ErrorCode code);

// Writes all of `bytes`. IO on failure; is_broken_pipe tells when nobody reads any more.
Result<void> write_all(int fd, std::string_view bytes, const std::string& name);
Result<void> print(std::string_view text);  // to standard output
bool is_broken_pipe(const Error& error);

// One line on standard error: "bigcast: NOT_FOUND: ..." or {"error":{...}}.
void report(const Error& error, bool json);

// Goes through all of it and remembers the first error; the others are told at once.
class Outcome {
 public:
  explicit Outcome(bool json) : json_(json) {}
  void add(const Result<void>& result) {
    if (result) return;
    if (first_) {
      first_ = result;
    } else {
      report(result.error(), json_);
    }
  }
  const Result<void>& first() const { return first_; }

 private:
  const bool json_;
  Result<void> first_;
};

std::string human_bytes(uint64_t bytes);  // "1.5 GiB"
std::string human_ms(uint64_t ms);        // "3 s", "2 h 5 m"
double per_second(uint64_t bytes, double seconds);
std::string rate_text(double bytes_a_second);  // as human_bytes

struct TransferReport {
  std::string key;
  uint64_t size = 0;
  uint64_t stored_size = 0;
  uint32_t chunks = 0;
  uint32_t chunks_reread = 0;  // damaged, or of a source that was lost
  double seconds = 0;
};

// What du adds up.
struct Usage {
  std::string key;  // NAMESPACE/, NAMESPACE/FOLDER/ or what was asked for
  uint64_t blobs = 0, size = 0, stored_size = 0, memory_bytes = 0, disk_bytes = 0;
};

struct BenchReport {
  uint64_t size = 0;
  double put_seconds = 0, get_seconds = 0;
};

// What a node moved meanwhile, in bytes a second.
struct NodeRates {
  NodeReport now;
  double seconds = 0;  // that the rates are of
  double received = 0, fetched = 0, served = 0;
};

struct Finding;

// All end in a newline.
std::string text_of(const BlobSummary& blob);  // several lines
std::string line_of(const BlobSummary& blob);  // for lists
std::string json_of(const BlobSummary& blob);
std::string text_of(const NodeSummary& node);
std::string json_of(const NodeSummary& node);
std::string text_of(const TransferReport& report);
std::string json_of(const TransferReport& report);
std::string description_of(const NodeReport& node);  // several lines
std::string json_of(const NodeReport& node);         // all that NodeSummary's has, and more
std::string nodes_header();
std::string line_of(const NodeReport& node);  // for lists
std::string top_header();
std::string line_of(const NodeRates& node);
std::string json_of(const NodeRates& node);
std::string text_of(const Usage& usage);
std::string json_of(const Usage& usage);
std::string text_of(const BenchReport& report);
std::string json_of(const BenchReport& report);
std::string text_of(const Finding& finding);
std::string json_of(const Finding& finding);
std::string json_of_key(const char* done, const std::string& key);  // {"removed":"ns/a"}

}  // namespace bigcast::cli
