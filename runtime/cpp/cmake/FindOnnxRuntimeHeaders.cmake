# Finds ONNX Runtime's C header, onnxruntime_c_api.h. It does not look for the library, which is
# loaded at run time. Set OnnxRuntime_INCLUDE_DIR if the header is not in a standard folder; a release
# archive of ONNX Runtime contains it in include/.
find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_c_api.h
  PATH_SUFFIXES onnxruntime onnxruntime/core/session)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntimeHeaders REQUIRED_VARS OnnxRuntime_INCLUDE_DIR)

if(OnnxRuntimeHeaders_FOUND AND NOT TARGET OnnxRuntime::headers)
  add_library(OnnxRuntime::headers INTERFACE IMPORTED)
  target_include_directories(OnnxRuntime::headers SYSTEM INTERFACE ${OnnxRuntime_INCLUDE_DIR})
endif()
mark_as_advanced(OnnxRuntime_INCLUDE_DIR)
