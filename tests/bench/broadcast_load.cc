#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ostream>
#include <random>
#include <utility>

#include "base/limits.h"
#include "tests/bench/broadcast.h"

namespace bigcast::bench {
namespace {

constexpr int kApplications = 60;
constexpr double kStartsWithinS = 2 * 3600;
constexpr std::array kExecutors = {10, 20, 50, 100, 200};
constexpr std::array kBlobsPerJob = {1, 1, 2, 3};
constexpr std::array kReadProbabilities = {1.0, 1.0, 0.6, 0.3};
constexpr double kCreatedWithinS = 5;
constexpr double kReadDelayMeanS = 6;
constexpr double kStragglers = 0.07;
constexpr double kLongLived = 0.08;
constexpr double kReleaseDelayS = 60;

// Log-uniform sizes, a class of them with its probability.
struct SizeClass {
  double probability, min, max;
};
constexpr double kK = limits::kKiB, kM = limits::kMiB, kG = limits::kGiB;
constexpr std::array kSizes = {SizeClass{0.35, 4 * kK, 512 * kK}, SizeClass{0.5, 1 * kM, 256 * kM},
                               SizeClass{0.13, 0.5 * kG, 3 * kG}, SizeClass{0.02, 4 * kG, 10 * kG}};

// The standard's distributions differ between libraries; its engines do not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double uniform(double min, double max) {
    return min + (max - min) * static_cast<double>(engine_() >> 11) * 0x1p-53;
  }
  bool chance(double probability) { return uniform(0, 1) < probability; }
  double exponential(double mean) { return -mean * std::log1p(-uniform(0, 1)); }
  template <typename Array>
  auto pick(const Array& values) {
    return values[engine_() % values.size()];
  }
  uint64_t size() {
    double at = uniform(0, 1);
    size_t i = 0;
    while (i + 1 < kSizes.size() && at >= kSizes[i].probability) at -= kSizes[i++].probability;
    return static_cast<uint64_t>(
        std::exp(uniform(std::log(kSizes[i].min), std::log(kSizes[i].max))));
  }

 private:
  std::mt19937_64 engine_;
};

class Load {
 public:
  explicit Load(uint64_t seed) : random_(seed) {}

  void write(std::ostream& trace) {
    for (int app = 0; app < kApplications; ++app) add_application(app);
    std::stable_sort(lines_.begin(), lines_.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [time, rest] : lines_)
      trace << fmt::format("{{\"t\":{:.6f},{}}}\n", time, rest);
  }

 private:
  struct Job {
    double start, end;
  };

  void add_application(int app) {
    double time = random_.uniform(0, kStartsWithinS);
    const int executors = random_.pick(kExecutors);
    std::vector<Job> jobs(3 + static_cast<size_t>(random_.uniform(0, 23)));
    for (Job& job : jobs) {
      job = {time, time + random_.uniform(20, 240)};
      time = job.end;
    }
    for (size_t job = 0; job < jobs.size(); ++job) {
      const int blobs = random_.pick(kBlobsPerJob);
      for (int i = 0; i < blobs; ++i) add_blob(app, executors, jobs, job);
    }
  }

  void add_blob(int app, int executors, const std::vector<Job>& jobs, size_t job) {
    const int blob = blobs_++;
    const double created = jobs[job].start + random_.uniform(0, kCreatedWithinS);
    const bool long_lived = random_.chance(kLongLived);
    const double probability = random_.pick(kReadProbabilities);
    add(created,
        fmt::format(R"("op":"put","blob":{},"app":{},"bytes":{})", blob, app, random_.size()));
    const std::string read = fmt::format(R"("op":"read","blob":{},"app":{})", blob, app);
    for (size_t i = job; i < (long_lived ? jobs.size() : job + 1); ++i) {
      const double from = i == job ? created : jobs[i].start;
      for (int executor = 0; executor < executors; ++executor) {
        if (!random_.chance(probability)) continue;
        const double delayed = from + random_.exponential(kReadDelayMeanS);
        const bool late = random_.chance(kStragglers) || delayed > jobs[i].end;
        add(late ? random_.uniform(from, jobs[i].end) : delayed, read);
      }
    }
    add(long_lived ? jobs.back().end : jobs[job].end + kReleaseDelayS,
        fmt::format(R"("op":"release","blob":{})", blob));
  }

  void add(double time, std::string rest) { lines_.emplace_back(time, std::move(rest)); }

  Random random_;
  int blobs_ = 0;
  std::vector<std::pair<double, std::string>> lines_;
};

}  // namespace

void generate_broadcast(uint64_t seed, std::ostream& trace) { Load(seed).write(trace); }

}  // namespace bigcast::bench
