# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile as far as it can be judged without an engine, and what goes into the image."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from dockerfile import build_arguments, complaints, ignored, parse  # noqa: E402

TEXT = (ROOT / "Dockerfile").read_text()
APT = "apt-get update && apt-get install -y --no-install-recommends {} && rm -rf /var/lib/apt/lists/*"
GOOD = """
ARG BASE=ros:jazzy-ros-core-noble
FROM ${BASE} AS build
COPY . .
FROM ${BASE}
COPY --from=build /opt/app /opt/app
USER 1000
HEALTHCHECK CMD ["/opt/app/deploy/run.sh", "check"]
"""


def test_nothing_is_wrong_with_ours() -> None:
    assert complaints(TEXT, ROOT) == []


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert complaints(GOOD, ROOT) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param("ros:jazzy-ros-core-noble", "ros", "not pinned", id="base without a tag"),
        pytest.param("ros:jazzy-ros-core-noble", "ros:latest", "not pinned", id="base latest"),
        pytest.param("COPY . .", "COPY nowhere .", "not in the context", id="source that is not there"),
        pytest.param("COPY . .", "COPY tests .", "not in the context", id="source that is ignored"),
        pytest.param("--from=build", "--from=built", "no such stage", id="unknown stage"),
        pytest.param("USER 1000", "", "as user root", id="no user"),
        pytest.param("USER 1000", "USER root", "as user root", id="user root"),
        pytest.param("USER 1000", "ARG UID=0\nUSER ${UID}:1", "as user", id="user 0 by an argument"),
        pytest.param("USER 1000", "RUN id ${UID}\nUSER 1", "UID, which nothing gives", id="argument of another stage"),
        pytest.param("HEALTHCHECK CMD", "LABEL x=", "no health check", id="no health check"),
        pytest.param("run.sh", "walk.sh", "not an executable", id="health check of a script that is not there"),
        pytest.param("run.sh", "instance-flow.env", "not an executable", id="health check that cannot be run"),
        pytest.param('["/opt/app/deploy/run.sh", "check"]', "check", "exec form", id="health check in shell form"),
        pytest.param("COPY . .", "RUN if true; then echo", "cannot read", id="shell that does not parse"),
        pytest.param("COPY . .", "RUN apt-get install -y make", "is not: apt-get update", id="apt without update"),
        pytest.param("COPY . .", f"RUN {APT.format('Make')}", "well-formed", id="apt package with a capital"),
        pytest.param("COPY . .", f"RUN {APT.format('make g++')}", "sorted", id="apt packages out of order"),
    ],
)
def test_what_is_wrong_is_said(old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    assert any(complaint in found for found in complaints(GOOD.replace(old, new), ROOT))


def test_what_only_building_needs_stays_behind() -> None:
    last = parse(TEXT)[-1]
    assert len(parse(TEXT)) > 1
    assert not any(re.search(r"g\+\+|pip|colcon|make|-dev", last.filled(rest)) for _, rest in last.instructions)


def test_health_check_goes_through_the_entry_point() -> None:
    """Docker runs it without the entry point, so without ROS."""
    last = parse(TEXT)[-1]
    (entry,) = re.findall(r'"(.*?)"', last.last("ENTRYPOINT"))
    assert re.findall(r'"(.*?)"', last.last("HEALTHCHECK"))[:2] == [entry, "instance_flow_healthcheck"]


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
    assert not ignored(path, ROOT)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path)
        for path in (
            ".git/config",
            ".venv/bin/python",
            "ros2_ws/install/setup.bash",
            "ros2_ws/build/x",
            "runtime/instance_flow/__pycache__/x",
            "tests/conftest.py",
            "training/configs",
            "out/demo",
        )
    ],
)
def test_context_is_without(path: str) -> None:
    assert ignored(path, ROOT)


def test_context_has_every_package_that_is_installed() -> None:
    """setuptools refuses to install where a folder that pyproject.toml names is missing."""
    folders = re.findall(r'^"?instance_flow[\w.]*"? = "([\w/]+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {"runtime/instance_flow", "models"} <= set(folders)
    assert [folder for folder in folders if ignored(folder, ROOT)] == []


def test_install_takes_neither_torch_nor_what_tests_need(tmp_path: Path) -> None:
    """By what make would do for `make setup` in a folder where nothing is made yet."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "ros2_ws").symlink_to(ROOT / "ros2_ws")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    make = subprocess.run(
        ["make", "--dry-run", "setup"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
    )
    assert re.findall(r"-e '\.\[(.*?)\]'", make.stdout) == ["bags"]
    assert "torch" not in make.stdout


def test_build_arguments_are_as_documented() -> None:
    wanted = {"BASE", "ROS_SETUP", "BUILD_PACKAGES", "RUN_PACKAGES", "PROVIDER", "PROVIDER_INDEX", "USER_ID"}
    assert build_arguments(TEXT) == wanted
    documented = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"`{name}`" in documented for name in wanted)
