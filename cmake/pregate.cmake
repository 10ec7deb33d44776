# One function for each kind of thing this project builds. Every target's dependencies are declared; tests/lint checks that the includes
# agree with the layers.

# PREGATE_DEPS_FOLDER: where deploy/install-deps.sh puts what is not a system package.
set(PREGATE_DEPS_FOLDER "$ENV{PREGATE_DEPS}")
if(NOT PREGATE_DEPS_FOLDER)
  set(_cache "$ENV{XDG_CACHE_HOME}")
  if(NOT _cache)
    set(_cache "$ENV{HOME}/.cache")
  endif()
  set(PREGATE_DEPS_FOLDER "${_cache}/pregate/deps")
endif()

# pregate_library(NAME SRCS file... [DEPS target...])
# A static library pregate_NAME of the files in this folder. Consumers include its headers by their path from the root
# ("core/base/clock.h").
function(pregate_library name)
  cmake_parse_arguments(arg "" "" "SRCS;DEPS" ${ARGN})
  add_library(pregate_${name} STATIC ${arg_SRCS})
  target_include_directories(pregate_${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(pregate_${name} PUBLIC ${arg_DEPS})
endfunction()

# pregate_program(NAME SRCS file... [DEPS target...])
# A program NAME in bin/. It finds the libraries that `cmake --install` puts beside it in lib/.
function(pregate_program name)
  cmake_parse_arguments(arg "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${arg_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${arg_DEPS})
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  install(TARGETS ${name} RUNTIME_DEPENDENCY_SET pregate_programs RUNTIME DESTINATION bin)
endfunction()

# Puts beside the installed programs every shared library that a machine with this distribution's C and C++ runtime may lack, but for
# LibTorch and NVIDIA's: those are found as docs/architecture.md says. Called once, after all programs.
function(pregate_install_libraries)
  install(RUNTIME_DEPENDENCY_SET pregate_programs
    PRE_EXCLUDE_REGEXES "^libtorch" "^libc10" "^libcud" "^libnv" "^libshm" "^libgomp" "^ld-linux"
    POST_EXCLUDE_REGEXES "/lib(c|m|dl|rt|pthread|resolv|stdc\\+\\+|gcc_s)\\.so[.0-9]*$"
    LIBRARY DESTINATION lib)
endfunction()

# pregate_test(NAME SRCS file... [DEPS target...] [LABEL fast|slow])
# A GoogleTest program NAME in bin/tests/, one CTest entry. Tests that need files find them below PREGATE_SOURCE_DIR.
function(pregate_test name)
  cmake_parse_arguments(arg "" "LABEL" "SRCS;DEPS" ${ARGN})
  if(NOT arg_LABEL)
    set(arg_LABEL fast)
  endif()
  add_executable(${name} ${arg_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE PREGATE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" PREGATE_BINARY_DIR="${CMAKE_BINARY_DIR}")
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/tests)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${arg_LABEL} TIMEOUT 600
    ENVIRONMENT "XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/cache;TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/tsan.supp;LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/lsan.supp;UBSAN_OPTIONS=print_stacktrace=1")
endfunction()
