#include "blobstore/memfd.h"

#include <fstream>

#include "base/pages.h"
#include "tests/blobstore/store_support.h"

namespace bigcast {
namespace {

uint64_t pages_of(Memfd& file) { return allocated_bytes(file.descriptor_up_to(0).value()); }

}  // namespace

TEST_CASE("what a kernel says of large pages") {
  const TemporaryDirectory directory;
  CHECK(large_pages_in(directory.path) == LargePages::kNever);
  const auto in = [&](const std::string& modes, const char* size = "2097152\n") {
    std::ofstream(directory.path + "/shmem_enabled") << modes;
    std::ofstream(directory.path + "/hpage_pmd_size") << size;
    return large_pages_in(directory.path);
  };
  CHECK(in("always within_size advise [never] deny force\n") == LargePages::kNever);
  CHECK(in("always within_size advise never [deny] force\n") == LargePages::kNever);
  CHECK(in("always within_size [advise] never deny force\n") == LargePages::kToWhoAsks);
  CHECK(in("always within_size [advise] never deny force\n", "536870912\n") == LargePages::kNever);
  CHECK(in("always [within_size] advise never deny force\n") == LargePages::kUnasked);
  CHECK(in("[always] within_size advise never deny force\n") == LargePages::kUnasked);
  CHECK(in("always within_size advise never deny [force]\n") == LargePages::kUnasked);
}

// Whether the kernel gives large pages or not: what asks for them must work as what does not.
TEST_CASE("a write takes the pages that it fills, whether it asks for large ones or not") {
  constexpr uint64_t kPlace = 2 * kLargePage;
  for (const bool large : {false, true}) {
    CAPTURE(large);
    const auto file = Memfd::create("test", large).value();
    uint64_t expected = 0;
    uint64_t place = 7;  // the first is far from the file's beginning
    for (const uint64_t size :
         {kPlace, kLargePage, kLargePage + 5 * kPage + 1, kLargePage - 1, kPage}) {
      for (const uint64_t offset : {place * kPlace, (place - 5) * kPlace + kPage}) {
        CAPTURE(size);
        CAPTURE(offset);
        const Bytes bytes = noise(size, offset);
        const uint64_t room = std::min(size, kPlace - offset % kPlace);
        const std::span<const std::byte> fitting(bytes.data(), room);
        REQUIRE(file->write(offset, fitting));
        expected += whole_pages(room);
        CHECK(pages_of(*file) == expected);
        Bytes back(room);
        REQUIRE(file->read(offset, back));
        CHECK(std::ranges::equal(back, fitting));
        CHECK(std::ranges::equal(file->view(offset, room).value(), fitting));
        file->punch(offset, whole_pages(room));
        CHECK(pages_of(*file) == expected - whole_pages(room));
        REQUIRE(file->write(offset, fitting));
        CHECK(pages_of(*file) == expected);
      }
      ++place;
    }
    REQUIRE(file->freeze());
    CHECK(code_of(file->write(0, noise(kPlace, 1))) == ErrorCode::kIo);
    CHECK(pages_of(*file) == expected);
  }
}

}  // namespace bigcast
