#include "base/error.h"

#include <fmt/format.h>

#include <system_error>

namespace bigcast {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return "OK";
    case ErrorCode::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case ErrorCode::kNotFound:
      return "NOT_FOUND";
    case ErrorCode::kAlreadyExists:
      return "ALREADY_EXISTS";
    case ErrorCode::kPermissionDenied:
      return "PERMISSION_DENIED";
    case ErrorCode::kUnauthenticated:
      return "UNAUTHENTICATED";
    case ErrorCode::kResourceExhausted:
      return "RESOURCE_EXHAUSTED";
    case ErrorCode::kUnavailable:
      return "UNAVAILABLE";
    case ErrorCode::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case ErrorCode::kCorrupt:
      return "CORRUPT";
    case ErrorCode::kAborted:
      return "ABORTED";
    case ErrorCode::kUnsupported:
      return "UNSUPPORTED";
    case ErrorCode::kIo:
      return "IO";
    case ErrorCode::kInternal:
      return "INTERNAL";
    case ErrorCode::kNotMappable:
      return "NOT_MAPPABLE";
  }
  return "INTERNAL";
}

std::string Error::to_string() const {
  return fmt::format("{}: {}", bigcast::to_string(code), message);
}

std::string errno_message(std::string_view what, int error_number) {
  return fmt::format("{}: {}", what, std::generic_category().message(error_number));
}

}  // namespace bigcast
