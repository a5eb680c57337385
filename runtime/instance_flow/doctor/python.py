# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the Python that runs the node: whether it finds ROS, our packages, and messages in step.

`inspect_python` collects facts, `judge_python` makes findings of them and touches nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instance_flow.doctor import probe
from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding
from instance_flow.network.installation import message_definitions
from instance_flow.structures import SourceError

MESSAGES = "instance_flow_msgs"
NODE = "instance_flow_ros"

_MODULE_OF_MESSAGES, _MODULE_OF_NODE = f"{MESSAGES}.msg", f"{NODE}.bridge"
_SECONDS = 60.0
_BUILD = "Build the workspace (`make setup`, or `colcon build` in ros2_ws), then `source ros2_ws/install/setup.bash`."
_OF_VERSION = re.compile(r"python(3\.\d+)/(?:site|dist)-packages")

# How the message classes name the types that .msg files spell in another way.
_BUILT_TYPES = {"float32": "float", "float64": "double", "bool": "boolean", "byte": "octet"}


@dataclass(frozen=True)
class NodePython:
    """version, numpy: their numbers.   errors: by module, "" where it imports.

    ended_at: the module that ended or hung the process when it was imported, "" for none.
    messages: fields and types by full name, as they were built.   definitions: texts of our .msg files, by full name.
    own_bridge: whether cv_bridge is there but not used.
    found: packages of ours that the ament index has.   ros_installed: distributions in /opt/ros.
    """

    executable: str
    version: str
    numpy: str
    errors: dict[str, str]
    ended_at: str
    messages: dict[str, dict[str, str]]
    definitions: dict[str, str]
    own_bridge: bool
    found: frozenset[str]
    ros_installed: tuple[str, ...]

    def error(self, module: str) -> str:
        """Why a module does not import; "" where it does."""
        if module == self.ended_at or module not in self.errors:
            return f"importing {self.ended_at} ends or hangs the process"
        return self.errors[module]

    @property
    def has_ros(self) -> bool:
        """Whether rclpy can be imported."""
        return not self.error("rclpy")

    @property
    def can_run_the_node(self) -> bool:
        """Whether all that the node imports can be imported."""
        needed = ("rclpy", "instance_flow", _MODULE_OF_MESSAGES, _MODULE_OF_NODE)
        return not self.ended_at and not any(map(self.error, needed))


def node_python() -> str:
    """The Python that the node's executable is started with: the first python3 in PATH."""
    return shutil.which("python3") or sys.executable


def inspect_python(executable: str, environment: Mapping[str, str], opt: Path = Path("/opt/ros")) -> NodePython:
    """Let that Python say what it can import; see probe."""
    command = [executable, probe.__file__]
    try:
        ended = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        output = ended.stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
    reported = _facts(output)
    return NodePython(
        executable=reported.get("executable", executable),
        version=reported.get("python", ""),
        numpy=reported.get("numpy version", ""),
        errors={name: reported[name] for name in probe.MODULES if name in reported},
        ended_at=reported.get("importing", "python"),
        messages=reported.get("messages", {}),
        definitions=_definitions(),
        own_bridge=reported.get("own bridge", False),
        found=frozenset(name for name in (MESSAGES, NODE) if package_prefix(name, environment)),
        ros_installed=tuple(sorted(path.name for path in opt.glob("*") if (path / "setup.bash").is_file())),
    )


