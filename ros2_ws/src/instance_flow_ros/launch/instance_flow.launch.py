# SPDX-License-Identifier: Apache-2.0
"""One camera: ros2 launch instance_flow_ros instance_flow.launch.py image:=/camera/image_raw

What is started after it in the same launch gets its settings of Fast DDS and glibc too, unless a GroupAction is around
it.
"""

from __future__ import annotations

import os

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

from instance_flow_ros import launching
from launch import LaunchContext, LaunchDescription


def start(context: LaunchContext) -> list[Node]:
    """Start the node, and RViz if asked for."""
    return [Node(**keywords) for keywords in launching.one_camera(context.launch_configurations)]


def generate_launch_description() -> LaunchDescription:
    """Give what `ros2 launch` is to do."""
    return LaunchDescription(
        [
            *(SetEnvironmentVariable(name, value) for name, value in launching.environment(os.environ).items()),
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in launching.arguments(image="/camera/image_raw")
            ),
            OpaqueFunction(function=start),
        ]
    )
