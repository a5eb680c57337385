# SPDX-License-Identifier: Apache-2.0
"""The scripts of deploy/: what they say to wrong arguments, and what environment they make."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing in its environment but a path and what is given."""
    clean = {"PATH": os.defpath, **environment}
    return subprocess.run([*map(str, command)], env=clean, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", [pytest.param(path, id=path.name) for path in sorted(DEPLOY.glob("*.sh"))])
def test_shell_can_read_and_run_it(script: Path) -> None:
    assert run("bash", "-n", script).stderr == ""
    assert os.access(script, os.X_OK)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with nothing in it, not even pip."""
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    return tmp_path / "environment"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "usage:", id="no provider"),
        pytest.param(["gpu"], "unknown provider gpu", id="unknown provider"),
        pytest.param(["jetpack"], "usage:", id="no index for a Jetson"),
    ],
)
def test_provider_refuses(environment: Path, arguments: list[str], words: str) -> None:
    result = run(DEPLOY / "provider.sh", environment, *arguments)
    assert result.returncode != 0
    assert words in result.stderr


def test_provider_cpu_leaves_everything_as_it_is(environment: Path) -> None:
    assert run(DEPLOY / "provider.sh", environment, "cpu").returncode == 0


def test_provider_cuda_takes_the_release_that_is_tested_on_the_cpu(environment: Path) -> None:
    """A Python that only says how it was called stands for the one that would install two gigabytes."""
    python = environment / "bin" / "python"
    python.unlink()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    called = run(DEPLOY / "provider.sh", environment, "cuda").stdout
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("onnxruntime=="))
    assert called.index("uninstall") < called.index("install --quiet -c")
    assert f"onnxruntime-gpu[cuda,cudnn]=={pin.partition('==')[2]}" in called


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A folder that looks like an installation with the wheels of CUDA."""
    root = tmp_path / "opt with a space"
    (root / "deploy").mkdir(parents=True)
    shutil.copy(DEPLOY / "run.sh", root / "deploy")
    for name in ("ros2_ws/install/setup.bash", ".venv/bin/activate"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("")
    for name in ("cu13", "cudnn"):
        (root / ".venv/lib/python3.12/site-packages/nvidia" / name / "lib").mkdir(parents=True)
    return root


def test_run_sets_up_the_environment(installation: Path) -> None:
    result = run(installation / "deploy/run.sh", "env", LD_LIBRARY_PATH="/mine")
    environment = dict(line.split("=", 1) for line in result.stdout.splitlines())
    libraries = environment["LD_LIBRARY_PATH"].split(":")
    assert [Path(library).parent.name for library in libraries[:-1]] == ["cudnn", "cu13"]
    assert libraries[-1] == "/mine"
    assert environment["PATH"].startswith(f"{installation}/ros2_ws/install/instance_flow_ros/lib/instance_flow_ros:")
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_run_hands_on_arguments_and_exit_code(installation: Path) -> None:
    result = run(installation / "deploy/run.sh", "bash", "-c", 'echo "$1|$2"; exit 7', "-", "a b", "c")
    assert (result.stdout, result.returncode) == ("a b|c\n", 7)


def test_run_says_what_is_missing(installation: Path) -> None:
    (installation / "ros2_ws/install/setup.bash").unlink()
    result = run(installation / "deploy/run.sh", "true")
    assert result.returncode != 0
    assert "setup.bash" in result.stderr
