# What runs on machines that we don't know: the JNI and the Python library, in other people's processes,
# and the jar's bigcastd. They need glibc 2.28 (RHEL 8, Debian 10, Ubuntu 18.10) or newer and no other
# library.
if(DEFINED ENV{BIGCAST_CACHE})
  set(bigcast_cache $ENV{BIGCAST_CACHE})
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(bigcast_cache $ENV{XDG_CACHE_HOME}/bigcast)
else()
  set(bigcast_cache $ENV{HOME}/.cache/bigcast)
endif()
set(BIGCAST_STATIC_LIBRARIES ${bigcast_cache}/static-libraries
  CACHE PATH "What scripts/lib/static_libraries made")
if(EXISTS ${BIGCAST_STATIC_LIBRARIES}/versions)
  set(portable_possible ON)
else()
  set(portable_possible OFF)
endif()
option(BIGCAST_PORTABLE "Make what is shipped need glibc 2.28 and nothing else" ${portable_possible})

set(bigcast_oldest_glibc 2.28)
if(NOT BIGCAST_PORTABLE)
  message(STATUS "What is built needs libraries of this machine: BIGCAST_PORTABLE is off")
else()
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(stub_libraries ${CMAKE_BINARY_DIR}/stub_libraries)
  add_custom_command(
    OUTPUT ${stub_libraries}/libc.so
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/stub_libraries.py
      ${bigcast_oldest_glibc} ${stub_libraries}
    DEPENDS ${CMAKE_CURRENT_LIST_DIR}/stub_libraries.py
    VERBATIM)
  add_custom_target(bigcast_stub_libraries DEPENDS ${stub_libraries}/libc.so)
  add_library(bigcast_newer_glibc OBJECT ${CMAKE_CURRENT_LIST_DIR}/newer_glibc.c)
  target_compile_definitions(bigcast_newer_glibc PRIVATE _GNU_SOURCE)
  target_compile_options(bigcast_newer_glibc PRIVATE -Wall -Wextra)
  add_library(bigcast_old_start OBJECT ${CMAKE_CURRENT_LIST_DIR}/old_start.c)
  target_compile_options(bigcast_old_start PRIVATE -Wall -Wextra)
endif()

# bigcast_dependency(<name> SHARED <target> STATIC <archives>): bigcast::<name>, which is SHARED for all
# but portable targets, and STATIC for those.
function(bigcast_dependency name)
  cmake_parse_arguments(arg "" "SHARED" "STATIC" ${ARGN})
  set(portable $<BOOL:$<TARGET_PROPERTY:BIGCAST_IS_PORTABLE>>) # the target that links, at last
  add_library(bigcast_${name}_dependency INTERFACE)
  target_compile_definitions(bigcast_${name}_dependency INTERFACE
    $<TARGET_PROPERTY:${arg_SHARED},INTERFACE_COMPILE_DEFINITIONS>)
  target_include_directories(bigcast_${name}_dependency SYSTEM INTERFACE
    $<TARGET_PROPERTY:${arg_SHARED},INTERFACE_INCLUDE_DIRECTORIES>)
  target_link_libraries(bigcast_${name}_dependency INTERFACE $<$<NOT:${portable}>:${arg_SHARED}>)
  if(BIGCAST_PORTABLE)
    foreach(archive ${arg_STATIC})
      find_library(${archive}_path ${archive} REQUIRED HINTS ${BIGCAST_STATIC_LIBRARIES})
      target_link_libraries(bigcast_${name}_dependency INTERFACE $<${portable}:${${archive}_path}>)
    endforeach()
  endif()
  add_library(bigcast::${name} ALIAS bigcast_${name}_dependency)
endfunction()

# bigcast_portable(<target>)
function(bigcast_portable target)
  set_target_properties(${target} PROPERTIES BIGCAST_IS_PORTABLE ON)
  target_link_libraries(${target} PRIVATE bigcast_newer_glibc)
  add_dependencies(${target} bigcast_stub_libraries)
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${stub_libraries}/libc.so)
  target_link_options(${target} PRIVATE -L${stub_libraries} -static-libstdc++ -static-libgcc
    LINKER:--no-as-needed LINKER:--gc-sections)
endfunction()

# bigcast_portable_program(<target> <name> LINKS <libraries>): <build>/portable/<name>, of main.cc.
function(bigcast_portable_program target name)
  cmake_parse_arguments(arg "" "" "LINKS" ${ARGN})
  add_executable(${target} main.cc)
  target_link_libraries(${target} PRIVATE ${arg_LINKS} bigcast_old_start)
  bigcast_portable(${target})
  target_compile_definitions(${target} PRIVATE BIGCAST_OLDEST_GLIBC="${bigcast_oldest_glibc}")
  target_link_options(${target} PRIVATE LINKER:--wrap=__libc_start_main)
  set_target_properties(${target} PROPERTIES
    OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/portable)
endfunction()

# bigcast_guest(<target> <exports.map>): a library in a host process that is not ours: nothing of it
# may be seen by, or taken from, the other guests.
function(bigcast_guest target exports)
  target_link_options(${target} PRIVATE
    LINKER:--version-script=${exports} LINKER:--no-undefined LINKER:-Bsymbolic
    LINKER:--exclude-libs,ALL)
  set_target_properties(${target} PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${exports})
  if(BIGCAST_PORTABLE)
    bigcast_portable(${target})
  endif()
endfunction()
