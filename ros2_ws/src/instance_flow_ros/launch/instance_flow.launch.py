# SPDX-License-Identifier: Apache-2.0
"""Start the node: ros2 launch instance_flow_ros instance_flow.launch.py image:=/camera/image_raw"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("instance_flow_ros"))

# Name, default, description. An empty setting is left to the parameter file.
SETTINGS = [
    ("model", "", "path of the ONNX model"),
    ("provider", "", "what the model runs on: auto, cpu, cuda or tensorrt"),
    ("image_transport", "", "raw or compressed"),
]
ARGUMENTS = [
    ("image", "/camera/image_raw", "topic of the images; image_transport=compressed appends /compressed to it"),
    ("namespace", "", "namespace of the node"),
    ("params_file", str(SHARE / "config" / "instance_flow.yaml"), "file with the node's parameters"),
]


def start_node(context: LaunchContext) -> list[Node]:
    """Start the node with the parameters of the file, and over them what was given on the command line."""
    given = context.launch_configurations
    settings = {name: given[name] for name, _, _ in SETTINGS if given[name]}
    return [
        Node(
            package="instance_flow_ros",
            executable="instance_flow_node",
            name="instance_flow",
            namespace=given["namespace"],
            parameters=[given["params_file"], settings],
            remappings=[("image", given["image"])],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Give what `ros2 launch` is to do."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in (*SETTINGS, *ARGUMENTS)
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
