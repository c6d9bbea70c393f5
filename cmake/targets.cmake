# What all our targets share.
add_library(bigcast_options INTERFACE)
target_include_directories(bigcast_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(bigcast_options INTERFACE -Wall -Wextra -Wno-unused-parameter -fvisibility=hidden)
# GCC 12 takes the unset half of a tl::expected for a value that is read (GCC bug 105562 and kin).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(bigcast_options INTERFACE -Wno-maybe-uninitialized)
endif()
if(BIGCAST_SANITIZE)
  target_compile_options(bigcast_options INTERFACE
    -fsanitize=${BIGCAST_SANITIZE} -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  if(BIGCAST_SANITIZE MATCHES "address")
    # A null pointer ends the run in any case, and vptr's check needs descriptors, which some tests take
    # away. Together they are a sixth of the time to compile.
    target_compile_options(bigcast_options INTERFACE -fno-sanitize=null,vptr)
  endif()
  target_link_options(bigcast_options INTERFACE -fsanitize=${BIGCAST_SANITIZE})
endif()

# bigcast_library(<folder> SOURCES <files> USES <targets>): the one static library of a folder.
function(bigcast_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;USES" ${ARGN})
  add_library(bigcast_${name} STATIC ${arg_SOURCES})
  target_link_libraries(bigcast_${name} PUBLIC bigcast_options ${arg_USES})
endfunction()

# bigcast_test(<folder> SOURCES <files> USES <targets>): the one doctest binary of a folder.
function(bigcast_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;USES;LABELS" ${ARGN})
  add_executable(test_${name} ${arg_SOURCES})
  target_link_libraries(test_${name} PRIVATE bigcast_test_main bigcast_options ${arg_USES})
  add_test(NAME ${name} COMMAND test_${name})
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT})
endfunction()
