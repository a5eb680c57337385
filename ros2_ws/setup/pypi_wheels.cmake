# SPDX-License-Identifier: Apache-2.0
# For a colcon build against the ROS 2 wheels from PyPI; given to cmake as CMAKE_PROJECT_INCLUDE.
#
# The Python bindings of the wheels' message packages export the include directories of the machine that built the wheels
# (/opt/python/...), and cmake refuses imported targets whose include directories do not exist. Once a package's own
# CMakeLists.txt has been read, those entries are dropped from what it has imported. The headers that are really needed
# are found with the Python of the virtual environment. Without such entries this does nothing.

function(instance_flow_drop_dead_includes)
  get_property(targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      list(FILTER directories EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directories}")
    endif()
  endforeach()
endfunction()

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL instance_flow_drop_dead_includes)
endif()
