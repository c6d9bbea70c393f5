#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// What each file beside this one defines. It aborts when what it tests does what it must not; that
// nothing is read or written out of bounds is the sanitizers' to see.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Inputs that are good, to begin with.
std::vector<std::string> fuzz_seeds();
