// With libFuzzer: puts the good inputs into the corpus, its last argument.

#include <fstream>
#include <string>

#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::string corpus = (*argv)[*argc - 1];
  const auto seeds = fuzz_seeds();
  for (size_t i = 0; i < seeds.size(); i++) {
    std::ofstream(corpus + "/seed-" + std::to_string(i), std::ios::binary) << seeds[i];
  }
  return 0;
}
