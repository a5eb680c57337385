# SPDX-License-Identifier: Apache-2.0
"""The command `instance-flow doctor`: says what is wrong with an installation, a machine, or a ROS graph."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from instance_flow.commands.values import add_command, number
from instance_flow.doctor import machine, providers, ros
from instance_flow.doctor import python as node_side
from instance_flow.doctor.finding import PROBLEM, WARNING, Finding, format_findings, worst_first
from instance_flow.network.gpu.nvidia import inspect_nvidia

LISTEN_SECONDS = 5.0

_ALL_WELL, _PROBLEMS = 0, 1
_TIMEOUT, _LONGEST = 60.0, 600
_RESTART = "Fix the other findings first, then run doctor again."


def add_doctor(commands: Any) -> None:
    """Add the command to the parser of `instance-flow`."""
    parser = add_command(
        commands,
        "doctor",
        "say what is wrong with the installation, the machine and the ROS graph, and what to do",
        "instance-flow doctor",
        "instance-flow doctor model.onnx --topic /camera/image_raw",
    )
    parser.set_defaults(command=doctor_command)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="ONNX model; the bundled one unless given")
    parser.add_argument("--topic", help="topic of images to look at; the node's own unless given")
    parser.add_argument(
        "--listen",
        type=number(float, low=0, high=_LONGEST),
        default=LISTEN_SECONDS,
        metavar="SECONDS",
        help="how long to look at the ROS graph, 0 = not at all (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def doctor_command(options: argparse.Namespace) -> int:
    """Run all checks and print the findings; gives 1 where one is a problem, else 0."""
    environment = dict(os.environ)
    findings = examine_network(options.model) + examine_machine()
    findings += examine_ros(environment, options.listen, options.topic)
    problems, warnings = (sum(f.status == status for f in findings) for status in (PROBLEM, WARNING))
    if options.json:
        rows = [asdict(finding) for finding in worst_first(findings)]
        print(json.dumps({"problems": problems, "warnings": warnings, "findings": rows}, indent=2))
    else:
        print(format_findings(findings))
    return _PROBLEMS if problems else _ALL_WELL


def examine_network(model: Path | None) -> list[Finding]:
    """The model, and what runs it."""
    nvidia = inspect_nvidia()
    path, info = providers.inspect_model(model)
    findings = providers.judge_model(path, info)
    if path is not None and not isinstance(info, str):
        findings += providers.judge_runtime(providers.inspect_runtime(path), nvidia)
    return findings + providers.judge_nvidia(nvidia)


def examine_machine() -> list[Finding]:
    """What the runtime and the middleware need of the machine."""
    return [
        *machine.judge_kernels(machine.inspect_kernels()),
        *machine.judge_opencv(machine.inspect_opencv(), cv2.__version__),
        *machine.judge_processor(machine.inspect_processor()),
        *machine.judge_shared_memory(machine.inspect_shared_memory()),
        *machine.judge_sockets(machine.inspect_sockets()),
    ]


def examine_ros(environment: Mapping[str, str], listen: float, topic: str | None) -> list[Finding]:
    """The Python that runs the node, the settings of ROS, and what can be seen on the graph within some seconds."""
    python = node_side.inspect_python(node_side.node_python(), environment)
    findings = node_side.judge_python(python, environment)
    if not (python.has_ros and environment.get("AMENT_PREFIX_PATH")):
        return findings
    findings += [
        *ros.judge_middleware(environment, ros.installed_middleware(environment)),
        *ros.judge_domain(environment),
        *ros.judge_discovery(environment),
        *ros.judge_profile(ros.inspect_profile(environment), environment),
        *ros.judge_log_folder(environment),
    ]
    if listen and python.can_run_the_node:
        findings += examine_graph(python.executable, environment, listen, topic)
    return findings


def examine_graph(python: str, environment: Mapping[str, str], listen: float, topic: str | None) -> list[Finding]:
    """Look at the ROS graph. That takes rclpy, which the runtime does without: another process does it."""
    command = [python, "-m", "instance_flow_ros.graph_check", "--seconds", str(listen)]
    command += ["--topic", topic] if topic else []
    try:
        ended = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, timeout=listen + _TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return [Finding(PROBLEM, "ROS graph", "looking at it does not come to an end", _RESTART)]
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
        return [Finding(PROBLEM, "ROS graph", f"it could not be looked at: {reason}", _RESTART)]
    return [Finding(**row) for row in json.loads(ended.stdout.splitlines()[-1])]
