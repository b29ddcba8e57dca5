# Installs the library, the headers, glesam-cpp, the CMake package, the pkg-config file and the licence.
# The installation can be moved: nothing in it contains its prefix.
include(CMakePackageConfigHelpers)

foreach(folder LIBDIR INCLUDEDIR BINDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${folder}}")
    message(FATAL_ERROR "CMAKE_INSTALL_${folder}: must be relative to the prefix, such as lib64")
  endif()
endforeach()

install(TARGETS glesam EXPORT glesamTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/../../LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/glesam)
if(TARGET glesam-cpp)
  install(TARGETS glesam-cpp RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/glesam)
install(EXPORT glesamTargets NAMESPACE glesam:: DESTINATION ${package_dir})
configure_package_config_file(cmake/glesamConfig.cmake.in glesamConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(glesamConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/glesamConfig.cmake ${PROJECT_BINARY_DIR}/glesamConfigVersion.cmake
  DESTINATION ${package_dir})

# What a program needs besides libglesam.a, for `pkg-config --static`.
set(pc_private "-lstdc++ -lm -pthread")
if(CMAKE_DL_LIBS)
  string(APPEND pc_private " -l${CMAKE_DL_LIBS}")
endif()
if(GLESAM_OPENVINO)
  # OpenVINO's wheel has no libopenvino.so, only a file with its version in the name.
  get_target_property(openvino_file openvino::runtime IMPORTED_LOCATION_RELEASE)
  if(openvino_file)
    get_filename_component(openvino_dir "${openvino_file}" DIRECTORY)
    string(PREPEND pc_private "${openvino_file} -Wl,-rpath,${openvino_dir} ")
  else()
    string(PREPEND pc_private "-lopenvino ")
  endif()
endif()
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/glesam.pc.in glesam.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/glesam.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
