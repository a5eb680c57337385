# SPDX-License-Identifier: Apache-2.0
"""The example subscriber in a process of its own, beside the real node."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time_ns

import pytest
from blobs import BLUE, RED, draw
from node_process import program
from probe import Probe, to_message


class Listener:
    """The example, its log read while it runs."""

    def __init__(self, log: Path, namespace: str) -> None:
        self._log = log
        command = [program("listener.py", "instance_flow_examples")]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--ros-args", "-r", f"__ns:={namespace}"], stdout=output, stderr=output
            )

    def said(self, pattern: str) -> re.Match[str] | None:
        """Where the log matches, None where it does not yet."""
        assert self.process.poll() is None, self._log.read_text()
        return re.search(pattern, self._log.read_text())

    def stop(self) -> int:
        """Press Ctrl-C, and again where rclpy has swallowed it, and give the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            return self.process.wait(20)


@pytest.fixture
def node(start: Callable[..., Probe], blobs_model: Path) -> Probe:
    return start(model=blobs_model, provider="cpu").until_active()


@pytest.fixture
def listener(node: Probe, tmp_path: Path) -> Iterator[Listener]:
    """Started after the node: the class table was published before it came."""
    listener = Listener(tmp_path / "listener.log", node.node.get_namespace())
    yield listener
    if listener.process.poll() is None:
        listener.process.kill()
        listener.process.wait()


def test_listener_prints_classes_and_objects_of_each_image(node: Probe, listener: Listener) -> None:
    stamps = []

    def send() -> None:
        stamps.append(time_ns())
        node.send(to_message(draw([(30, 40, RED), (90, 50, BLUE)]), stamps[-1]))

    node.until(lambda: listener.said("model blobs knows red, blue"), "the class table, though the listener came late")
    node.node.create_timer(0.1, send)
    both = r"id 1: red, tracked, velocity \(-?0\.0, -?0\.0\) px/s, (\d+) pixels\n.*id 2: blue, tracked"
    node.until(lambda: listener.said(both), "both objects")
    header = listener.said(r"(\d+)\.(\d{9}): rgb8 image of 128 x 96, 2 objects")
    assert header is not None
    assert int(header[1]) * 10**9 + int(header[2]) in stamps
    objects = listener.said(both)
    assert objects is not None
    assert int(objects[1]) == node.answers[-1].instances[0].area
    assert listener.stop() == 0
