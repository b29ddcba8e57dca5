# ONNX Runtime's C header, onnxruntime_c_api.h. The library is loaded at run time, so it is not
# looked for. Set OnnxRuntime_INCLUDE_DIR where the header is not in a usual place; a release archive
# of ONNX Runtime has it in include/.
find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_c_api.h
  PATH_SUFFIXES onnxruntime onnxruntime/core/session)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntimeHeaders REQUIRED_VARS OnnxRuntime_INCLUDE_DIR)

if(OnnxRuntimeHeaders_FOUND AND NOT TARGET OnnxRuntime::headers)
  add_library(OnnxRuntime::headers INTERFACE IMPORTED)
  target_include_directories(OnnxRuntime::headers SYSTEM INTERFACE ${OnnxRuntime_INCLUDE_DIR})
endif()
mark_as_advanced(OnnxRuntime_INCLUDE_DIR)