def package_prefix(package: str, environment: Mapping[str, str]) -> Path | None:
    """The folder that a package of ROS is installed in, as ament_index finds it; None where it is not."""
    for prefix in filter(None, environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (Path(prefix) / "share/ament_index/resource_index/packages" / package).exists():
            return Path(prefix)
    return None


def _definitions() -> dict[str, str]:
    try:
        return message_definitions()
    except SourceError:
        return {}


def _facts(output: str) -> dict[str, Any]:
    """Facts by their keys; what the imported modules have printed themselves is passed over."""
    facts = {}
    for line in output.splitlines():
        with suppress(ValueError, TypeError):
            key, value = json.loads(line)
            facts[key] = value
    return facts


def judge_python(python: NodePython, environment: Mapping[str, str]) -> list[Finding]:
    """From the ground up: what stands on something that is missing is not looked at."""
    if not python.version:
        found = f"{python.executable} does not start"
        return [Finding(PROBLEM, "Python of the node", found, "Put a Python first in PATH that does.")]
    if not python.has_ros:
        return [_no_rclpy(python, environment)]
    findings = [Finding(OK, "ROS 2", f"rclpy in {_describe(python)}, numpy {python.numpy}")]
    if not environment.get("AMENT_PREFIX_PATH"):
        advice = "Source the setup.bash of ROS, then that of the workspace, in this shell."
        return [*findings, Finding(PROBLEM, "ROS environment", "AMENT_PREFIX_PATH is not set", advice)]
    findings.append(_judge_runtime(python))
    findings += _judge_packages(python)
    if python.can_run_the_node:
        findings += judge_messages(python.messages, python.definitions)
    return [*findings, _judge_bridge(python)]


def _no_rclpy(python: NodePython, environment: Mapping[str, str]) -> Finding:
    check, error = "ROS 2", python.error("rclpy")
    others = sorted(set(_OF_VERSION.findall(environment.get("PYTHONPATH", ""))) - {_minor(python.version)})
    if others:
        found = f"the ROS of this shell is for Python {others[0]}, but python3 is {_describe(python)}"
        advice = (
            f"Make the virtual environment with its Python: `python{others[0]} -m venv --system-site-packages .venv`."
        )
        return Finding(PROBLEM, check, found, advice)
    if not error.startswith("ModuleNotFoundError: No module named 'rclpy'"):
        advice = "Open a new shell and source the setup.bash of ROS, then that of the workspace."
        return Finding(PROBLEM, check, f"rclpy does not import in {_describe(python)}: {error}", advice)
    if python.ros_installed:
        found = f"/opt/ros has {', '.join(python.ros_installed)}, but it is not set up in this shell"
        return Finding(PROBLEM, check, found, f"Run `source /opt/ros/{python.ros_installed[-1]}/setup.bash`.")
    found = f"no rclpy in {_describe(python)}: the commands work on files, the node does not run"
    return Finding(WARNING, check, found, "For the node install ROS 2, or run `make setup` and source the workspace.")


def _judge_runtime(python: NodePython) -> Finding:
    check, error = "instance_flow in that Python", python.error("instance_flow")
    if not error:
        return Finding(OK, check, "found")
    found = f"{python.executable} runs the node, but: {error}"
    advice = (
        f"Run `{python.executable} -m pip install .` in the checkout, or activate the environment that has it first."
    )
    return Finding(PROBLEM, check, found, advice)


def _judge_packages(python: NodePython) -> list[Finding]:
    findings = []
    for package, module in ((MESSAGES, _MODULE_OF_MESSAGES), (NODE, _MODULE_OF_NODE)):
        error = python.error(module)
        if package not in python.found:
            findings.append(Finding(PROBLEM, package, "not in AMENT_PREFIX_PATH", _BUILD))
        elif error and not python.error("instance_flow"):
            findings.append(Finding(PROBLEM, package, f"built, but does not import: {error}", _BUILD))
        else:
            findings.append(Finding(OK, package, "built and found"))
    return findings


def judge_messages(built: Mapping[str, Mapping[str, str]], definitions: Mapping[str, str]) -> list[Finding]:
    """built: fields by message, from the classes.   definitions: texts of our .msg files, by full name."""
    check = "messages"
    if not definitions:
        return [Finding(PROBLEM, check, "this instance-flow lacks its .msg files", "Install instance-flow again.")]
    stale = sorted(name for name, text in definitions.items() if list(built.get(name, {}).items()) != _fields(text))
    if stale:
        names = ", ".join(name.rsplit("/", 1)[-1] for name in stale)
        found = f"{names}: not as this instance-flow has them, so that node and commands differ"
        return [Finding(PROBLEM, check, found, _BUILD)]
    return [Finding(OK, check, f"{len(definitions)} as this instance-flow has them")]


def _fields(definition: str) -> list[tuple[str, str]]:
    """Names and types of a .msg text, as the classes name them; constants are left out."""
    fields = []
    for line in definition.splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 2 and "=" not in words[1]:
            fields.append((words[1], _built_type(words[0])))
    return fields


def _built_type(kind: str) -> str:
    if kind.endswith("]"):
        one, _, length = kind[:-1].partition("[")
        return f"{_built_type(one)}[{length}]" if length else f"sequence<{_built_type(one)}>"
    if kind[0].isupper():
        return f"{MESSAGES}/{kind}"
    return _BUILT_TYPES.get(kind, kind)


def _judge_bridge(python: NodePython) -> Finding:
    check, error = "cv_bridge", python.error("cv_bridge")
    if python.ended_at == "cv_bridge":
        advice = "Remove it, or install a numpy that it was built for: the node would end in the same way."
        return Finding(PROBLEM, check, f"it ends or hangs the process (numpy {python.numpy})", advice)
    if error.startswith("ModuleNotFoundError: No module named 'cv_bridge'"):
        return Finding(OK, check, "not installed: our own conversion of images is used")
    if error or python.own_bridge:
        return Finding(OK, check, f"not sound with numpy {python.numpy}: our own conversion of images is used")
    return Finding(OK, check, "sound, and used")


def _describe(python: NodePython) -> str:
    return f"Python {python.version} ({python.executable})"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
