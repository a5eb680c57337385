# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: whether an official ROS 2 is set up in this shell, which then is used as it is.

official_ros() {
  [ -n "${ROS_DISTRO:-}" ] && "${PYTHON:-python3}" -c "import rclpy" 2>/dev/null
}
