# What every target of this project is built with, and the ways to declare one.

find_package(Threads REQUIRED)

add_library(gmlake_flags INTERFACE)
target_compile_options(gmlake_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  $<$<BOOL:${GMLAKE_WERROR}>:-Werror> $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>
  # GCC 12 sees an overlap in `"text" + std::string` where there is none (GCC bug 105651); 13 does not.
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)
set(gmlake_sanitizers ${GMLAKE_SANITIZE})
if(GMLAKE_FUZZ)
  string(APPEND gmlake_sanitizers ",fuzzer-no-link")
  string(REGEX REPLACE "^," "" gmlake_sanitizers "${gmlake_sanitizers}")
endif()
if(gmlake_sanitizers)
  target_compile_options(gmlake_flags INTERFACE -fsanitize=${gmlake_sanitizers} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(gmlake_flags INTERFACE -fsanitize=${gmlake_sanitizers})
  # For tests that fork beside busy threads: malloc is the sanitizer's then, and may be locked in the child for good.
  target_compile_definitions(gmlake_flags INTERFACE GMLAKE_SANITIZED=1)
endif()
if(GMLAKE_CHECKS STREQUAL "audit")
  target_compile_definitions(gmlake_flags INTERFACE GMLAKE_CHECK_LEVEL=2)
elseif(GMLAKE_CHECKS STREQUAL "debug" OR (GMLAKE_CHECKS STREQUAL "" AND CMAKE_BUILD_TYPE STREQUAL "Debug"))
  target_compile_definitions(gmlake_flags INTERFACE GMLAKE_CHECK_LEVEL=1)
endif()

# gmlake_layer(NAME SOURCES file... USES lower-layer...): one folder of src/, which sees only the layers below it.
# A static library, so that whoever links a layer gets those below it too; src/CMakeLists.txt merges the layers that
# are installed into the one library `gmlake`.
function(gmlake_layer name)
  cmake_parse_arguments(arg "" "" "SOURCES;USES" ${ARGN})
  add_library(gmlake_${name} STATIC ${arg_SOURCES})
  target_include_directories(gmlake_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
  target_compile_features(gmlake_${name} PUBLIC cxx_std_20)
  if(NOT BUILD_SHARED_LIBS)  # a shared library of the C++ interface exports all of it
    set_target_properties(gmlake_${name} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  endif()
  target_link_libraries(gmlake_${name} PRIVATE gmlake_flags PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
  foreach(lower IN LISTS arg_USES)
    target_link_libraries(gmlake_${name} PUBLIC gmlake_${lower})
  endforeach()
endfunction()

# gmlake_test(NAME SOURCES file... LINKS library... LABELS label...): a GoogleTest program, one ctest entry per test.
function(gmlake_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINKS} gmlake_flags GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE GMLAKE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  # The tests themselves would take twice as long to compile in full. The library is as users get it, but for inline
  # functions of its headers that a test compiles too; what checks figures is compiled like them.
  if(GMLAKE_SANITIZE)
    target_compile_options(${name} PRIVATE -O0)
  elseif(NOT "figures" IN_LIST arg_LABELS)
    target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  endif()
  set_target_properties(${name} PROPERTIES UNITY_BUILD ${GMLAKE_UNITY_TESTS} UNITY_BUILD_BATCH_SIZE 10)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES LABELS "${arg_LABELS}")
endfunction()

# gmlake_fuzzer(NAME SOURCES file... LINKS library... RUNS number): a libFuzzer program, built with GMLAKE_FUZZ alone. Its
# ctest entry makes that many runs from the seeds in corpus/<name without _fuzzer>, with the words of <that>.dict where
# there is one; the target `fuzzers` builds them all.
function(gmlake_fuzzer name)
  if(NOT GMLAKE_FUZZ)
    return()
  endif()
  cmake_parse_arguments(arg "" "RUNS" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINKS} gmlake_flags)
  # Not position-independent: the allocator of AddressSanitizer has a fixed place in the address space, which a program
  # that the kernel puts anywhere may lie across.
  target_link_options(${name} PRIVATE -fsanitize=fuzzer -no-pie)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  if(NOT TARGET fuzzers)
    add_custom_target(fuzzers)
  endif()
  add_dependencies(fuzzers ${name})
  string(REPLACE "_fuzzer" "" subject ${name})
  set(found ${CMAKE_CURRENT_BINARY_DIR}/found/${subject})
  file(MAKE_DIRECTORY ${found})
  set(seeds ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${subject})
  if(NOT IS_DIRECTORY ${seeds})
    set(seeds "")
  endif()
  set(words "")
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${subject}.dict)
    set(words -dict=${CMAKE_CURRENT_SOURCE_DIR}/${subject}.dict)
  endif()
  add_test(NAME fuzz.${subject} COMMAND ${name} -runs=${arg_RUNS} -seed=1 -max_len=4096 -rss_limit_mb=2048
    -print_final_stats=1 ${words} ${found} ${seeds})
  set_tests_properties(fuzz.${subject} PROPERTIES LABELS fuzz)
endfunction()
