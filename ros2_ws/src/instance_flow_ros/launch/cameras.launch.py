# SPDX-License-Identifier: Apache-2.0
"""Several cameras: ros2 launch instance_flow_ros cameras.launch.py cameras:=front,rear

Each has a process and a namespace of its own, as in /front/instance_flow/instances; with one_process:=true one process
with one model serves them all, as in /instance_flow/front/instances.
What is started after it in the same launch gets its settings of Fast DDS and glibc too, unless a GroupAction is around
it.
"""

from __future__ import annotations

import os

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

from instance_flow_ros import launching
from launch import LaunchContext, LaunchDescription

ARGUMENTS = [
    ("cameras", "front,rear", "names of the cameras, separated by commas"),
    ("one_process", "false", "one process and one model for all cameras: true or false"),
]


def start(context: LaunchContext) -> list[Node]:
    """Start the nodes, and RViz if asked for."""
    return [Node(**keywords) for keywords in launching.several_cameras(context.launch_configurations)]


def generate_launch_description() -> LaunchDescription:
    """Give what `ros2 launch` is to do."""
    return LaunchDescription(
        [
            *(SetEnvironmentVariable(name, value) for name, value in launching.environment(os.environ).items()),
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in (
                    *ARGUMENTS,
                    *launching.arguments(image=f"{launching.CAMERA}/image_raw"),
                )
            ),
            OpaqueFunction(function=start),
        ]
    )
