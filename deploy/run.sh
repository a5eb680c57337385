#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Usage: run.sh COMMAND [ARGUMENT ...]
# Run a command with ROS, the workspace and the virtual environment of this installation: the node (instance_flow_node),
# its health check, `ros2 launch ...`, `instance-flow ...`. It is the image's entry point and what systemd starts.
set -eo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/ros2_ws/install/setup.bash"
. "$root/.venv/bin/activate"
PATH=$root/ros2_ws/install/instance_flow_ros/lib/instance_flow_ros:$PATH

# CUDA and cuDNN, where provider.sh has put them into the environment as wheels: the loader does not look there itself.
for libraries in "$root"/.venv/lib/python3*/site-packages/nvidia/*/lib; do
  if [ -d "$libraries" ]; then
    LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  fi
done
export PATH LD_LIBRARY_PATH

# From 1.31 on ONNX Runtime keeps a count of what it runs, for its makers; a robot shall not.
export ORT_DISABLE_TELEMETRY=${ORT_DISABLE_TELEMETRY:-1}

exec "$@"
