# paro_add_kernels(target ARCHITECTURES a... SOURCES x.cu...): compiles device code and adds it to a target.
#
# PARO_CUDA_ARCHITECTURES: as CMAKE_CUDA_ARCHITECTURES, which it defaults to: 80-real is a cubin, 80-virtual PTX, 80 both.
# PARO_NVRTC: libnvrtc of another toolkit than nvcc's, to compile with in its place; PARO_NVRTC_INCLUDE: its headers.
find_package(Python REQUIRED COMPONENTS Interpreter)

if(NOT CMAKE_CUDA_COMPILER)
  find_program(CMAKE_CUDA_COMPILER nvcc HINTS ENV CUDACXX ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin
               DOC "nvcc, which compiles the kernels")
endif()
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "Failed to find nvcc: PARO_BUILD_CUDA needs the CUDA toolkit (got no nvcc on the path, in CUDA_PATH or "
                      "/usr/local/cuda): install it, or name nvcc by -DCMAKE_CUDA_COMPILER")
endif()
get_filename_component(PARO_TOOLKIT_BIN ${CMAKE_CUDA_COMPILER} DIRECTORY)
find_program(PARO_FATBINARY fatbinary HINTS ${PARO_TOOLKIT_BIN} REQUIRED DOC "fatbinary, which comes with nvcc")
set(PARO_NVRTC "" CACHE FILEPATH "libnvrtc to compile the kernels with in place of nvcc")
set(PARO_NVRTC_INCLUDE "" CACHE STRING "Folders of cuda_fp16.h and the like for PARO_NVRTC")
option(PARO_LINE_INFO "Line numbers in the kernels, for compute-sanitizer and ncu; several times the size" OFF)
if(NOT PARO_CUDA_ARCHITECTURES)
  set(PARO_CUDA_ARCHITECTURES ${CMAKE_CUDA_ARCHITECTURES})
endif()
if(NOT PARO_CUDA_ARCHITECTURES)
  set(PARO_CUDA_ARCHITECTURES "80-real;86-real;89-real;90a-real;100-real;120")
endif()

set(PARO_DEVICE_TOOLS ${CMAKE_CURRENT_LIST_DIR}/tools)
set(PARO_DEVICE_FLAGS -DNDEBUG $<$<BOOL:${PARO_LINE_INFO}>:-lineinfo> -I${CMAKE_CURRENT_LIST_DIR}/include
                      -I${CMAKE_CURRENT_LIST_DIR}/src -I${PROJECT_SOURCE_DIR}/native/core/include)
if(PARO_NVRTC)
  set(PARO_DEVICE_COMPILER ${Python_EXECUTABLE} ${PARO_DEVICE_TOOLS}/nvrtc_compile.py --nvrtc ${PARO_NVRTC} --std=c++20
                           -default-device)
  foreach(folder ${PARO_DEVICE_TOOLS}/nvrtc_std ${PARO_NVRTC_INCLUDE})
    list(APPEND PARO_DEVICE_FLAGS -I${folder})
  endforeach()
  execute_process(
    COMMAND ${PARO_DEVICE_COMPILER} --version COMMAND_ERROR_IS_FATAL ANY
    OUTPUT_VARIABLE PARO_TOOLKIT_TEXT)
else()
  set(PARO_DEVICE_COMPILER ${CMAKE_CUDA_COMPILER} -std=c++20 -O3 --expt-relaxed-constexpr -MD)
  execute_process(
    COMMAND ${CMAKE_CUDA_COMPILER} --version COMMAND_ERROR_IS_FATAL ANY
    OUTPUT_VARIABLE PARO_TOOLKIT_TEXT)
endif()
if(NOT PARO_TOOLKIT_TEXT MATCHES "release ([0-9]+)\\.([0-9]+)")
  message(FATAL_ERROR "the compiler of the kernels must tell its release (got \"${PARO_TOOLKIT_TEXT}\")")
