# Installs what a user of the library needs: the library, the public headers, and a CMake package.
include(CMakePackageConfigHelpers)

set(gmlake_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gmlake)

set(gmlake_libraries gmlake)
if(TARGET gmlake_c)
  list(APPEND gmlake_libraries gmlake_c)
endif()
install(TARGETS ${gmlake_libraries} EXPORT gmlakeTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT library
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/gmlake DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")
install(EXPORT gmlakeTargets NAMESPACE gmlake:: DESTINATION ${gmlake_package_dir} COMPONENT library)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/gmlakeConfig.cmake.in
  ${PROJECT_BINARY_DIR}/gmlakeConfig.cmake INSTALL_DESTINATION ${gmlake_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/gmlakeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/gmlakeConfig.cmake ${PROJECT_BINARY_DIR}/gmlakeConfigVersion.cmake
  DESTINATION ${gmlake_package_dir} COMPONENT library)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/NOTICE
  DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT library)

if(TARGET gmlake_tool)
  install(TARGETS gmlake_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tool)
endif()
