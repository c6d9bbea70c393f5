#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <thread>

#include "client_native/cli/commands.h"
#include "client_native/cli/nodes.h"
#include "client_native/cli/output.h"

namespace bigcast::cli {

namespace {

using Clock = std::chrono::steady_clock;

// A node that is asked again and again, and may come and go meanwhile.
class Watched {
 public:
  explicit Watched(std::string server) : server_(std::move(server)) {}

  // Since the last look, if that saw the same process.
  Result<NodeRates> look(const CommandLine& line) {
    if (!client_) {
      BIGCAST_ASSIGN(client_, connect_to(line, {server_}, line.any_namespace));
    }
    auto report = client_->report();
    if (!report) return tl::unexpected(report.error());
    const auto now = Clock::now();
    NodeRates rates{.now = *report};
    if (before_ && before_->summary.epoch == report->summary.epoch) {
      rates.seconds = std::chrono::duration<double>(now - looked_at_).count();
      const auto rate = [&](uint64_t then, uint64_t value) {
        return per_second(value - std::min(then, value), rates.seconds);
      };
      rates.received = rate(before_->received_bytes, report->received_bytes);
      rates.served = rate(before_->served_bytes, report->served_bytes);
      rates.fetched = rate(before_->fetched_home_bytes + before_->fetched_peer_bytes,
                           report->fetched_home_bytes + report->fetched_peer_bytes);
    }
    before_ = std::move(*report);
    looked_at_ = now;
    return rates;
  }
  const std::string& server() const { return server_; }

 private:
  const std::string server_;
  std::unique_ptr<Client> client_;
  std::optional<NodeReport> before_;
  Clock::time_point looked_at_;
};

class Table {
 public:
  explicit Table(const CommandLine& line)
      : line_(line), is_terminal_(!line.json && isatty(STDOUT_FILENO) == 1) {
    for (const auto& server : servers_of(line)) nodes_.emplace_back(server);
  }

  uint32_t repetitions() const { return line_.repetitions.value_or(is_terminal_ ? UINT32_MAX : 1); }

  // A person sees something at once; for a program the first rates are to be rates of something.
  void begin() {
    if (is_terminal_) return;
    for (Watched& node : nodes_) {
      [[maybe_unused]] const auto told_by_show = node.look(line_);
    }
    pause();
  }

  void pause() const { std::this_thread::sleep_for(std::chrono::milliseconds(line_.interval_ms)); }

  // On a terminal an unreachable node is a line of the table, elsewhere an error.
  Result<void> show() {
    Outcome outcome(line_.json);
    std::string text = line_.json ? "" : top_header();
    for (Watched& node : nodes_) {
      const auto rates = node.look(line_);
      if (rates) {
        text += line_.json ? json_of(*rates) : line_of(*rates);
      } else if (is_terminal_) {
        text += fmt::format("{:<22} {}\n", node.server(), rates.error().to_string());
      } else {
        outcome.add(tl::unexpected(rates.error()));
      }
    }
    BIGCAST_TRY(print(is_terminal_ ? screen_of(text) : text));
    return outcome.first();
  }

 private:
  // In place of the screen before: overwritten and not cleared first, which would flicker.
  std::string screen_of(const std::string& table) const {
    std::string screen =
        fmt::format("\033[Hbigcast top   {:%H:%M:%S}   every {} ms, Ctrl-C ends\n\n{}",
                    fmt::localtime(std::time(nullptr)), line_.interval_ms, table);
    for (size_t at = 0; (at = screen.find('\n', at)) != std::string::npos; at += 4) {
      screen.insert(at, "\033[K");
    }
    return screen + "\033[J";
  }

  const CommandLine& line_;
  const bool is_terminal_;
  std::vector<Watched> nodes_;
};

}  // namespace

Result<void> top(const CommandLine& line) {
  Table table(line);
  table.begin();
  Result<void> outcome;
  for (uint32_t i = 0; i < table.repetitions(); i++) {
    if (i > 0) table.pause();
    outcome = table.show();
    if (!outcome && is_broken_pipe(outcome.error())) return outcome;
  }
  return outcome;
}

}  // namespace bigcast::cli
