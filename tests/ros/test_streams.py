# SPDX-License-Identifier: Apache-2.0
"""What a stream of images may do: come by any QoS, pause, break, end and begin again, come too fast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from blobs import BLUE, INFO, RED, draw, write_model
from diagnostic_msgs.msg import DiagnosticStatus
from instance_flow_msgs.msg import ClassTable, TrackedInstance
from lifecycle_msgs.srv import GetState
from probe import Probe, ProbeCamera, to_message, values
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

SECOND = 10**9
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PICTURE = draw([(30, 40, RED), (90, 50, BLUE)])


@pytest.fixture(scope="module")
def node(start_for_all: Callable[..., Probe], blobs_model: Path) -> Probe:
    """One node for most tests of this file; each begins with a reset."""
    return start_for_all(model=blobs_model, provider="cpu").until_active()


@pytest.fixture(scope="module")
def slow_node(start_for_all: Callable[..., Probe], tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """A node that needs a tenth of a second or more for each image."""
    path = tmp_path_factory.mktemp("model") / "slow.onnx"
    write_model(path, work=3)
    return start_for_all(model=path, provider="cpu", references=1).until_active()


@pytest.fixture(autouse=True)
def _fresh_stream(request: pytest.FixtureRequest) -> None:
    for name in {"node", "slow_node"} & set(request.fixturenames):
        assert request.getfixturevalue(name).call(Trigger, "reset", Trigger.Request()).success


@pytest.mark.parametrize("qos", [BEST_EFFORT, RELIABLE], ids=["best_effort", "reliable"])
def test_driver_of_either_reliability_is_heard_and_may_start_again(node: Probe, qos: QoSProfile) -> None:
    """The node continues where it was: a driver that restarts is no reason to lose ids."""
    first = ProbeCamera(node, qos=qos).until_heard()
    before = first.ask(to_message(PICTURE, SECOND))
    first.close()
    second = ProbeCamera(node, qos=qos).until_heard()
    after = second.ask(to_message(PICTURE, SECOND + SECOND // 10))
    second.close()
    assert [i.id for i in before.instances] == [i.id for i in after.instances] == [1, 2]
    assert after.frame_index > before.frame_index
    assert {i.state for i in after.instances} == {TrackedInstance.TRACKED}


def test_late_joiner_gets_the_class_table_and_the_next_answers(node: Probe) -> None:
    node.ask(PICTURE, SECOND)
    tables = node.listen(ClassTable, "instance_flow/class_table", LATCHED)
    (table,) = node.until(lambda: tables, "the class table")
    assert (table.model, tuple(table.class_names)) == (INFO.name, INFO.class_names)
    late = ProbeCamera(node).until_heard()
    assert [i.id for i in late.ask(to_message(PICTURE, SECOND + SECOND // 10)).instances] == [1, 2]
    late.close()


@pytest.mark.parametrize(
    ("stamp", "encoding", "reason"),
    [
        pytest.param(14 * SECOND, "rgb8", "4.000 s passed", id="gap"),
        pytest.param(10 * SECOND + 1, "bgr8", "encoding changed from rgb8 to bgr8", id="encoding"),
    ],
)
def test_interruption_keeps_ids_and_is_said_once(node: Probe, stamp: int, encoding: str, reason: str) -> None:
    """References are forgotten; what looks the same is re-identified by appearance."""
    for step in range(9, -1, -1):
        node.ask(PICTURE, 10 * SECOND - step * SECOND // 10)
    image = PICTURE if encoding == "rgb8" else PICTURE[:, :, ::-1]
    answer = node.camera.ask(to_message(image, stamp, encoding))
    assert [(i.id, i.class_name, i.state) for i in answer.instances] == [
        (1, "red", TrackedInstance.RECOVERED),
        (2, "blue", TrackedInstance.RECOVERED),
    ]
    assert node.camera.ask(to_message(image, stamp + 1, encoding)).instances[0].state == TrackedInstance.TRACKED
    assert node.process.log().count(reason) == 1


def test_gap_up_to_the_limit_is_none(node: Probe) -> None:
    assert node.set_parameter("max_gap", 5.0) == (True, "")
    node.ask(PICTURE, 10 * SECOND)
    answer = node.ask(PICTURE, 15 * SECOND)
    assert node.set_parameter("max_gap", 2.0) == (True, "")
    assert {(i.id, i.state) for i in answer.instances} == {(1, TrackedInstance.TRACKED), (2, TrackedInstance.TRACKED)}


@pytest.mark.parametrize(
    ("size", "stamp", "reason"),
    [
        pytest.param((96, 128), 2 * SECOND, "stamps ran back by 18.000 s", id="bag_loops"),
        pytest.param((64, 96), 21 * SECOND, "size changed from 128 x 96 to 96 x 64", id="size_changes"),
    ],
)
def test_new_scene_begins_with_id_1_and_is_said_once(
    node: Probe, size: tuple[int, int], stamp: int, reason: str
) -> None:
    for index in range(3):
        node.ask(PICTURE, 20 * SECOND - 2 + index)
    for index in range(2):
        answer = node.ask(draw([(30, 40, BLUE)], size), stamp + index)
        assert (answer.frame_index, [(i.id, i.class_name) for i in answer.instances]) == (index, [(1, "blue")])
        assert (answer.height, answer.width) == size
    assert node.process.log().count(reason) == 1


def test_row_of_breaks_is_said_once_and_stands_in_the_diagnostics(node: Probe) -> None:
    """As of two cameras on one topic: ids that begin at 1 with every image are no tracking, and no flood of lines."""
    before = node.process.log().count("the image size changed")
    stamps = iter(range(1, 10**6))

    def warned() -> DiagnosticStatus | None:
        for size in ((96, 128), (80, 128)):
            node.ask(draw([(30, 40, BLUE)], size), next(stamps) * SECOND // 10)
        return first_with(node.statuses[-1:], "again and again the image size changed")

    assert node.until(warned, "a status of breaks").level == DiagnosticStatus.WARN
    assert node.process.log().count("the image size changed") == before + 1


def test_all_that_is_wrong_in_a_period_is_in_one_status(node: Probe) -> None:
    """As diagnostic_updater merges warnings: none hides another."""
    stamps = iter(range(1, 10**6))

    def warned() -> DiagnosticStatus | None:
        for size in ((96, 128), (80, 128)):
            node.ask(draw([(30, 40, BLUE)], size), next(stamps) * SECOND // 10)
        bad = to_message(PICTURE, next(stamps) * SECOND // 10)
        bad.encoding = "rgb9"
        node.send(bad)
        return first_with([s for s in node.statuses if "'rgb9' is not supported" in s.message], "; again and again")

    status = node.until(warned, "a status of a bad image and of breaks")
    assert (status.level, status.message.startswith("tracking, but ")) == (DiagnosticStatus.WARN, True)


def test_half_a_message_is_survived(node: Probe) -> None:
    """As of a broken recording; the middleware keeps it from the node."""
    node.ask(PICTURE, SECOND)
    node.send(bytes(serialize_message(to_message(PICTURE, SECOND + 1)))[:5000])
    assert [i.id for i in node.ask(PICTURE, SECOND + 2).instances] == [1, 2]


def test_newest_image_wins_and_dropped_ones_are_counted(slow_node: Probe) -> None:
    before = counts(slow_node.next_status())
    slow_node.answers.clear()
    last = flood(slow_node, images=20)
    newest = to_message(PICTURE, last).header
    slow_node.until(lambda: any(answer.header == newest for answer in slow_node.answers), "an answer to the last image")
    after = counts(slow_node.next_status())
    received, answered, dropped = (after[k] - before[k] for k in ("received", "answered", "dropped"))
    assert dropped > 0
    assert received == answered + dropped
    assert answered == len(slow_node.answers)
    stamps = [answer.header.stamp.nanosec for answer in slow_node.answers]
    assert stamps == sorted(set(stamps))


def test_services_and_parameters_are_answered_while_the_network_works(slow_node: Probe) -> None:
    """None of them waits for a frame: in the time of twenty calls only a few frames are answered."""
    stamps = iter(range(1, 10**6))
    timer = slow_node.node.create_timer(0.02, lambda: slow_node.send(to_message(PICTURE, next(stamps) * SECOND // 50)))
    slow_node.answers.clear()
    slow_node.until(lambda: slow_node.answers, "an answer")
    slow_node.answers.clear()
    for call in range(10):
        assert slow_node.call(GetState, "get_state", GetState.Request()).current_state.label == "active"
        assert slow_node.set_parameter("max_instances", 100 - call) == (True, "")
    assert len(slow_node.answers) < 10
    assert slow_node.set_parameter("max_instances", 1) == (True, "")
    one = slow_node.until(
        lambda: next((a for a in slow_node.answers if len(a.instances) == 1), None), "an answer with the new setting"
    )
    assert slow_node.call(Trigger, "reset", Trigger.Request()).success
    slow_node.until(lambda: slow_node.answers[-1].frame_index < one.frame_index, "an answer after the reset")
    timer.cancel()
    slow_node.node.destroy_timer(timer)
    assert slow_node.set_parameter("max_instances", 100) == (True, "")


def test_why_nothing_comes_is_told(start: Callable[..., Probe], blobs_model: Path) -> None:
    node = start(
        {"stubborn/image": "/stubborn/image"},
        model=blobs_model,
        cameras="[nobody, stubborn, text, silent]",
        **{"qos_overrides./stubborn/image.subscription.reliability": "reliable"},
    )
    drivers = [
        node.node.create_publisher(Image, "/stubborn/image", BEST_EFFORT),
        node.node.create_publisher(String, "text/image", 1),
        node.node.create_publisher(Image, "silent/image", 1),
    ]
    for camera, words in {
        "nobody": "it has no publisher",
        "stubborn": "the QoS of",
        "text": "std_msgs/msg/String, but the node expects sensor_msgs/msg/Image",
        "silent": "silent",
    }.items():
        statuses = node.statuses_of(camera)
        status = node.until(partial(first_with, statuses, words), f"{words!r} in the diagnostics")
        assert (status.level, f"{camera}/image" in status.message) == (DiagnosticStatus.WARN, True)
    node.until_logged("incompatible QoS")
    for driver in drivers:
        node.node.destroy_publisher(driver)


def first_with(statuses: list[DiagnosticStatus], words: str) -> DiagnosticStatus | None:
    return next((status for status in statuses if words in status.message), None)


def flood(node: Probe, images: int) -> int:
    """Send images fifty times a second while the node's answers are heard; gives the last stamp."""
    stamps = iter(range(1, images + 1))
    sent: list[int] = []

    def send() -> None:
        if stamp := next(stamps, 0):
            sent.append(stamp)
            node.send(to_message(PICTURE, stamp))

    timer = node.node.create_timer(0.02, send)
    node.until(lambda: len(sent) == images, "the images to be sent")
    node.node.destroy_timer(timer)
    return sent[-1]


