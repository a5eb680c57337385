#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: build.sh VENV. Build the ROS 2 workspace into ros2_ws/install.
set -eo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$1" && pwd)
. "$here/official_ros.sh"
. "$venv/bin/activate"
cd "$here/.."

arguments=(--event-handlers console_direct-)
if ! official_ros; then
  . "$venv/local_setup.sh"
  arguments+=(--cmake-args "-DCMAKE_PROJECT_INCLUDE=$here/pypi_wheels.cmake")
fi
if ! colcon build "${arguments[@]}"; then
  cat log/latest_build/*/stderr.log >&2
  exit 1
fi
