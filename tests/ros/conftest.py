# SPDX-License-Identifier: Apache-2.0
"""Real nodes in processes of their own, on a ROS domain of their own, with a model so small that all truth is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
_numbers = count()

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(REPOSITORY / "ros2_ws" / "demo")]

# Before the first message is imported: rclpy's setters then refuse what would end the process otherwise.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"


def _what_is_missing() -> str:
    try:
        import rclpy  # noqa: F401
        from ament_index_python.packages import get_package_prefix

        get_package_prefix("instance_flow_ros")
        import instance_flow_msgs.msg  # noqa: F401
    except (ImportError, LookupError, OSError) as error:
        return f"{error}; run `make test`, or `source ros2_ws/install/setup.bash` first"
    return ""


MISSING = _what_is_missing()
if MISSING and (os.environ.get("CI") or os.environ.get("INSTANCE_FLOW_REQUIRE_ROS")):
    raise pytest.UsageError(f"the ROS tests cannot run: {MISSING}")
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_report_header() -> str:
    return f"left out: tests/ros ({MISSING})" if MISSING else ""


@pytest.fixture(scope="session")
def blobs_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that sees red and blue discs; see blobs.py."""
    from blobs import write_model

    path = tmp_path_factory.mktemp("model") / "blobs.onnx"
    write_model(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def _own_domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from own_domain import own_domain

    with own_domain(tmp_path_factory.mktemp("ros_log")):
        yield


def _start_nodes(folders: pytest.TempPathFactory) -> Iterator[Start]:
    from node_process import NodeProcess
    from probe import Probe

    probes: list[Probe] = []

    def start_one(remappings: dict[str, str] | None = None, **parameters: object) -> Probe:
        namespace = f"/test_{next(_numbers)}"
        log = folders.mktemp("node") / "node.log"
        probes.append(Probe(NodeProcess(log, parameters, {"__ns": namespace, **(remappings or {})}), namespace))
        return probes[-1]

    yield start_one
    for probe in probes:
        probe.close()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a node in a namespace of its own and give a Probe to it; both end with the test."""
    yield from _start_nodes(tmp_path_factory)


@pytest.fixture(scope="module")
def start_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a node as ``start`` does; it ends with the last test of the file."""
    yield from _start_nodes(tmp_path_factory)