def counts(status: DiagnosticStatus) -> dict[str, int]:
    """Frames by what became of them."""
    return {name.removeprefix("frames "): int(value) for name, value in values(status).items() if "frames " in name}


def test_a_stamp_that_runs_back_by_milliseconds_loses_no_id(node: Probe) -> None:
    """One image in five early, as drivers have it that publish out of order."""
    frames = []
    for k in range(10):
        early = 5_000_000 if k % 5 == 4 else 40_000_000
        frames.append(node.ask(PICTURE, SECOND + k * SECOND // 30 - (early if k % 5 == 4 else 0)))
    assert [[i.id for i in frame.instances] for frame in frames] == [[1, 2]] * 10
    assert [frame.frame_index for frame in frames] == list(range(10))


def test_images_that_the_network_loses_are_reported(node: Probe) -> None:
    """By their stamps, as best-effort DDS does not always tell: every second image of a camera of 30 Hz."""
    stamps = [SECOND * 100 + k * SECOND // 30 for k in range(40)]
    lossy = [*stamps[:15], *stamps[15::2]]
    node.next_status()  # A period without the breaks of the tests before; they would be in the same message.
    node.statuses.clear()
    for stamp in lossy:
        node.ask(PICTURE, stamp)

    def warned() -> str:
        return next((s.message for s in node.statuses_of("stream") if "were lost on the way" in s.message), "")

    message = node.until(warned, "a warning of lost images")
    assert "export FASTRTPS_DEFAULT_PROFILES_FILE=/" in message
    assert message.endswith("fastdds_images.xml")
