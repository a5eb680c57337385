# SPDX-License-Identifier: Apache-2.0
"""The health check against the real node, in every way in which that can be well or not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_process import program

from instance_flow_ros import healthcheck
from instance_flow_ros.healthcheck import HEALTHY, UNHEALTHY

Start = Callable[..., Any]
OK, WARN, ERROR, STALE = (getattr(DiagnosticStatus, name) for name in ("OK", "WARN", "ERROR", "STALE"))


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        pytest.param([OK], HEALTHY, id="well"),
        pytest.param([WARN], HEALTHY, id="warning"),
        pytest.param([ERROR], UNHEALTHY, id="error"),
        pytest.param([STALE], UNHEALTHY, id="stale"),
        pytest.param([OK, ERROR, WARN], UNHEALTHY, id="one of three cameras"),
    ],
)
def test_judge(levels: list[bytes], code: int) -> None:
    statuses = [DiagnosticStatus(level=level, name=f"node: {n}", message="words") for n, level in enumerate(levels)]
    judged, words = healthcheck.judge(statuses)
    assert judged == code
    ill = [status for status in statuses if status.level in (ERROR, STALE)]
    warned = [status for status in statuses if status.level == WARN]
    assert words.count("words") == len(ill or warned or statuses)
    assert ("with a warning" in words) == (not ill and bool(warned))


def ask(node: str, capsys: pytest.CaptureFixture[str], timeout: str = "30") -> tuple[int, str]:
    """Exit code and words of the command."""
    code = healthcheck.main(["--node", node, "--timeout", timeout])
    return code, capsys.readouterr().out


def test_active_node_is_healthy_until_it_hangs(
    start: Start, blobs_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = start(model=blobs_model).until_active()
    name = f"{probe.node.get_namespace()}/instance_flow"
    code, words = ask(name, capsys)
    # No images come, which is for others to act on; an image of the start may still be in the period.
    assert (code, words.count("\n")) == (HEALTHY, 1)
    assert re.match("healthy(, with a warning)?: ", words)
    try:
        os.kill(probe.process.pid, signal.SIGSTOP)
        assert ask(name, capsys, timeout="3")[0] == UNHEALTHY
    finally:
        os.kill(probe.process.pid, signal.SIGCONT)
    assert ask(name, capsys)[0] == HEALTHY


def test_node_that_waits_for_its_manager_is_healthy(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    probe = start(autostart=False)
    code, words = ask(f"{probe.node.get_namespace()}/instance_flow", capsys)
    assert code == HEALTHY
    assert "not configured" in words
    assert probe.next_status().hardware_id == "none"


def test_node_that_could_not_load_its_model_is_not(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    probe = start(model="/nowhere.onnx")
    probe.until_logged("/nowhere.onnx")
    probe.until(lambda: any(status.level == ERROR for status in probe.statuses), "an error on /diagnostics")
    code, words = ask(f"{probe.node.get_namespace()}/instance_flow", capsys)
    assert code == UNHEALTHY
    assert "/nowhere.onnx" in words


def test_node_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    code, words = ask("/nobody/instance_flow", capsys, timeout="1")
    assert (code, words) == (UNHEALTHY, "unhealthy: /nobody/instance_flow: nothing on /diagnostics for 1 s\n")


def test_command_is_installed() -> None:
    """As an image or systemd runs it: the exit code is all that they look at."""
    command = [str(program("instance_flow_healthcheck")), "--timeout", "0.5"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (UNHEALTHY, "")
