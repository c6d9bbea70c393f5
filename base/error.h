#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace bigcast {

// The outcomes that a caller can tell apart. The numbers are on the wire and in the CLI's JSON:
// append only.
enum class ErrorCode : uint16_t {
  kOk = 0,
  kInvalidArgument = 1,    // the argument or setting named in the message is wrong
  kNotFound = 2,           // no such blob (or it was abandoned before it was sealed)
  kAlreadyExists = 3,      // the key names another blob
  kPermissionDenied = 4,   // known, but not allowed
  kUnauthenticated = 5,    // login failed; says nothing about what exists
  kResourceExhausted = 6,  // a budget, quota or limit named in the message is full
  kUnavailable = 7,        // the node can't be reached or is draining; trying again may help
  kDeadlineExceeded = 8,   // no progress within the deadline
  kCorrupt = 9,            // bytes failed their checksum or did not decode
  kAborted = 10,           // the blob's writer gave up before sealing it
  kUnsupported = 11,       // protocol versions or features do not match
  kIo = 12,                // a local file or disk failed
  kInternal = 13,          // a bug in Bigcast
  kNotMappable = 14,       // the blob can't be mapped here now, for the reason given: copy it
};
constexpr ErrorCode kErrorCodeLast = ErrorCode::kNotMappable;

// Upper-case name as documented, for example "NOT_FOUND". Never null.
std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one line, names the setting, argument or thing

  std::string to_string() const;  // "NOT_FOUND: no blob named a/b"
};

// What callers must handle is a Result; faults of the programme are exceptions or assertions.
template <typename T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

// The system's text for errno, with `what` before it: "open /x: Permission denied".
std::string errno_message(std::string_view what, int error_number);

}  // namespace bigcast

#define BIGCAST_CONCAT_INNER(a, b) a##b
#define BIGCAST_CONCAT(a, b) BIGCAST_CONCAT_INNER(a, b)

// Returns the error of a Result<void> (or any Result whose value is not wanted) to the caller.
#define BIGCAST_TRY(expression)                                                         \
  do {                                                                                  \
    auto bigcast_try_result = (expression);                                             \
    if (!bigcast_try_result)                                                            \
      return ::tl::unexpected<::bigcast::Error>(std::move(bigcast_try_result).error()); \
  } while (false)

// BIGCAST_ASSIGN(auto x, f()): x is f()'s value, or the error returns to the caller.
#define BIGCAST_ASSIGN(declaration, expression) \
  BIGCAST_ASSIGN_INNER(BIGCAST_CONCAT(bigcast_result_, __LINE__), declaration, expression)
#define BIGCAST_ASSIGN_INNER(temporary, declaration, expression)                           \
  auto temporary = (expression);                                                           \
  if (!temporary) return ::tl::unexpected<::bigcast::Error>(std::move(temporary).error()); \
  declaration = std::move(*temporary)
