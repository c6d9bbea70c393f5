#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#include "base/error.h"

namespace bigcast::bench {

enum class TraceFormat : uint8_t {
  kOracleGeneral,  // libCacheSim's: records of 24 bytes, little endian
  kCsv,            // lines of time,id,size, and maybe a header
  kBroadcast,      // JSON lines, see broadcast.h
};

// By the file's first bytes. INVALID_ARGUMENT, naming TRACE, if it can't be read or is empty.
Result<TraceFormat> format_of(const std::string& path);

struct Request {
  uint64_t id = 0;
  uint64_t size = 0;
};

// The requests of an oracleGeneral or CSV file, in order; those of size 0 are left out, as
// libCacheSim does. INVALID_ARGUMENT names TRACE and the line or record.
class TraceReader {
 public:
  static Result<TraceReader> open(const std::string& path, TraceFormat format);
  Result<std::optional<Request>> next();

 private:
  Result<std::optional<Request>> next_record();
  Result<std::optional<Request>> next_line();

  std::ifstream file_;
  TraceFormat format_ = TraceFormat::kCsv;
  uint64_t count_ = 0;  // lines or records so far
  std::string line_;
};

}  // namespace bigcast::bench
