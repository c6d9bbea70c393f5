#include "tests/bench/policy_cost.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#include "eviction/policy.h"

namespace bigcast::bench {
namespace {

using eviction::Entry;

constexpr size_t kBatches = 1001;
constexpr size_t kBatch = 512;
constexpr uint64_t kChunksPerBlob = 1024;
constexpr uint64_t kStreams = 256;

Entry entry_at(uint64_t number) {
  return eviction::entry_of(number / kChunksPerBlob,
                            static_cast<uint32_t>(number % kChunksPerBlob));
}

// The median over batches of what an operation takes; `prepare` is not part of it.
template <typename Prepare, typename Operation>
double median_ns(Prepare prepare, Operation operation) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> ns;
  std::vector<Entry> entries(kBatch);
  for (size_t batch = 0; batch < kBatches; ++batch) {
    for (Entry& entry : entries) entry = prepare();
    const auto begin = Clock::now();
    for (const Entry entry : entries) operation(entry);
    ns.push_back(std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / kBatch);
  }
  std::nth_element(ns.begin(), ns.begin() + kBatches / 2, ns.end());
  return ns[kBatches / 2];
}

class Measurement {
 public:
  Measurement(std::unique_ptr<eviction::Policy> policy, uint64_t chunks)
      : policy_(std::move(policy)), chunks_(chunks) {
    for (uint64_t i = 0; i < chunks_; ++i) policy_->insert(entry_at(i), 1);
    for (uint64_t i = 0; i < chunks_; ++i) policy_->hit(any_entry());
    for (uint64_t i = 0; i < kStreams; ++i) {
      policy_->open_stream(i, random_() % (chunks_ / kChunksPerBlob + 1),
                           eviction::ReadOrder::kAscending);
    }
  }

  PolicyCost run() {
    PolicyCost cost;
    cost.hit_ns =
        median_ns([this] { return any_entry(); }, [this](Entry entry) { policy_->hit(entry); });
    uint64_t step = 0;
    cost.stream_ns =
        median_ns([this] { return any_entry(); },
                  [this, &step](Entry entry) {
                    policy_->hit(entry);
                    policy_->advance_stream(
                        step % kStreams, static_cast<uint32_t>(step / kStreams % kChunksPerBlob));
                    ++step;
                  });
    uint64_t next = chunks_;
    cost.miss_ns = median_ns([&next] { return entry_at(next++); },
                             [this](Entry entry) {
                               policy_->expect(entry, 1);
                               policy_->evict();
                               policy_->insert(entry, 1);
                             });
    return cost;
  }

 private:
  Entry any_entry() { return entry_at(random_() % chunks_); }

  std::unique_ptr<eviction::Policy> policy_;
  uint64_t chunks_;
  std::mt19937_64 random_{1};
};

}  // namespace

std::optional<PolicyCost> measure_policy(std::string_view name, uint64_t chunks) {
  auto policy = eviction::make_policy(name, chunks);
  if (!policy) return std::nullopt;
  return Measurement(std::move(policy), chunks).run();
}

}  // namespace bigcast::bench
