#pragma once

#include <string>
#include <string_view>

namespace bigcast {

// Text of a man page: a hyphen is a minus there, and a full stop must not begin a line.
inline std::string troff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '-') out += '\\';
    if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
    out += c;
  }
  return out;
}

}  // namespace bigcast
