# SPDX-License-Identifier: Apache-2.0
"""What the doctor makes of facts, fact by fact; and the command as users start it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instance_flow.commands import cli
from instance_flow.doctor import python as node_side
from instance_flow.doctor.finding import OK, PROBLEM, WARNING, Finding, format_findings
from instance_flow.doctor.machine import (
    MEBIBYTE,
    Kernels,
    Processor,
    SharedMemory,
    inspect_shared_memory,
    inspect_sockets,
    judge_kernels,
    judge_opencv,
    judge_processor,
    judge_shared_memory,
    judge_sockets,
)
from instance_flow.doctor.providers import (
    WORKS,
    Runtime,
    inspect_model,
    judge_model,
    judge_nvidia,
    judge_runtime,
)
from instance_flow.doctor.python import NodePython, inspect_python, judge_messages, judge_python
from instance_flow.doctor.ros import (
    inspect_profile,
    installed_middleware,
    judge_discovery,
    judge_domain,
    judge_log_folder,
    judge_middleware,
    judge_profile,
)
from instance_flow.network.gpu.nvidia import Nvidia
from instance_flow.network.installation import message_definitions
from instance_flow.structures import ModelInfo

LITTLE, MUCH = 30 * MEBIBYTE, 4096 * MEBIBYTE
NO_GPU = Nvidia("", False, "", "", "")
GPU = Nvidia("550.54", True, "12.4", "12.2", "9.1.0")
BUILT_FOR_CPU = ("CPUExecutionProvider",)
BUILT_FOR_GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


def runtime(cuda: str, available: tuple[str, ...], missing: str = "", **packages: str) -> Runtime:
    named = {name.replace("_", "-"): version for name, version in (packages or {"onnxruntime": "1.20"}).items()}
    return Runtime(named, available, {"cpu": WORKS, "cuda": cuda, "tensorrt": "not here"}, missing)


MACHINE: dict[str, tuple[list[Finding], str, str]] = {
    "cores enough": (judge_processor(Processor(4, None)), OK, "4 cores"),
    "one core": (judge_processor(Processor(1, None)), WARNING, "two cores or more"),
    "container with a share": (judge_processor(Processor(16, 2.0)), WARNING, "--cpuset-cpus"),
    "share of all cores": (judge_processor(Processor(4, 4.0)), OK, "4 cores"),
    "no /dev/shm": (judge_shared_memory(None), PROBLEM, "no /dev/shm"),
    "/dev/shm full": (judge_shared_memory(SharedMemory(MUCH, LITTLE, 0, 0)), PROBLEM, "--shm-size"),
    "/dev/shm of a container": (
        judge_shared_memory(SharedMemory(64 * MEBIBYTE, 60 * MEBIBYTE, 0, 0)),
        WARNING,
        "60 MiB",
    ),
    "/dev/shm large": (judge_shared_memory(SharedMemory(MUCH, MUCH, 0, 0)), OK, "4096 MiB"),
    "another user": (
        judge_shared_memory(SharedMemory(MUCH, MUCH, 0, 0, ("robot", "user 1001")))[1:],
        WARNING,
        "processes of robot, user 1001 use it too",
    ),
    "left over": (judge_shared_memory(SharedMemory(MUCH, MUCH, 3, LITTLE))[1:], WARNING, "fastdds shm clean"),
    "sockets small": (
        judge_sockets({"net.core.rmem_max": 212992, "net.core.wmem_max": 4194304}),
        WARNING,
        "sysctl -w net.core.rmem_max=4194304`",
    ),
    "sockets large": (judge_sockets({"net.core.rmem_max": 4194304}), OK, "4194304"),
    "sockets hidden": (judge_sockets({}), OK, "on the host"),
    "kernels kept": (judge_kernels(Kernels(Path("/k"), True, True, 9)), OK, "9 there"),
    "kernels not yet": (judge_kernels(Kernels(Path("/k"), True, True, 0)), OK, "first start takes longer"),
    "kernels in /tmp": (judge_kernels(Kernels(Path("/tmp/k"), True, False, 9)), WARNING, "NUMBA_CACHE_DIR"),
    "kernels read-only": (judge_kernels(Kernels(Path("/k"), False, True, 9)), PROBLEM, "cannot be written"),
    "one OpenCV": (judge_opencv({"opencv-python": "4.10"}, "4.10"), OK, "4.10"),
    "OpenCV of the system": (judge_opencv({}, "4.6"), OK, "4.6"),
    "two OpenCVs": (
        judge_opencv({"opencv-python": "4.10", "opencv-python-headless": "4.9"}, "4.9"),
        WARNING,
        "pip uninstall -y opencv-python opencv-python-headless",
    ),
    "model": (judge_model(Path("m.onnx"), ModelInfo("m", ("a", "b"), (96, 128))), OK, "128 x 96 pixels, 2 classes"),
    "no model": (judge_model(Path("m.onnx"), "m.onnx: no such model file"), PROBLEM, "no such model file"),
    "no GPU": (judge_nvidia(NO_GPU), OK, "runs on the CPU"),
    "GPU": (judge_nvidia(GPU), OK, "driver 550.54 for CUDA up to 12.4; CUDA runtime 12.2, cuDNN 9.1.0"),
    "GPU without cuDNN": (judge_nvidia(Nvidia("550.54", True, "12.4", "12.2", "")), OK, "cuDNN not found"),
    "GPU outside of the container": (judge_nvidia(Nvidia("550.54", False, "", "", "")), WARNING, "--gpus all"),
    "GPU without its library": (judge_nvidia(Nvidia("550.54", True, "", "", "")), WARNING, "libcuda.so.1"),
    "driver too old": (judge_nvidia(Nvidia("470.1", True, "11.4", "12.2", "9.1.0")), PROBLEM, "newer driver"),
}


@pytest.mark.parametrize(("findings", "status", "words"), MACHINE.values(), ids=MACHINE)
def test_machine(findings: list[Finding], status: str, words: str) -> None:
    assert findings[0].status == status
    assert words in f"{findings[0].found} {findings[0].advice}"


PROVIDERS: dict[str, tuple[Runtime, Nvidia, str, str, str]] = {
    "cpu alone": (runtime("not built", BUILT_FOR_CPU), NO_GPU, "cuda", OK, "no NVIDIA GPU"),
    "GPU not used": (runtime("not built", BUILT_FOR_CPU), GPU, "cuda", WARNING, "pip install onnxruntime-gpu"),
    "GPU used": (runtime(WORKS, BUILT_FOR_GPU, onnxruntime_gpu="1.20"), GPU, "cuda", OK, WORKS),
    "library missing": (
        runtime("could not start", BUILT_FOR_GPU, "libcudnn.so.9", onnxruntime_gpu="1.20"),
        GPU,
        "cuda",
        PROBLEM,
        "libcudnn.so.9 is not found",
    ),
    "does not start": (
        runtime("could not start", BUILT_FOR_GPU, onnxruntime_gpu="1.20"),
        GPU,
        "cuda",
        PROBLEM,
        "could not start",
    ),
    "built for a GPU that is not there": (runtime("no", BUILT_FOR_GPU), NO_GPU, "cuda", OK, "built with CUDA"),
    "tensorrt": (runtime(WORKS, BUILT_FOR_GPU), GPU, "tensorrt", OK, "not needed"),
    "cpu broken": (
        Runtime({}, (), {"cpu": "no provider", "cuda": "", "tensorrt": ""}, ""),
        NO_GPU,
        "cpu",
        PROBLEM,
        "no provider",
    ),
}


@pytest.mark.parametrize(("found", "nvidia", "name", "status", "words"), PROVIDERS.values(), ids=PROVIDERS)
def test_providers(found: Runtime, nvidia: Nvidia, name: str, status: str, words: str) -> None:
    finding = next(f for f in judge_runtime(found, nvidia) if f.check == f"provider {name}")
    assert finding.status == status
    assert words in f"{finding.found} {finding.advice}"


@pytest.mark.parametrize(("nvidia", "kept"), [(GPU, "onnxruntime-gpu"), (NO_GPU, "onnxruntime")], ids=["GPU", "none"])
def test_both_onnxruntimes_are_a_problem(nvidia: Nvidia, kept: str) -> None:
    both = runtime(WORKS, BUILT_FOR_GPU, onnxruntime="1.20", onnxruntime_gpu="1.20")
    finding = judge_runtime(both, nvidia)[0]
    assert finding.status == PROBLEM
    assert f"then `pip install {kept}`" in finding.advice


SETTINGS: dict[str, tuple[Callable[[dict[str, str]], list[Finding]], dict[str, str], str, str]] = {
    "domain not set": (judge_domain, {}, OK, "domain 0"),
    "domain": (judge_domain, {"ROS_DOMAIN_ID": "42"}, OK, "42"),
    "domain too high": (judge_domain, {"ROS_DOMAIN_ID": "233"}, PROBLEM, "0 to 232"),
    "domain negative": (judge_domain, {"ROS_DOMAIN_ID": "-1"}, PROBLEM, "'-1' is no domain"),
    "domain a word": (judge_domain, {"ROS_DOMAIN_ID": "robot"}, PROBLEM, "'robot' is no domain"),
    "domain of busy ports": (judge_domain, {"ROS_DOMAIN_ID": "150"}, WARNING, "ports"),
    "domain above them": (judge_domain, {"ROS_DOMAIN_ID": "232"}, OK, "232"),
    "discovery as it is": (judge_discovery, {}, OK, "this network"),
    "discovery local": (judge_discovery, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, OK, "this machine only"),
    "discovery of old": (judge_discovery, {"ROS_LOCALHOST_ONLY": "1"}, OK, "this machine only"),
    "discovery off": (judge_discovery, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, WARNING, "hears only itself"),
    "discovery misspelt": (judge_discovery, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCAL"}, PROBLEM, "does not exist"),
    "transports without effect": (
        judge_discovery,
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
        WARNING,
        "no effect",
    ),
}


@pytest.mark.parametrize(("judge", "environment", "status", "words"), SETTINGS.values(), ids=SETTINGS)
def test_settings(
    judge: Callable[[dict[str, str]], list[Finding]], environment: dict[str, str], status: str, words: str
) -> None:
    (finding,) = judge(environment)
    assert finding.status == status
    assert words in f"{finding.found} {finding.advice}"


OLD, NEW = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
PROFILES: dict[str, tuple[dict[str, str], str, str]] = {
    "not set": ({}, WARNING, "In the shell of the driver run `export FASTRTPS"),
    "not set on Kilted": ({"ROS_DISTRO": "kilted"}, WARNING, "export FASTDDS"),
    "good": ({OLD: "{good}"}, OK, "good.xml"),
    "good on Kilted": ({"ROS_DISTRO": "kilted", NEW: "{good}"}, OK, "good.xml"),
    "both set": ({OLD: "{good}", NEW: "{good}"}, OK, "good.xml"),
    "of the other version": ({"ROS_DISTRO": "humble", NEW: "{good}"}, PROBLEM, "is not set, but that of another"),
    "empty": ({OLD: ""}, PROBLEM, f"unset {OLD}"),
    "no such file": ({OLD: "{folder}/none.xml"}, PROBLEM, "No such file"),
    "a folder": ({OLD: "{folder}"}, PROBLEM, "Is a directory"),
    "not XML": ({OLD: "{broken}"}, PROBLEM, "large images get lost"),
    "small segment": ({OLD: "{small}"}, WARNING, "65536 bytes"),
    "no segment": ({OLD: "{bare}"}, WARNING, "the default"),
}


@pytest.mark.parametrize(("environment", "status", "words"), PROFILES.values(), ids=PROFILES)
def test_profile(environment: dict[str, str], status: str, words: str, tmp_path: Path) -> None:
    segment = '<dds xmlns="http://www.eprosima.com"><segment_size>{}</segment_size></dds>'
    texts = {"good": segment.format(2**24), "small": segment.format(2**16), "bare": "<dds/>", "broken": "<dds>"}
    for name, text in texts.items():
        (tmp_path / f"{name}.xml").write_text(text)
    places = {name: str(tmp_path / f"{name}.xml") for name in texts} | {"folder": str(tmp_path)}
    environment = {name: value.format(**places) for name, value in environment.items()}
    (finding,) = judge_profile(inspect_profile(environment), environment)
    assert finding.status == status
    assert words in f"{finding.found} {finding.advice}"


def test_profile_matters_to_fast_dds_only() -> None:
    environment = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}
    assert judge_profile(inspect_profile(environment), environment) == []


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        ({}, OK),
        ({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, PROBLEM),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, OK),
    ],
    ids=["default", "not installed", "chosen"],
)
def test_middleware_is_one_that_the_index_has(environment: dict[str, str], status: str, tmp_path: Path) -> None:
    index = tmp_path / "share/ament_index/resource_index/rmw_typesupport"
    index.mkdir(parents=True)
    for name in ("rmw_fastrtps_cpp", "rmw_cyclonedds_cpp", "rmw_implementation"):
        (index / name).touch()
    installed = installed_middleware({"AMENT_PREFIX_PATH": f"/nowhere:{tmp_path}"})
    assert installed == ("rmw_cyclonedds_cpp", "rmw_fastrtps_cpp")
    assert judge_middleware(environment, installed)[0].status == status


def test_log_folder_must_be_one_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert judge_log_folder({"ROS_LOG_DIR": str(tmp_path / "new" / "log")})[0].status == OK
    assert judge_log_folder({"ROS_HOME": str(tmp_path)})[0].found == str(tmp_path / "log")
    for place in (tmp_path / "file" / "log", Path("/proc/log")):
        assert judge_log_folder({"ROS_LOG_DIR": str(place)})[0].status == PROBLEM


NO_ROS = "ModuleNotFoundError: No module named 'rclpy'"
NO_BRIDGE = "ModuleNotFoundError: No module named 'cv_bridge'"
IN_ROS = {"AMENT_PREFIX_PATH": "/opt/ros/jazzy"}


def node_python(
    version: str = "3.12.3",
    rclpy: str = "",
    runtime: str = "",
    messages: str = "",
    node: str = "",
    cv_bridge: str = NO_BRIDGE,
    ended_at: str = "",
    own_bridge: bool = False,
    found: tuple[str, ...] = (node_side.MESSAGES, node_side.NODE),
    ros_installed: tuple[str, ...] = (),
) -> NodePython:
    errors = {
        "numpy": "",
        "rclpy": rclpy,
        "instance_flow": runtime,
        "instance_flow_msgs.msg": messages,
        "instance_flow_ros.bridge": node,
        "cv_bridge": cv_bridge,
    }
    return NodePython(
        "/usr/bin/python3", version, "2.1", errors, ended_at, {}, {}, own_bridge, frozenset(found), ros_installed
    )


PYTHONS: dict[str, tuple[NodePython, dict[str, str], str, str]] = {
    "no ROS at all": (node_python(rclpy=NO_ROS), {}, WARNING, "commands work on files"),
    "ROS not sourced": (
        node_python(rclpy=NO_ROS, ros_installed=("humble", "jazzy")),
        {},
        PROBLEM,
        "source /opt/ros/jazzy/setup.bash",
    ),
    "ROS for another Python": (
        node_python(version="3.11.7", rclpy=NO_ROS),
        IN_ROS | {"PYTHONPATH": "/opt/ros/jazzy/lib/python3.12/site-packages"},
        PROBLEM,
        "for Python 3.12, but python3 is Python 3.11.7",
    ),
    "rclpy broken": (node_python(rclpy="ImportError: librcl_action.so"), IN_ROS, PROBLEM, "librcl_action.so"),
    "Python does not start": (node_python(version=""), IN_ROS, PROBLEM, "does not start"),
    "environment lost": (node_python(), {}, PROBLEM, "AMENT_PREFIX_PATH is not set"),
    "runtime in another environment": (
        node_python(runtime="ModuleNotFoundError: No module named 'instance_flow'", node="ImportError: instance_flow"),
        IN_ROS,
        PROBLEM,
        "/usr/bin/python3 -m pip install .",
    ),
    "runtime ends the process": (
        node_python(ended_at="instance_flow"),
        IN_ROS,
        PROBLEM,
        "importing instance_flow ends",
    ),
    "messages not built": (node_python(found=("instance_flow_ros",)), IN_ROS, PROBLEM, "colcon build"),
    "messages do not import": (node_python(messages="ImportError: numpy"), IN_ROS, PROBLEM, "does not import"),
    "node not built": (node_python(found=("instance_flow_msgs",)), IN_ROS, PROBLEM, "colcon build"),
    "cv_bridge ends the process": (node_python(ended_at="cv_bridge"), IN_ROS, PROBLEM, "it ends or hangs the process"),
}


@pytest.mark.parametrize(("python", "environment", "status", "words"), PYTHONS.values(), ids=PYTHONS)
def test_python_of_the_node(python: NodePython, environment: dict[str, str], status: str, words: str) -> None:
    findings = judge_python(python, environment)
    assert any(f.status == status and words in f"{f.found} {f.advice}" for f in findings), findings


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (node_python(), "not installed"),
        (node_python(cv_bridge="AttributeError: _ARRAY_API not found"), "not sound with numpy 2.1"),
        (node_python(cv_bridge="", own_bridge=True), "not sound with numpy 2.1"),
        (node_python(cv_bridge=""), "sound, and used"),
    ],
    ids=["none", "for another numpy", "of PyPI", "official"],
)
def test_cv_bridge_is_used_or_replaced(python: NodePython, words: str) -> None:
    finding = judge_python(python, IN_ROS)[-1]
    assert (finding.check, finding.status) == ("cv_bridge", OK)
    assert words in finding.found


def built_messages() -> dict[str, dict[str, str]]:
    """Fields of some classes as rosidl names them, written out by hand."""
    return {
        "p/msg/A": {"header": "std_msgs/Header", "x": "float", "flag": "boolean", "age": "double"},
        "p/msg/B": {"items": "sequence<instance_flow_msgs/Box2D>", "runs": "sequence<uint32>", "spread": "float[4]"},
    }


TEXT_A = "# About\nuint8 NEW=0  # a constant\nstd_msgs/Header header\n\nfloat32 x # px\nbool flag\nfloat64 age\n"
TEXT_B = "Box2D[] items\nuint32[] runs\nfloat32[4] spread"


@pytest.mark.parametrize(
    ("text", "stale"),
    [
        (TEXT_A, False),
        (TEXT_A + "uint8 state\n", True),
        (TEXT_A.replace("float32 x", "float64 x"), True),
        (TEXT_A.replace("bool flag\nfloat64 age", "float64 age\nbool flag"), True),
    ],
    ids=["same", "new field", "other type", "other order"],
)
def test_messages_are_in_step(text: str, stale: bool) -> None:
    (finding,) = judge_messages(built_messages(), {"p/msg/A": text, "p/msg/B": TEXT_B})
    assert finding.status == (PROBLEM if stale else OK)
    assert finding.found.startswith("A: " if stale else "2 ")


def test_messages_cannot_be_compared_without_our_texts() -> None:
    assert judge_messages(built_messages(), {})[0].status == PROBLEM


def test_message_that_was_never_built_is_stale() -> None:
    assert "ClassTable" in judge_messages({}, message_definitions())[0].found


def test_left_over_segments_are_those_whose_lock_is_free(tmp_path: Path) -> None:
    for name in ("0" * 16, "1" * 16):
        (tmp_path / f"fastrtps_{name}").write_bytes(bytes(1000))
        (tmp_path / f"fastrtps_{name}_el").touch()
    (tmp_path / "fastrtps_port7411").touch()
    with (tmp_path / f"fastrtps_{'1' * 16}_el").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        memory = inspect_shared_memory(tmp_path)
        seen_by_another = inspect_shared_memory(tmp_path, os.getuid() + 1)
    assert memory is not None
    assert (memory.leftovers, memory.leftover_bytes, memory.strangers) == (1, 1000, ())
    assert seen_by_another is not None
    assert seen_by_another.strangers == (tmp_path.owner(),)
    assert inspect_shared_memory(tmp_path / "none") is None


def test_sockets_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "rmem_max").write_text("212992\n")
    assert inspect_sockets(tmp_path) == {"net.core.rmem_max": 212992}


def test_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    path, info = inspect_model(tmp_path / "none.onnx")
    assert path == tmp_path / "none.onnx"
    assert isinstance(info, str)
    assert "none.onnx" in info


@pytest.fixture
def other_python(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """An environment in which Python finds a module cv_bridge of a given text before all others."""

    def with_module(text: str) -> dict[str, str]:
        (tmp_path / "cv_bridge.py").write_text(text)
        paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    return with_module


def test_python_says_what_it_can_import(other_python: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    environment = other_python("print('[\"a line of the module itself'); raise ValueError('for another numpy')")
    python = inspect_python(sys.executable, environment, opt=tmp_path)
    assert python.version == sys.version.split()[0]
    assert python.errors["instance_flow"] == ""
    assert python.errors["cv_bridge"] == "ValueError: for another numpy"
    assert python.ended_at == ""


def test_python_that_is_ended_by_a_module_names_it(other_python: Callable[[str], dict[str, str]]) -> None:
    python = inspect_python(sys.executable, other_python("import os; os.abort()"))
    assert python.ended_at == "cv_bridge"
    assert python.errors["instance_flow"] == ""


def test_python_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    python = inspect_python(str(tmp_path / "python3"), dict(os.environ))
    assert judge_python(python, IN_ROS)[0].status == PROBLEM


def test_table_has_the_worst_first_and_the_advice_below() -> None:
    findings = [Finding(OK, "a", "fine"), Finding(PROBLEM, "bb", "broken", "Fix it."), Finding(WARNING, "c", "slow")]
    assert format_findings(findings).splitlines() == [
        "problem  bb  broken",
        "             -> Fix it.",
        "warning  c   slow",
        "ok       a   fine",
    ]


def test_command_gives_1_and_says_why_where_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--listen", "0", str(tmp_path / "none.onnx")]) == 1
    worst = capsys.readouterr().out.splitlines()[0]
    assert worst.startswith("problem  model")
    assert "none.onnx" in worst


def test_command_gives_json(bundled_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor", "--listen", "0", "--json", str(bundled_model)])
    report = json.loads(capsys.readouterr().out)
    statuses = [finding["status"] for finding in report["findings"]]
    assert (statuses.count(PROBLEM), statuses.count(WARNING)) == (report["problems"], report["warnings"])
    assert code == (1 if report["problems"] else 0)
    model = next(finding for finding in report["findings"] if finding["check"] == "model")
    assert model["status"] == OK
    assert all(finding["advice"] for finding in report["findings"] if finding["status"] != OK)


@pytest.mark.parametrize("seconds", ["-1", "nan", "soon", "1e9"])
def test_time_to_listen_is_a_number_of_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["doctor", f"--listen={seconds}"])
    assert "is not a number from 0 to 600" in capsys.readouterr().err
