// Stands in for libFuzzer: alters good inputs, always in the same way. With arguments it runs the
// inputs in those files instead (as libFuzzer does); with --seeds DIR it writes the good inputs
// there.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/target.h"

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr int kRounds = 5'000;  // in as much time
#else
constexpr int kRounds = 20'000;
#endif

void run(const std::string& input) {
  // Exactly as large as it is, for the sanitizers.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

class Mutator {
 public:
  // One to four changes: bits, bytes, numbers that are often wrong, pieces cut, doubled or moved.
  std::string change(std::string text) {
    for (uint32_t i = below(4) + 1; i > 0; i--) change_once(text);
    return text;
  }

 private:
  uint32_t below(size_t limit) { return static_cast<uint32_t>(random_() % limit); }

  void change_once(std::string& text) {
    constexpr uint64_t kNumbers[] = {0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, uint64_t{1} << 60};
    if (text.empty()) text.push_back(static_cast<char>(below(256)));
    const uint32_t at = below(text.size());
    const uint32_t size = 1 + below(std::min<size_t>(16, text.size() - at));
    switch (below(6)) {
      case 0:
        text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        text[at] = static_cast<char>(below(256));
        break;
      case 2: {
        const uint64_t number = kNumbers[below(std::size(kNumbers))];
        for (uint32_t i = 0; i < size && i < 8; i++) {
          text[at + i] = static_cast<char>(number >> (8 * i));
        }
        break;
      }
      case 3:
        text.erase(at, size);
        break;
      case 4:
        text.insert(at, text.substr(at, size));
        break;
      default:
        text.replace(at, size, text.substr(below(text.size()), size));
    }
  }

  std::mt19937 random_;  // the same numbers every time
};

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; i++) {
    std::ifstream file(argv[i], std::ios::binary);
    run(std::string(std::istreambuf_iterator<char>(file), {}));
  }
  if (argc > 1) return 0;
  run("");
  const auto seeds = fuzz_seeds();
  Mutator mutator;
  for (const std::string& seed : seeds) {
    run(seed);
    std::string input = seed;
    for (int i = 0; i < kRounds / static_cast<int>(seeds.size()); i++) {
      // Changes pile up for a while: what is nearly good gets further than what is not.
      if (i % 8 == 0) input = seed;
      input = mutator.change(std::move(input));
      run(input);
    }
  }
  return 0;
}
