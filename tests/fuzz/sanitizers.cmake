# The whole build with sanitizers: what is not instrumented hides what goes wrong in it.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang" OR MSVC)
  message(FATAL_ERROR "PARO_BUILD_FUZZ and PARO_BUILD_RACES need Clang, and this is ${CMAKE_CXX_COMPILER_ID} "
                      "(${CMAKE_CXX_COMPILER}): install clang, and pass -DCMAKE_CXX_COMPILER=clang++ "
                      "-DCMAKE_C_COMPILER=clang")
endif()
if(PARO_BUILD_FUZZ AND PARO_BUILD_RACES)
  message(FATAL_ERROR "PARO_BUILD_FUZZ and PARO_BUILD_RACES must not both be on: ASan and TSan exclude each other. "
                      "Use a build folder for each")
endif()
if(PARO_BUILD_FUZZ)
  # float-divide-by-zero and unsigned wrap are no undefined behaviour here, and stay off as in Clang's own group.
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=address,undefined)
else()
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=thread)
endif()
# Not -O3: its unrolling makes the SIMD units take minutes under sanitizers.
set(CMAKE_CXX_FLAGS_RELEASE "-O2")
