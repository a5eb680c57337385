# SPDX-License-Identifier: Apache-2.0
"""A stand-in for launch and launch_ros, which PyPI has not: enough to read our launch files and do what they say.

Only what these use is here, under the names and with the arguments that Jazzy's have. It is not launch: how a real one
starts processes is not tested.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from node_process import program

LaunchDescription = list
LaunchContext = SimpleNamespace


class SetEnvironmentVariable:
    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


class DeclareLaunchArgument:
    def __init__(self, name: str, *, default_value: str, description: str) -> None:
        self.name, self.default, self.description = name, default_value, description


class OpaqueFunction:
    def __init__(self, *, function: Callable[[Any], list[Node]]) -> None:
        self.function = function


class Node:
    """A process of ROS. All arguments that launch_ros and launch know and ours use; another one is a TypeError."""

    def __init__(
        self,
        *,
        executable: str,
        package: str,
        name: str | None = None,
        namespace: str = "",
        parameters: Iterable[str] = (),
        remappings: Iterable[tuple[str, str]] = (),
        ros_arguments: Iterable[str] = (),
        arguments: Iterable[str] = (),
        respawn: bool = False,
        respawn_delay: float | None = None,
        output: str = "log",
    ) -> None:
        self.executable, self.package, self.name, self.namespace = executable, package, name, namespace
        self.parameters, self.remappings = list(parameters), dict(remappings)
        self.ros_arguments, self.arguments = list(ros_arguments), list(arguments)
        self.respawn, self.respawn_delay, self.output = respawn, respawn_delay, output

    @property
    def command(self) -> list[str]:
        """What launch_ros would start: all parameters are files, a relative namespace begins at /."""
        command = [str(program(self.executable, self.package)), *self.arguments, "--ros-args", *self.ros_arguments]
        if self.name:
            command += ["-r", f"__node:={self.name}"]
        if self.namespace:
            command += ["-r", f"__ns:=/{self.namespace.lstrip('/')}"]
        for file in self.parameters:
            command += ["--params-file", file]
        for name, target in self.remappings.items():
            command += ["-r", f"{name}:={target}"]
        return command


def read(file: Path, **arguments: str) -> SimpleNamespace:
    """Do what a launch file says, with arguments as on the command line.

    Gives .nodes, .environment (name: value) and .arguments (those declared, by name).
    """
    actions = _load(file).generate_launch_description()
    declared = {action.name: action for action in actions if isinstance(action, DeclareLaunchArgument)}
    assert arguments.keys() <= declared.keys()
    settings = {name: arguments.get(name, action.default) for name, action in declared.items()}
    context = LaunchContext(launch_configurations=settings)
    return SimpleNamespace(
        arguments=declared,
        environment={action.name: action.value for action in actions if isinstance(action, SetEnvironmentVariable)},
        nodes=[node for action in actions if isinstance(action, OpaqueFunction) for node in action.function(context)],
    )


def _load(file: Path) -> ModuleType:
    classes = {kind.__name__: kind for kind in (SetEnvironmentVariable, DeclareLaunchArgument, OpaqueFunction)}
    modules: dict[str, dict[str, Any]] = {
        "launch": {"LaunchDescription": LaunchDescription, "LaunchContext": LaunchContext},
        "launch.actions": classes,
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
    }
    specification = spec_from_file_location("launch_file", file)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        for name, members in modules.items():
            stand_in = ModuleType(name)
            stand_in.__dict__.update(members)
            patch.setitem(sys.modules, name, stand_in)
        specification.loader.exec_module(module)
    return module
