# Each SIMD unit of the CPU attention gets the flags of its own instruction set, and nothing else does: which unit runs
# is decided at run time (attention_isa.cpp). Processors other than x86-64 compile the scalar unit alone.
if(CMAKE_OSX_ARCHITECTURES)
  set(PARO_TARGET_CPU "${CMAKE_OSX_ARCHITECTURES}")
else()
  set(PARO_TARGET_CPU "${CMAKE_SYSTEM_PROCESSOR}")
endif()

if(PARO_TARGET_CPU MATCHES "^(x86_64|AMD64|amd64)$")
  if(MSVC)
    set(PARO_AVX2_FLAGS /arch:AVX2)
    set(PARO_AVX512_FLAGS /arch:AVX512)
    set(PARO_AVX512_VNNI_FLAGS /arch:AVX512)
  else()
    # -ffp-contract=off: an a * b + c that the source spells out stays two roundings on every instruction set.
    # The kernels rely on full unrolling, hence -O3 in every optimised build.
    set(PARO_SIMD_FLAGS -ffp-contract=off $<$<NOT:$<CONFIG:Debug>>:-O3>)
    set(PARO_AVX2_FLAGS -mavx2 -mfma -mf16c ${PARO_SIMD_FLAGS})
    # -Wno-*uninitialized: GCC 12 warns about its own intrinsics headers.
    set(PARO_AVX512_FLAGS -Wno-uninitialized -Wno-maybe-uninitialized -mavx512f -mavx512bw -mavx512vl -mavx512dq ${PARO_AVX2_FLAGS})
    set(PARO_AVX512_VNNI_FLAGS -mavx512vnni ${PARO_AVX512_FLAGS})
  endif()
  set_source_files_properties(src/cpu/attention_kernels_avx2.cpp PROPERTIES COMPILE_OPTIONS "${PARO_AVX2_FLAGS}")
  set_source_files_properties(src/cpu/attention_kernels_avx512.cpp PROPERTIES COMPILE_OPTIONS "${PARO_AVX512_FLAGS}")
  set_source_files_properties(src/cpu/attention_kernels_avx512_vnni.cpp PROPERTIES COMPILE_OPTIONS
                                                                              "${PARO_AVX512_VNNI_FLAGS}")
endif()
