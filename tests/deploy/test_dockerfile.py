# SPDX-License-Identifier: Apache-2.0
"""What hadolint (`make lint`) does not look at in the Dockerfile, and what goes into the image."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
# What stands before the first FROM, then each stage without its FROM.
HEAD, *STAGES = re.split(r"^FROM .*$", TEXT, flags=re.MULTILINE)


def program(start: str) -> list[str]:
    """The words of the last stage's instruction, which must be in exec form: only so do signals reach the program."""
    (words,) = re.findall(rf"^{start} (\[.*\])$", STAGES[-1], re.MULTILINE)
    return [str(word) for word in json.loads(words)]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file or folder, named relative to the repository, out of the context."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = Path(path).parts
    inner = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(
        any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        if pattern.startswith("**/")
        else any(fnmatch.fnmatch(name, pattern) for name in inner)
        for pattern in patterns
    )


def test_the_base_is_pinned() -> None:
    """hadolint sees no further than FROM ${BASE}."""
    (base,) = re.findall(r"^ARG BASE=(.*)$", HEAD, re.MULTILINE)
    assert re.fullmatch(r"[\w./-]+:(?!latest$)[\w.-]+", base)
    assert set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)) == {"${BASE}"}


def test_each_stage_gives_the_arguments_that_it_uses() -> None:
    """Docker fills in nothing for one of another stage."""
    for stage in STAGES:
        given = re.findall(r"^(?:ARG |ENV | {4})(\w+)=", stage, re.MULTILINE)
        assert set(re.findall(r"\$\{(\w+)\}", stage)) <= set(given)


def test_it_ends_as_a_user_other_than_root() -> None:
    assert re.findall(r"^USER (.*)$", STAGES[-1], re.MULTILINE) == ["${USER_ID}:${USER_ID}"]
    assert re.findall(r"^ARG USER_ID=(.*)$", STAGES[-1], re.MULTILINE) == ["1000"]


def test_what_only_building_needs_stays_behind() -> None:
    assert len(STAGES) > 1
    instructions = re.sub(r"^#.*$", "", STAGES[-1], flags=re.MULTILINE)
    assert not re.search(r"g\+\+|pip|colcon|make|-dev", instructions)


def test_health_check_goes_through_the_entry_point() -> None:
    """Docker runs it without the entry point, so without ROS."""
    (entry,) = program("ENTRYPOINT")
    assert program(r"HEALTHCHECK .*\\\n +CMD") == [entry, "instance_flow_healthcheck"]
    assert os.access(ROOT / entry.removeprefix("/opt/instance-flow/"), os.X_OK)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path)
        for path in (
            "Makefile",
            "pyproject.toml",
            "constraints.txt",
            "README.md",
            "LICENSE",
            "runtime/instance_flow/pipeline.py",
            "models/instance-flow-everyday.onnx",
            "ros2_ws/setup/build.sh",
            "ros2_ws/src/instance_flow_msgs/package.xml",
            "ros2_ws/src/instance_flow_ros/setup.py",
            "deploy/run.sh",
            "deploy/provider.sh",
        )
    ],
)
def test_context_has(path: str) -> None:
    assert (ROOT / path).is_file()
    assert not ignored(path)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path)
        for path in (
            ".git/config",
            ".github/workflows/ci.yml",
            ".venv/bin/python",
            "ros2_ws/install/setup.bash",
            "ros2_ws/build/x",
            "runtime/instance_flow/__pycache__/x",
            "tests/conftest.py",
            "training/pyproject.toml",
            "export/pyproject.toml",
            "out/demo",
        )
    ],
)
def test_context_is_without(path: str) -> None:
    assert ignored(path)


def test_context_has_every_package_that_is_installed() -> None:
    """setuptools refuses to install where a folder that pyproject.toml names is missing."""
    folders = re.findall(r'^"?instance_flow[\w.]*"? = "([\w/]+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {"runtime/instance_flow", "models"} <= set(folders)
    assert [folder for folder in folders if ignored(folder)] == []


def test_install_takes_neither_torch_nor_what_tests_need(tmp_path: Path) -> None:
    """By what make would do for `make setup` in a folder where nothing is made yet."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "ros2_ws").symlink_to(ROOT / "ros2_ws")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    make = subprocess.run(
        ["make", "--dry-run", "setup"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
    )
    assert re.findall(r" -e (\S+)", make.stdout) == ["'.[bags]'"]
    assert "torch" not in make.stdout


def test_build_arguments_are_as_documented() -> None:
    wanted = {"BASE", "ROS_SETUP", "BUILD_PACKAGES", "RUN_PACKAGES", "PROVIDER", "PROVIDER_INDEX", "USER_ID"}
    assert set(re.findall(r"^ARG (\w+)=", TEXT, re.MULTILINE)) == wanted
    documented = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"`{name}`" in documented for name in wanted)
