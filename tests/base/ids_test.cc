#include "base/ids.h"

#include <doctest/doctest.h>

#include <string>

#include "base/limits.h"

namespace bigcast {

TEST_CASE("an id survives its text form") {
  const Id128 id = Id128::random();
  CHECK_FALSE(id.is_zero());
  CHECK(Id128::parse(id.to_string()).value() == id);
  CHECK(Id128::parse("00000000000000010000000000000002").value() == Id128{1, 2});
  CHECK(Id128::random() != id);
}

TEST_CASE("a text that is no id is refused") {
  for (const char* text :
       {"", "1", "0000000000000001000000000000000g", "000000000000000100000000000000020"}) {
    CAPTURE(text);
    CHECK(Id128::parse(text).error().code == ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("namespaces and names that are allowed") {
  CHECK(check_namespace("team-a.prod_1"));
  CHECK(check_namespace(std::string(limits::kNamespaceSizeMax, 'a')));
  CHECK(check_name("a/b.c/ü €"));
  CHECK(check_name("\xF0\x9F\x98\x80"));
  CHECK(check_name(std::string(limits::kNameSizeMax, 'x')));
  CHECK(Key::parse("a/b/c").value().name == "b/c");
}

TEST_CASE("bad names are INVALID_ARGUMENT and the message names the part") {
  using namespace std::string_literals;
  const std::string bad_names[] = {""s,
                                   "../x"s,
                                   "a/../b"s,
                                   "a//b"s,
                                   "/a"s,
                                   "a/"s,
                                   "."s,
                                   "a\0b"s,
                                   "a\nb"s,
                                   "\xC0\x80"s,
                                   "\xED\xA0\x80"s,
                                   "\xFF"s,
                                   "\xE2\x82"s,
                                   "\xF5\x80\x80\x80"s,
                                   std::string(4096, 'x')};
  for (const std::string& name : bad_names) {
    CAPTURE(name);
    const auto result = check_name(name);
    REQUIRE_FALSE(result);
    CHECK(result.error().code == ErrorCode::kInvalidArgument);
    CHECK(result.error().message.starts_with("name:"));
  }
  for (const std::string& name_space :
       {""s, "a/b"s, "a b"s, ".hidden"s, "ü"s, std::string(129, 'a')}) {
    CAPTURE(name_space);
    CHECK(check_namespace(name_space).error().message.starts_with("namespace:"));
  }
  CHECK(Key::parse("no-slash").error().message.starts_with("key:"));
}

}  // namespace bigcast
