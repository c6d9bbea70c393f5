#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace bigcast {

// How many letters must be put in, taken out or changed to make the one of the other (Levenshtein).
size_t edit_distance(std::string_view a, std::string_view b);

// The member of `candidates` with the least edit distance to `word`, or empty if all are far off:
// what somebody meant who mistyped.
std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates);

// "`what`; did you mean `near`?", or just `what` if `near` is empty.
std::string did_you_mean(const std::string& what, const std::string& near);

}  // namespace bigcast