endif()
math(EXPR PARO_CUDA_VERSION "${CMAKE_MATCH_1} * 1000 + ${CMAKE_MATCH_2} * 10")
# "size" is a third of "speed", but drivers read it only from 550 on. Those of CUDA 12 begin at 525.
if(PARO_CUDA_VERSION LESS 13000)
  set(PARO_COMPRESSION speed CACHE STRING "How fat binaries are compressed: fatbinary --help")
else()
  set(PARO_COMPRESSION size CACHE STRING "How fat binaries are compressed: fatbinary --help")
endif()
message(STATUS "Kernels: CUDA ${CMAKE_MATCH_1}.${CMAKE_MATCH_2} for ${PARO_CUDA_ARCHITECTURES}")

# One compilation: `kind` is cubin or ptx.
function(paro_compile_kernels source kind architecture output)
  set(then "")
  set(tools $<$<BOOL:${PARO_NVRTC}>:${PARO_DEVICE_TOOLS}/nvrtc_compile.py>)
  # For racecheck: the same machine code but for its arrivals.
  if(PARO_EVERY_LANE_ARRIVES AND kind STREQUAL "cubin" AND source MATCHES "attention_hopper_int8_")
    set(then COMMAND ${Python_EXECUTABLE} ${PARO_DEVICE_TOOLS}/every_lane_arrives.py ${output})
    list(APPEND tools ${PARO_DEVICE_TOOLS}/every_lane_arrives.py)
  endif()
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${PARO_DEVICE_COMPILER} ${PARO_DEVICE_FLAGS} -${kind} -arch=${architecture} ${source} -o ${output} -MF ${output}.d
    ${then}
    DEPENDS ${source} ${tools}
    DEPFILE ${output}.d
    COMMENT "Compiling ${kind} ${output}"
    VERBATIM COMMAND_EXPAND_LISTS)
endfunction()

function(paro_add_kernels target)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "ARCHITECTURES;SOURCES")
  foreach(source ${ARG_SOURCES})
    get_filename_component(name ${source} NAME_WE)
    set(base ${CMAKE_CURRENT_BINARY_DIR}/${name})
    # Kernels of sm_90a run nowhere else: where that is among the architectures, no other is compiled.
    set(architectures ${ARG_ARCHITECTURES})
    if(name MATCHES hopper AND architectures MATCHES 90a)
      list(FILTER architectures INCLUDE REGEX 90a)
    endif()
    set(files "")
    set(images "")
    foreach(architecture ${architectures})
      string(REGEX REPLACE "-.*" "" number ${architecture})
      if(NOT architecture MATCHES "-virtual$")
        set(file ${base}.sm_${number}.cubin)
        paro_compile_kernels(${source} cubin sm_${number} ${file})
        list(APPEND files ${file})
        list(APPEND images --image3=kind=elf,sm=${number},file=${file})
      endif()
      if(NOT architecture MATCHES "-real$")
        set(file ${base}.compute_${number}.ptx)
        paro_compile_kernels(${source} ptx compute_${number} ${file})
        list(APPEND files ${file})
        list(APPEND images --image3=kind=ptx,sm=${number},file=${file})
      endif()
    endforeach()
    add_custom_command(
      OUTPUT ${base}.image.cpp
      BYPRODUCTS ${base}.fatbin
      COMMAND ${PARO_FATBINARY} --create=${base}.fatbin -64 --compress-all --compress-mode=${PARO_COMPRESSION} ${images}
      COMMAND ${Python_EXECUTABLE} ${PARO_DEVICE_TOOLS}/embed_kernels.py ${base}.image.cpp ${base}.fatbin ${files}
      DEPENDS ${files} ${PARO_DEVICE_TOOLS}/embed_kernels.py
      COMMENT "Embedding the kernels of ${name}"
      VERBATIM)
    target_sources(${target} PRIVATE ${base}.image.cpp)
  endforeach()
endfunction()
