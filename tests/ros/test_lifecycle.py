# SPDX-License-Identifier: Apache-2.0
"""How a node begins and ends."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
from blobs import RED, draw, write_model
from diagnostic_msgs.msg import DiagnosticStatus
from node_process import program
from probe import Probe, to_message
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool

SECOND = 10**9


@pytest.fixture
def slow_model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model with so many products of matrices; see blobs.py."""
    write_model(tmp_path / "slow.onnx", work=request.param)
    return tmp_path / "slow.onnx"


@pytest.fixture(scope="module")
def node_to_mend(start_for_all: Callable[..., Probe], blobs_model: Path) -> Probe:
    """A node that is not configured; every test leaves it so."""
    return start_for_all(model=blobs_model, provider="cpu", autostart=False)


def test_round_trip_through_all_states(start: Callable[..., Probe], blobs_model: Path) -> None:
    node = start(model=blobs_model, autostart=False)
    assert node.state() == "unconfigured"
    for round_trip in (1, 2):
        assert node.change_state("configure")
        assert node.change_state("activate")
        node.answers.clear()
        assert node.until_active().ask(draw([(30, 40, RED)]), SECOND).frame_index == 0, round_trip
        assert node.change_state("deactivate")
        assert node.state() == "inactive"
        assert node.change_state("cleanup")
        assert node.state() == "unconfigured"
    assert node.change_state("shutdown")
    assert node.state() == "finalized"
    status = node.next_status()
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "shut down for good; start the process again")


def test_help_starts_no_node() -> None:
    done = subprocess.run([program(), "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.startswith("usage: instance_flow_node"), done.stderr) == (0, True, "")


def test_missing_model_is_told_and_can_be_mended(
    start: Callable[..., Probe], blobs_model: Path, tmp_path: Path
) -> None:
    missing, foreign = tmp_path / "missing.onnx", tmp_path / "foreign.onnx"
    node = start(model=missing)
    assert node.state() == "unconfigured"
    assert f"{missing}: no such model file" in node.process.log()
    assert f"{missing}: no such model file" in node.next_status().message
    write_model(foreign, describe=False)
    assert node.set_parameter("model", str(foreign))[0]
    assert not node.change_state("configure")
    assert f"{foreign}: an ONNX model, but not one of instance-flow" in node.process.log()
    assert node.set_parameter("model", str(blobs_model))[0]
    assert node.change_state("configure")
    assert node.state() == "inactive"
    assert "Traceback" not in node.process.log()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        pytest.param("affinity", "two", "affinity is 'two'; it must be cores such as 2,3 or 2-5", id="no_core"),
        pytest.param("affinity", "1000", "this process may not use core 1000", id="core_that_is_not_there"),
        pytest.param("cuda_graph", True, "cuda", id="cuda_graph_on_the_cpu"),
    ],
)
def test_execution_that_cannot_be_is_told_and_can_be_mended(
    node_to_mend: Probe, name: str, value: Any, reason: str
) -> None:
    assert node_to_mend.set_parameter(name, value)[0]
    assert not node_to_mend.change_state("configure")
    assert reason in node_to_mend.next_status().message
    assert node_to_mend.set_parameter(name, type(value)())[0]
    assert node_to_mend.change_state("configure")
    assert node_to_mend.change_state("cleanup")
    assert "Traceback" not in node_to_mend.process.log()


def test_threads_out_of_range_end_the_process_with_a_word(start: Callable[..., Probe]) -> None:
    process = start(threads=-1).process
    assert process.wait() == 1
    assert "threads" in process.log()
    assert "Traceback" not in process.log()


def test_activation_that_fails_is_told_and_leaves_nothing_behind(
    start: Callable[..., Probe], blobs_model: Path
) -> None:
    """A QoS that does not exist is found out only when the subscription is made."""
    node = start(
        {"image": "/bad_qos"},
        model=blobs_model,
        **{"qos_overrides./bad_qos.subscription.reliability": "sometimes"},
    )
    assert node.state() == "inactive"
    assert "subscribing to /bad_qos failed" in node.process.log()
    assert not node.change_state("activate")
    assert node.state() == "inactive"
    status = node.next_status()
    assert (status.level, "subscribing to /bad_qos failed" in status.message) == (DiagnosticStatus.ERROR, True)
    assert node.call(SetBool, "enable", SetBool.Request(data=False)).success
    assert node.change_state("activate")
    response = node.call(SetBool, "enable", SetBool.Request(data=True))
    assert (response.success, "subscribing to /bad_qos failed" in response.message) == (False, True)
    assert node.state() == "active"
    assert node.change_state("deactivate")
    assert node.change_state("cleanup")
    assert node.change_state("configure")
    instances = node.node.resolve_topic_name("instance_flow/instances")
    node.until(lambda: len(node.node.get_publishers_info_by_topic(instances)) == 1, "one publisher of instances")
    assert "Traceback" not in node.process.log()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_signal_ends_the_node_cleanly(start: Callable[..., Probe], blobs_model: Path, how: signal.Signals) -> None:
    node = start(model=blobs_model).until_active()
    node.ask(draw([(30, 40, RED)]), SECOND)
    assert node.process.stop(how) == 0, node.process.log()
    assert "Traceback" not in node.process.log()


