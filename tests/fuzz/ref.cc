// A ref, as a task gets it in the handle of a broadcast: one flat Cap'n Proto message.

#include <cstdlib>

#include "base/limits.h"
#include "rpc/convert.h"
#include "tests/fuzz/target.h"

using bigcast::rpc::BlobRefData;

std::vector<std::string> fuzz_seeds() {
  BlobRefData ref;
  ref.id = {1, 2};
  ref.chunk_size = bigcast::limits::kChunkSizeDefault;
  ref.name_space = "app";
  const std::string least = ref.to_bytes();
  ref.size = 123'456'789;
  ref.root_digest = {3, 4};
  ref.name = "broadcast/7";
  ref.stripes = 2;
  ref.homes = {*bigcast::rpc::Address::parse("10.0.0.1:7420"),
               *bigcast::rpc::Address::parse("10.0.0.2:7420")};
  return {least, ref.to_bytes(), ref.of_stripe(1).to_bytes()};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto ref = BlobRefData::from_bytes({reinterpret_cast<const char*>(data), size});
  if (!ref) return 0;
  // What is taken for a ref can be passed on, and means the same there.
  const std::string bytes = ref->to_bytes();
  const auto again = BlobRefData::from_bytes(bytes);
  if (!again || again->to_bytes() != bytes) std::abort();
  return 0;
}
