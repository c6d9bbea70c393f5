#include "client_native/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "client_native/cli/output.h"

namespace bigcast::cli {

namespace {

constexpr auto kRedrawEvery = std::chrono::milliseconds(200);
constexpr const char* kClearLine = "\r\033[K";

void draw(const std::string& text) {
  [[maybe_unused]] const auto ignored = write_all(STDERR_FILENO, text, "standard error");
}

}  // namespace

Progress::Progress(std::string what, std::optional<uint64_t> size, bool enabled)
    : what_(std::move(what)), enabled_(enabled && isatty(STDERR_FILENO) == 1) {
  update(0, size);
}

Progress::~Progress() {
  if (enabled_) draw(kClearLine);
}

void Progress::update(uint64_t bytes_done, std::optional<uint64_t> size) {
  const auto now = Clock::now();
  if (!enabled_ || now - drawn_at_ < kRedrawEvery) return;
  drawn_at_ = now;
  const std::chrono::duration<double> elapsed = now - started_;
  draw(kClearLine + progress_line(what_, bytes_done, size, elapsed.count()));
}

std::string progress_line(const std::string& what, uint64_t done, std::optional<uint64_t> size,
                          double seconds) {
  const double rate = per_second(done, seconds);
  const std::string speed = rate_text(rate) + "/s";
  if (!size) return fmt::format("{}  {}  {}", what, human_bytes(done), speed);
  const uint64_t percent = *size == 0 ? 100 : done * 100 / *size;
  std::string line = fmt::format("{}  {} %  {} of {}  {}", what, percent, human_bytes(done),
                                 human_bytes(*size), speed);
  if (done > 0 && done < *size) {
    const double left = static_cast<double>(*size - done) / rate;
    line += "  " + human_ms(static_cast<uint64_t>(left * 1000)) + " left";
  }
  return line;
}

}  // namespace bigcast::cli
