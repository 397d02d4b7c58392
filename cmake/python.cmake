# What the Python package carries beside its Python: the library and its headers, against which the adapter is compiled
# for the torch that is there, and the tool.

# The tool's libraries are this machine's. A wheel can do without it.
if(GMLAKE_BUILD_TOOLS)
  find_package(CLI11 QUIET)
  find_package(fmt QUIET)
  find_package(nlohmann_json QUIET)
  find_path(gmlake_zlib zlib.h)
  if(NOT (CLI11_FOUND AND fmt_FOUND AND nlohmann_json_FOUND AND gmlake_zlib))
    message(WARNING "gmlake: CLI11, fmt, nlohmann_json or zlib is missing, so this package has no replay tool "
      "(on Debian: apt install libcli11-dev libfmt-dev nlohmann-json3-dev zlib1g-dev)")
    set(GMLAKE_BUILD_TOOLS OFF)
  endif()
endif()

function(gmlake_install_python)
  install(TARGETS gmlake ARCHIVE DESTINATION gmlake/_native/lib COMPONENT python)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/gmlake DESTINATION gmlake/_native/include COMPONENT python
    FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")
  if(TARGET gmlake_tool)
    install(TARGETS gmlake_tool RUNTIME DESTINATION gmlake/_native/bin COMPONENT python)
  endif()

  # Where this build sees a torch, the adapter for it goes along, and nothing needs compiling later. A build in isolation,
  # as `pip install` makes them by default, sees none.
  find_package(Python3 3.10 COMPONENTS Interpreter)
  if(Python3_FOUND)
    execute_process(COMMAND ${Python3_EXECUTABLE} -c "import torch" RESULT_VARIABLE no_torch OUTPUT_QUIET ERROR_QUIET)
    if(no_torch EQUAL 0)
      install(CODE "execute_process(
        COMMAND \"${CMAKE_COMMAND}\" -E env PYTHONPATH=\${CMAKE_INSTALL_PREFIX} GMLAKE=0
          \"${Python3_EXECUTABLE}\" -m gmlake._adapter.build --into \${CMAKE_INSTALL_PREFIX}/gmlake/_native/prebuilt
        RESULT_VARIABLE status)
        if(NOT status EQUAL 0)
          message(WARNING \"gmlake: the adapter was not built ahead; it will be compiled when it is first used\")
        endif()" COMPONENT python)
    endif()
  endif()
endfunction()
