# Finds the headers of TensorRT or TensorRT-RTX (NvInfer.h) and of the CUDA runtime
# (cuda_runtime_api.h). It does not look for the libraries, which are loaded at run time. Set
# TensorRT_INCLUDE_DIR and CUDART_INCLUDE_DIR if the headers are not in standard folders.
find_path(TensorRT_INCLUDE_DIR NvInfer.h
  PATH_SUFFIXES ${CMAKE_LIBRARY_ARCHITECTURE} x86_64-linux-gnu aarch64-linux-gnu)
find_path(CUDART_INCLUDE_DIR cuda_runtime_api.h
  HINTS /usr/local/cuda/include /usr/local/cuda/targets/aarch64-linux/include)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRTHeaders
  REQUIRED_VARS TensorRT_INCLUDE_DIR CUDART_INCLUDE_DIR)

if(TensorRTHeaders_FOUND AND NOT TARGET TensorRT::headers)
  add_library(TensorRT::headers INTERFACE IMPORTED)
  target_include_directories(TensorRT::headers SYSTEM INTERFACE
    ${TensorRT_INCLUDE_DIR} ${CUDART_INCLUDE_DIR})
endif()
mark_as_advanced(TensorRT_INCLUDE_DIR CUDART_INCLUDE_DIR)