@pytest.mark.parametrize("slow_model", [2], indirect=True, ids=[""])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_signal_ends_a_busy_node_cleanly(start: Callable[..., Probe], slow_model: Path, how: signal.Signals) -> None:
    node = start(model=slow_model, provider="cpu", references=1).until_active()
    node.ask(draw([(30, 40, RED)]), SECOND)
    for step in range(1, 4):  # One is in work and one waits, or more are on their way.
        node.send(to_message(draw([(30, 40, RED)]), (step + 1) * SECOND))
    assert node.process.stop(how) == 0, node.process.log()
    assert "Traceback" not in node.process.log()


@pytest.mark.parametrize("slow_model", [6], indirect=True, ids=[""])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_impatient_ctrl_c_does_no_harm(start: Callable[..., Probe], slow_model: Path, first: signal.Signals) -> None:
    node = start(model=slow_model, provider="cpu", references=1).until_active()
    node.ask(draw([(30, 40, RED)]), SECOND)
    node.send(to_message(draw([(30, 40, RED)]), 2 * SECOND))
    with pytest.raises(subprocess.TimeoutExpired):
        node.process.wait(0.05)
    os.kill(node.process.pid, first)
    with pytest.raises(subprocess.TimeoutExpired):
        node.process.wait(0.05)
    assert node.process.stop(signal.SIGINT) == 0, node.process.log()
    assert "Traceback" not in node.process.log()


@pytest.mark.parametrize("slow_model", [12], indirect=True, ids=[""])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_signal_ends_a_node_that_is_still_configuring(
    start: Callable[..., Probe], slow_model: Path, how: signal.Signals
) -> None:
    node = start(model=slow_model, provider="cpu")
    node.until_logged("s so far)")
    assert node.process.stop(how) == 0, node.process.log()
    assert "ready after" not in node.process.log()
    assert "Traceback" not in node.process.log()


def test_fifty_rounds_leave_nothing_behind(start: Callable[..., Probe], blobs_model: Path) -> None:
    """What the first rounds allocate for good is allowed for; more than that is growth."""
    node = start(model=blobs_model, provider="cpu", autostart=False)

    def rounds(number: int) -> Footprint:
        for _ in range(number):
            for transition in ("configure", "activate", "deactivate", "cleanup"):
                assert node.change_state(transition), node.process.log_tail()
        topics = node.node.get_publisher_names_and_types_by_node("instance_flow", node.node.get_namespace())
        return Footprint.of(node.process.pid, len(topics))

    early, late = rounds(5), rounds(45)
    assert dataclasses.replace(late, memory=0) == dataclasses.replace(early, memory=0)
    assert late.memory - early.memory < 8 * 2**20
    assert node.change_state("configure")
    assert node.change_state("activate")
    assert [i.class_name for i in node.until_active().ask(draw([(30, 40, RED)]), SECOND).instances] == ["red"]


@dataclass(frozen=True)
class Footprint:
    """What a process holds. shared: segments of shared memory.  topics: that it publishes.  memory: bytes."""

    threads: int
    files: int
    shared: int
    topics: int
    memory: int

    @classmethod
    def of(cls, pid: int, topics: int) -> Footprint:
        folder = Path(f"/proc/{pid}")
        shared = {line.split()[-1] for line in (folder / "maps").read_text().splitlines() if "/dev/shm/" in line}
        resident = int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
        threads, files = (len(list((folder / name).iterdir())) for name in ("task", "fd"))
        return cls(threads, files, len(shared), topics, resident)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        pytest.param({"center_threshold": 7.0}, "center_threshold", id="out_of_range"),
        pytest.param({"max_instances": "many"}, "max_instances", id="wrong_type"),
    ],
)
def test_parameter_that_cannot_be_ends_the_node_with_a_line(
    start: Callable[..., Probe], parameters: dict[str, object], words: str
) -> None:
    node = start(**parameters)
    assert node.process.wait() == 1
    assert words in node.process.log_tail(1)
    assert "Traceback" not in node.process.log()


def test_unknown_parameter_is_told_with_the_known_ones(start: Callable[..., Probe], blobs_model: Path) -> None:
    node = start(model=blobs_model, centre_threshold=0.5).until_active()
    assert "parameter centre_threshold is not known" in node.process.log()
    assert "center_threshold" in node.process.log()


def test_compressed_images_over_a_reliable_connection(start: Callable[..., Probe], blobs_model: Path) -> None:
    topic = "/compressed_camera/image_raw/compressed"
    node = start(
        {"image": "/compressed_camera/image_raw"},
        model=blobs_model,
        image_transport="compressed",
        **{f"qos_overrides.{topic}.subscription.reliability": "reliable"},
    )
    publisher = node.node.create_publisher(CompressedImage, topic, 1)
    node.until(publisher.get_subscription_count, "a subscription to compressed images")
    subscription = node.node.get_subscriptions_info_by_topic(topic)[0]
    assert subscription.qos_profile.reliability.name == "RELIABLE"
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(draw([(30, 40, RED)]), cv2.COLOR_RGB2BGR))[1]
    header = to_message(draw([]), SECOND).header
    publisher.publish(CompressedImage(header=header, format="jpeg", data=b"not a picture"))
    publisher.publish(CompressedImage(header=header, format="jpeg", data=jpeg.tobytes()))
    answer = node.until(lambda: node.answers, "an answer to a JPEG")[0]
    assert (answer.header, [i.class_name for i in answer.instances]) == (header, ["red"])
