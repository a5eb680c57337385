# SPDX-License-Identifier: Apache-2.0
"""The scripts of deploy/: what they say to wrong arguments, and what environment they make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


PYTHON = """#!{python}
# Stands for the Python of an environment: keeps a log of what pip was asked for, and makes a wheel of a few bytes.
import os, sys, zipfile
command = sys.argv[1:]
log = open("{log}", "a")
fault = "{fault}"
if command[:2] == ["-m", "pip"]:
    words = command[4:]
    print(*words, file=log)
    if words[0] == "wheel" and fault != "download":
        folder = words[words.index("--wheel-dir") + 1]
        wheel = os.path.join(folder, "onnxruntime_gpu-1.0-py3-none-any.whl")
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("onnxruntime.py", "get_available_providers = lambda: ['{provides}']\\n" * 20)
        if fault == "damaged":
            data = bytearray(open(wheel, "rb").read())
            data[60] ^= 255
            open(wheel, "wb").write(data)
    if words[0] == "install" and "--target" in words and fault != "install":
        zipfile.ZipFile(words[-1]).extractall(words[words.index("--target") + 1])
    sys.exit(fault == {{"wheel": "download", "install": "install"}}.get(words[0]))
if command[0] == "-c":
    print("ONNX Runtime")
else:
    os.execv(sys.executable, [sys.executable, *command])
"""


def replace_provider(environment: Path, provider: str, fault: str = "") -> tuple[int, str, list[str]]:
    """Run provider.sh with a Python that would install nothing: exit code, errors, and what pip was asked for."""
    python, log = environment / "bin" / "python", environment / "log"
    python.unlink()
    provides = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[provider]
    provides = "CPUExecutionProvider" if fault == "provider" else provides
    python.write_text(PYTHON.format(python=sys.executable, log=log, fault=fault, provides=provides))
    python.chmod(0o755)
    ended = run(DEPLOY / "provider.sh", environment, provider)
    return ended.returncode, ended.stderr, log.read_text().splitlines()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_provider_downloads_and_checks_before_it_removes(environment: Path, provider: str) -> None:
    code, errors, asked = replace_provider(environment, provider)
    assert (code, errors) == (0, "")
    assert [line.split()[0] for line in asked] == ["wheel", "install", "uninstall", "install"]
    assert ("--target" in asked[1], "--no-index" in asked[3], "onnxruntime-gpu" in asked[3]) == (True, True, True)
    # The release that is tested on the CPU.
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("onnxruntime=="))
    assert f"onnxruntime-gpu[cuda,cudnn]=={pin.partition('==')[2]}" in asked[0]
    assert not list(environment.glob("provider.*"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("download", "could not be downloaded", id="no network"),
        pytest.param("damaged", "onnxruntime_gpu-1.0-py3-none-any.whl was downloaded damaged", id="damaged wheel"),
        pytest.param("install", "does not fit this Python", id="wheel for another Python"),
        pytest.param("provider", "does not start", id="build without the provider"),
    ],
)
def test_provider_leaves_what_is_there_where_the_new_one_is_not_sound(
    environment: Path, fault: str, words: str
) -> None:
    code, errors, asked = replace_provider(environment, "cuda", fault)
    assert code != 0
    assert f"{words}; nothing was changed in {environment}" in errors
    assert not [line for line in asked if line.startswith("uninstall")]
    assert not list(environment.glob("provider.*"))


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
