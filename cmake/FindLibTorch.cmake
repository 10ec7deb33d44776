# Finds LibTorch in the PyPI wheel (TorchConfig.cmake of a CUDA wheel fails where CUDA is absent) and defines
#   LibTorch::torch   headers and libraries, the CPU's: what runs on a GPU here is not LibTorch's
# Looked for in PREGATE_LIBTORCH (a folder holding include/ and lib/), else where deploy/install-deps.sh puts it.
# The include folder carries Protobuf 3.13 headers: link this target to core/model alone.

set(PREGATE_LIBTORCH "${PREGATE_DEPS_FOLDER}/torch/torch" CACHE PATH "LibTorch: the folder that holds include/ and lib/")

find_path(LibTorch_INCLUDE_DIR ATen/ATen.h PATHS ${PREGATE_LIBTORCH}/include NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu PATHS ${PREGATE_LIBTORCH}/lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 PATHS ${PREGATE_LIBTORCH}/lib NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run deploy/install-deps.sh, or set PREGATE_LIBTORCH")

if(LibTorch_FOUND AND NOT TARGET LibTorch::torch)
  file(GLOB _nvidia_lib_dirs ${PREGATE_LIBTORCH}/../nvidia/*/lib)
  set(_rpath ${PREGATE_LIBTORCH}/lib ${_nvidia_lib_dirs})
  list(TRANSFORM _rpath PREPEND "-Wl,-rpath,")
  list(TRANSFORM _nvidia_lib_dirs PREPEND "-Wl,-rpath-link," OUTPUT_VARIABLE _rpath_link)
  add_library(LibTorch::torch INTERFACE IMPORTED)
  target_include_directories(LibTorch::torch SYSTEM INTERFACE ${LibTorch_INCLUDE_DIR})
  target_link_libraries(LibTorch::torch INTERFACE ${LibTorch_CPU_LIBRARY} ${LibTorch_C10_LIBRARY})
  target_link_options(LibTorch::torch INTERFACE ${_rpath} ${_rpath_link} -Wl,--allow-shlib-undefined)
endif()
