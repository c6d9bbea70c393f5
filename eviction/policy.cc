#include "eviction/policy.h"

#include "eviction/arc.h"
#include "eviction/clock.h"
#include "eviction/demand.h"
#include "eviction/fifo.h"
#include "eviction/gdsf.h"
#include "eviction/lru.h"
#include "eviction/s3fifo.h"
#include "eviction/sieve.h"

namespace bigcast::eviction {

std::unique_ptr<Policy> make_policy(std::string_view name, uint64_t capacity) {
  if (name == "fifo") return std::make_unique<Fifo>();
  if (name == "lru") return std::make_unique<Lru>();
  if (name == "clock") return std::make_unique<Clock>();
  if (name == "sieve") return std::make_unique<Sieve>();
  if (name == "s3fifo") return std::make_unique<S3Fifo>(capacity);
  if (name == "arc") return std::make_unique<Arc>(capacity);
  if (name == "gdsf") return std::make_unique<Gdsf>();
  if (name == "demand") return std::make_unique<Demand>();
  return nullptr;
}

}  // namespace bigcast::eviction
