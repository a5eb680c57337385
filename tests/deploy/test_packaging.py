# SPDX-License-Identifier: Apache-2.0
"""What `pip install` brings, on a robot and for training; one version in all places; the workflow that checks this."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email import message_from_string
from email.message import Message
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
    "training/pyproject.toml": r'^version = "(.+)"$',
    "export/pyproject.toml": r'^version = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## \[(\d.+?)\] - \d{4}-\d\d-\d\d$",
    "ros2_ws/src/instance_flow_msgs/package.xml": r"<version>(.+)</version>",
    "ros2_ws/src/instance_flow_ros/package.xml": r"<version>(.+)</version>",
    "ros2_ws/src/instance_flow_ros/setup.py": r'version="(.+)"',
    "ros2_ws/src/instance_flow_examples/package.xml": r"<version>(.+)</version>",
}
# Folders of the distributions, and where their modules are.
DISTRIBUTIONS = {".": "runtime", "training": "training", "export": "export"}
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
LOAD = """
import sys
from importlib import resources
from instance_flow import Pipeline, __version__
from instance_flow.network.installation import message_definitions
print(__version__)
print(Pipeline.load(provider="cpu").info.class_names[0])
print(*message_definitions())
print(resources.files("instance_flow"))
print("torch" in sys.modules)
"""
WEIGHTS = """
import instance_flow_export.export
from instance_flow_training import own_labels
print(instance_flow_export.export.__file__)
print(own_labels.start_weights("everyday"))
"""


def build(folder: Path, hook: str, out: Path) -> Path:
    result = subprocess.run([sys.executable, "-c", BUILD, hook, str(out)], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return out / result.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each distribution's wheel, by folder; built of an sdist, so that this is looked at, too."""
    folder = tmp_path_factory.mktemp("wheels")
    source = folder / "source"
    for name in ("runtime", "training", "export", "models", "ros2_ws/src/instance_flow_msgs"):
        left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    found = {}
    for name in DISTRIBUTIONS:
        unpacked = folder / "sdist" / name
        with tarfile.open(build(source / name, "build_sdist", folder)) as sdist:
            sdist.extractall(unpacked)
        (inner,) = unpacked.glob("instance_flow*")
        found[name] = build(inner, "build_wheel", folder)
    return found


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the robot's wheel installs."""
    folder = tmp_path_factory.mktemp("robot")
    with zipfile.ZipFile(wheels["."]) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def complete(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where all wheels are installed, with their commands, without what they depend on."""
    folder = tmp_path_factory.mktemp("complete")
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, *map(str, wheels.values())]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(opened.read(name).decode())


def modules(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(".py") or name.endswith("py.typed"))


@pytest.mark.parametrize(("distribution", "root"), DISTRIBUTIONS.items(), ids=DISTRIBUTIONS)
def test_a_wheel_has_the_modules_of_its_folder_alone(wheels: dict[str, Path], distribution: str, root: str) -> None:
    """Each module is in one wheel; setuptools leaves out, without a word, what pyproject.toml does not name."""
    found = [str(p.relative_to(ROOT / root)) for p in (ROOT / root).glob("instance_flow*/**/*")]
    with zipfile.ZipFile(wheels[distribution]) as opened:
        assert modules(opened.namelist()) == modules(found)
        assert [name for name in opened.namelist() if name.endswith(".dist-info/licenses/LICENSE")]


def test_a_robot_gets_one_command_and_no_torch(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["."]) as opened:
        (scripts,) = [name for name in opened.namelist() if name.endswith("entry_points.txt")]
        commands = re.findall(r"^(\S+) = ", opened.read(scripts).decode(), re.MULTILINE)
        assert commands == ["instance-flow"]
    asked = metadata_of(wheels["."]).get_all("Requires-Dist", [])
    assert [name for name in asked if re.match("torch|lightning|tensorboard|onnx(script)?[>=]", name)] == []


@pytest.mark.parametrize(
    ("distribution", "needed"),
    [("training", f"instance-flow[bags]=={VERSION}"), ("export", f"instance-flow-training=={VERSION}")],
)
def test_distributions_of_one_version_belong_together(wheels: dict[str, Path], distribution: str, needed: str) -> None:
    metadata = metadata_of(wheels[distribution])
    assert needed in metadata.get_all("Requires-Dist", [])
    assert metadata["Version"] == VERSION


def test_a_wheel_loads_its_model_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    version, name, messages, package, torch = result.stdout.splitlines()
    assert version == VERSION
    assert name == "person"
    assert set(messages.split()) == {
        f"instance_flow_msgs/msg/{file.stem}" for file in ROOT.glob("ros2_ws/src/instance_flow_msgs/msg/*.msg")
    }
    assert Path(package) == installed / "instance_flow"
    assert torch == "False"


COMMANDS = {name: f"instance-flow{name}" for name in ("-train", "-data", " val")}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_commands_of_all_wheels_run_together(complete: Path, command: str, tmp_path: Path) -> None:
    program, *arguments = command.split()
    run = [sys.executable, str(complete / "bin" / program), *arguments, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(complete)}
    result = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: {command}")


def test_export_and_the_weights_to_train_from_are_of_the_wheels(complete: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(complete)}
    run = [sys.executable, "-c", WEIGHTS]
    result = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    export, weights = map(Path, result.stdout.splitlines())
    assert export.is_relative_to(complete)
    assert weights.is_relative_to(complete)
    assert weights.read_bytes() == (ROOT / "models" / "instance-flow-everyday.safetensors").read_bytes()


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
    ((extras, folders),) = re.findall(r"-e '\.\[(.+?)\]'((?: -e \./\w+)+)$", commands, re.MULTILINE)
    assert set(extras.split(",")) == set(SETTINGS["project"]["optional-dependencies"])
    assert {".", *re.findall(r"\./(\w+)", folders)} == set(DISTRIBUTIONS)
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    assert set(re.findall(r"^make (\w+)", commands, re.MULTILINE)) <= set(targets[1].split())
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert SETTINGS["project"]["requires-python"] == f">={pythons[0]}"


@pytest.mark.parametrize(
    ("changed", "installed"),
    {
        "nothing": ("README.md", []),
        "runtime": ("pyproject.toml", ["'.[bags]'", "'.[bags,cluster,compare,dev]'", "./training", "./export"]),
        "training": ("training/pyproject.toml", ["'.[bags,cluster,compare,dev]'", "./training", "./export"]),
        "export": ("export/pyproject.toml", ["'.[bags,cluster,compare,dev]'", "./training", "./export"]),
    }.values(),
    ids=["nothing", "runtime", "training", "export"],
)
def test_make_installs_again_what_changed(changed: str, installed: list[str], tmp_path: Path) -> None:
    """By what make would do for the tests in a folder where everything is installed."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "training", "export", "ros2_ws"):
        (tmp_path / name).symlink_to(ROOT / name)
    stamps = tmp_path / ".venv" / "stamps"
    stamps.mkdir(parents=True)
    for name in ("environment", "run", "ros", "workspace", "develop"):
        (stamps / name).touch()
    command = ["make", "--dry-run", f"--what-if={changed}", str(stamps.relative_to(tmp_path) / "develop")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    make = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
    assert re.findall(r" -e (\S+)", make.stdout) == installed
