#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: build.sh VENV [PACKAGES BASE]. Build the ROS 2 workspace into ros2_ws/install, or the packages of another folder
# into BASE/install.
set -eo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$1" && pwd)
. "$here/official_ros.sh"
. "$venv/bin/activate"
arguments=(--event-handlers console_direct-)
if [ $# -eq 3 ]; then
  packages=$(cd "$2" && pwd)
  mkdir -p "$3" && cd "$3"
  arguments+=(--base-paths "$packages")
else
  cd "$here/.."
fi

if ! official_ros; then
  . "$venv/local_setup.sh"
  arguments+=(--cmake-args "-DCMAKE_PROJECT_INCLUDE=$here/pypi_wheels.cmake")
fi
if ! colcon build "${arguments[@]}"; then
  cat log/latest_build/*/stderr.log >&2
  exit 1
fi
