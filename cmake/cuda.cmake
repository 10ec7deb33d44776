# Enables CUDA with the compiler in CUDACXX or /usr/local/cuda, else with the one that `deploy/install-deps.sh --cuda` fetched, and defines
#   pregate_cuda_runtime   headers and the shared runtime library, for C++ files
# sm_86 is the reference card; its PTX is shipped too, for the cards between and after; sm_90 is what the figures are measured on.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(_toolkit "${PREGATE_DEPS_FOLDER}/cuda/nvidia/cu13")
  if(EXISTS /usr/local/cuda/bin/nvcc)
    set(_toolkit /usr/local/cuda)
  elseif(NOT EXISTS "${_toolkit}/bin/nvcc")
    message(FATAL_ERROR "no CUDA compiler in /usr/local/cuda or ${_toolkit}: run deploy/install-deps.sh --cuda, or set CUDACXX")
  endif()
  set(CMAKE_CUDA_COMPILER "${_toolkit}/bin/nvcc")
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 86-real 86-virtual 90-real)
endif()
# One process, one runtime: LibTorch brings the shared one.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# CMake's FindCUDAToolkit (3.25) asks for a library that CUDA 13 no longer has.
find_library(PREGATE_CUDART cudart HINTS ${CMAKE_CUDA_HOST_IMPLICIT_LINK_DIRECTORIES} ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} REQUIRED)
add_library(pregate_cuda_runtime INTERFACE)
target_include_directories(pregate_cuda_runtime SYSTEM INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(pregate_cuda_runtime INTERFACE ${PREGATE_CUDART})
