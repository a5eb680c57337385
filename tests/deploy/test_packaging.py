# SPDX-License-Identifier: Apache-2.0
"""What `pip install` brings, wherever Python runs; one version in all places; the workflow that checks this."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = SETTINGS["project"]["version"]
# Where the version stands besides pyproject.toml, for tools that read nothing else, and how.
VERSION_TEXTS = {
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## \[(\d.+?)\] - \d{4}-\d\d-\d\d$",
    "ros2_ws/src/instance_flow_msgs/package.xml": r"<version>(.+)</version>",
    "ros2_ws/src/instance_flow_ros/package.xml": r"<version>(.+)</version>",
    "ros2_ws/src/instance_flow_ros/setup.py": r'version="(.+)"',
    "ros2_ws/src/instance_flow_examples/package.xml": r"<version>(.+)</version>",
}
# Folders of the repository that are installed, but hold no Python.
RESOURCES = {"instance_flow.models", "instance_flow.msg"}
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
LOAD = """
from importlib import resources
from instance_flow import Pipeline, __version__
from instance_flow.network.installation import message_definitions
print(__version__)
print(Pipeline.load(provider="cpu").info.class_names[0])
print(*message_definitions())
print(resources.files("instance_flow"))
"""


def build(folder: Path, hook: str, out: Path) -> Path:
    result = subprocess.run([sys.executable, "-c", BUILD, hook, str(out)], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return out / result.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel installs; the wheel is built of an sdist, so that this is looked at, too."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("runtime", "training", "export", "models", "ros2_ws/src/instance_flow_msgs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    with tarfile.open(build(source, "build_sdist", folder)) as sdist:
        sdist.extractall(folder / "sdist")
    (unpacked,) = (folder / "sdist").iterdir()
    with zipfile.ZipFile(build(unpacked, "build_wheel", folder)) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_every_package_is_named() -> None:
    """setuptools leaves out, without a word, what pyproject.toml does not name."""
    found = {
        ".".join(file.parent.relative_to(ROOT / root).parts)
        for root in ("runtime", "training", "export")
        for file in (ROOT / root).rglob("__init__.py")
    }
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == found | RESOURCES


def test_a_wheel_loads_its_model_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    version, name, messages, package = result.stdout.splitlines()
    assert version == VERSION
    assert name == "person"
    assert set(messages.split()) == {
        f"instance_flow_msgs/msg/{file.stem}" for file in ROOT.glob("ros2_ws/src/instance_flow_msgs/msg/*.msg")
    }
    assert Path(package) == installed / "instance_flow"


def test_a_wheel_has_the_bundled_model_and_no_other(installed: Path) -> None:
    models = installed / "instance_flow" / "models"
    assert {file.name for file in models.iterdir()} == {"instance-flow-everyday.onnx", "instance-flow-everyday.md"}
    assert (models / "instance-flow-everyday.onnx").read_bytes() == (
        ROOT / "models" / "instance-flow-everyday.onnx"
    ).read_bytes()


@pytest.mark.parametrize(("file", "pattern"), VERSION_TEXTS.items(), ids=VERSION_TEXTS)
def test_every_place_has_the_version_of_the_project(file: str, pattern: str) -> None:
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{file} has no {pattern}"
    assert found[1] == VERSION


def test_the_workflow_asks_for_what_there_is() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    (extras,) = re.findall(r"\.\[(.+?)\]", commands)
    assert set(extras.split(",")) == set(SETTINGS["project"]["optional-dependencies"])
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    assert set(re.findall(r"^make (\w+)", commands, re.MULTILINE)) <= set(targets[1].split())
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert SETTINGS["project"]["requires-python"] == f">={pythons[0]}"
