# SPDX-License-Identifier: Apache-2.0
"""Several cameras in one node: one model, and each camera its own images, ids, services' effects and diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from blobs import BLUE, RED, draw, write_model
from diagnostic_msgs.msg import DiagnosticStatus
from probe import Probe, ProbeCamera, to_message, values
from std_srvs.srv import Trigger

SECOND = 10**9
TWO = draw([(30, 40, RED), (90, 50, BLUE)])
ONE = draw([(60, 40, BLUE)])


@pytest.fixture(scope="module")
def node(start_for_all: Callable[..., Probe], tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """A node of two cameras, with a model that is slower than any of them."""
    path = tmp_path_factory.mktemp("model") / "slow.onnx"
    write_model(path, work=1)
    node = start_for_all(model=path, provider="cpu", references=1, cameras="[front, rear]")
    node.until(lambda: node.state() == "active", "state active")
    return node


@pytest.fixture(scope="module")
def front(node: Probe) -> ProbeCamera:
    return ProbeCamera(node, "front").until_heard()


@pytest.fixture(scope="module")
def rear(node: Probe) -> ProbeCamera:
    return ProbeCamera(node, "rear").until_heard()


@pytest.fixture(autouse=True)
def _fresh_streams(node: Probe) -> None:
    assert node.call(Trigger, "reset", Trigger.Request()).success


def test_every_camera_has_ids_and_frames_of_its_own(front: ProbeCamera, rear: ProbeCamera) -> None:
    for frame in range(3):
        first = front.ask(to_message(TWO, (frame + 1) * SECOND))
        second = rear.ask(to_message(ONE, (frame + 1) * SECOND))
        assert (first.frame_index, [(i.id, i.class_name) for i in first.instances]) == (
            frame,
            [(1, "red"), (2, "blue")],
        )
        assert (second.frame_index, [(i.id, i.class_name) for i in second.instances]) == (frame, [(1, "blue")])


def test_break_of_one_stream_leaves_the_other_alone(node: Probe, front: ProbeCamera, rear: ProbeCamera) -> None:
    for frame in range(2):
        front.ask(to_message(TWO, (50 + frame) * SECOND))
        rear.ask(to_message(ONE, (50 + frame) * SECOND))
    assert front.ask(to_message(TWO, 7 * SECOND)).frame_index == 0
    assert rear.ask(to_message(ONE, 52 * SECOND)).frame_index == 2
    log = node.process.log()
    assert log.count("stamps ran back by 44.000 s") == 1
    assert "front/image: the image stamps ran back by 44.000 s" in log


def test_each_camera_tells_what_is_wrong_with_its_images(node: Probe, front: ProbeCamera, rear: ProbeCamera) -> None:
    """The lines about one camera's frames are few, but never at the cost of another's."""
    broken = to_message(TWO, SECOND)
    broken.step = 10
    for name, camera in (("front", front), ("rear", rear)):
        camera.ask(to_message(TWO, SECOND))
        camera.send(broken)
        node.until_logged(f"{name}/image: an image could not be used: ")


def test_reset_is_for_all(node: Probe, front: ProbeCamera, rear: ProbeCamera) -> None:
    assert [camera.ask(to_message(TWO, SECOND)).frame_index for camera in (front, rear)] == [0, 0]
    assert [camera.ask(to_message(TWO, SECOND + 1)).frame_index for camera in (front, rear)] == [1, 1]
    assert node.call(Trigger, "reset", Trigger.Request()).success
    assert [camera.ask(to_message(TWO, SECOND + 2)).frame_index for camera in (front, rear)] == [0, 0]


def test_camera_that_floods_does_not_starve_the_other(node: Probe, front: ProbeCamera, rear: ProbeCamera) -> None:
    """With one image of the other waiting, no more than the one in work and one more come before it."""
    stamps = iter(range(1, 10**6))
    timer = node.node.create_timer(0.02, lambda: front.send(to_message(TWO, next(stamps) * SECOND // 50)))
    front.answers.clear()
    node.until(lambda: len(front.answers) > 2, "answers to the camera that floods")
    turns = []
    for frame in range(3):
        heard = len(front.answers)
        rear.ask(to_message(ONE, (frame + 1) * SECOND))
        turns.append(len(front.answers) - heard)
    node.node.destroy_timer(timer)
    assert max(turns) <= 3, turns  # One may be heard that was answered before.
    dropped = [int(values(node.next_status(name))["frames dropped"]) for name in ("front", "rear")]
    assert (dropped[0] > 0, dropped[1]) == (True, 0)


def test_diagnostics_are_told_by_camera(node: Probe, front: ProbeCamera) -> None:
    stamps = iter(range(1, 10**6))

    def front_alone() -> bool:
        front.ask(to_message(TWO, next(stamps) * SECOND))
        latest = [node.statuses_of(name)[-1:] for name in ("front", "rear")]
        return [[s.level for s in status] for status in latest] == [[DiagnosticStatus.OK], [DiagnosticStatus.WARN]]

    node.until(front_alone, "diagnostics of one busy and one idle camera")
    assert node.statuses_of("front")[-1].message == "tracking"
    assert "rear/image" in node.statuses_of("rear")[-1].message


def test_one_model_serves_all(node: Probe) -> None:
    assert node.process.log().count("model blobs runs on cpu") == 1


@pytest.mark.parametrize(
    ("cameras", "reason"),
    [
        pytest.param("[front, front]", "'front' twice", id="the_same_name_twice"),
        pytest.param("[front/left]", "'front/left'", id="name_that_is_none"),
    ],
)
def test_impossible_names_are_told(start: Callable[..., Probe], blobs_model: Path, cameras: str, reason: str) -> None:
    node = start(model=blobs_model, cameras=cameras)
    assert node.state() == "unconfigured"
    assert reason in node.process.log()
    assert "Traceback" not in node.process.log()
