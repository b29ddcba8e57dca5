# Installs the library, the headers, glesam-cpp, the CMake package and the pkg-config file.
include(CMakePackageConfigHelpers)

install(TARGETS glesam EXPORT glesamTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/glesam.h include/glesam_c.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
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

configure_file(cmake/glesam.pc.in glesam.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/glesam.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
