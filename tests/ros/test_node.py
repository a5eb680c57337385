# SPDX-License-Identifier: Apache-2.0
"""An active node, from the outside."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import BLUE, INFO, RED, draw
from diagnostic_msgs.msg import DiagnosticStatus
from probe import Probe, to_message, values
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.commands import cli
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.foreign_text import MESSAGE
from instance_flow.formats.messages import to_instance_array, to_tracks
from instance_flow.formats.rle import from_run_lengths
from instance_flow.network.execution import ExecutionConfig
from instance_flow.replay import outputs
from instance_flow_ros.bridge import ImageBridge
from instance_flow_ros.conversions import TYPES
from instance_flow_ros.parameters import NodeConfig, StreamConfig

SECOND = 10**9
FIXED = (NodeConfig, ExecutionConfig)


@pytest.fixture(scope="module")
def node(start_for_all: Callable[..., Probe], blobs_model: Path) -> Probe:
    """One node for all tests of this file; each begins with a reset."""
    return start_for_all(model=blobs_model, provider="cpu").until_active()


@pytest.fixture(autouse=True)
def _fresh_stream(node: Probe) -> None:
    assert node.call(Trigger, "reset", Trigger.Request()).success


def masks(answer: Any) -> list[np.ndarray]:
    """Masks of the whole image, as the .msg file says that they are to be read."""
    result = []
    for instance in answer.instances:
        whole, window = np.zeros((answer.height, answer.width), bool), instance.mask
        inside = from_run_lengths(window.runs, (window.height, window.width))
        whole[window.y : window.y + window.height, window.x : window.x + window.width] = inside
        result.append(whole)
    return result


def test_answer_has_the_images_header_and_its_objects(node: Probe) -> None:
    image = draw([(30, 40, RED), (90, 50, BLUE)])
    answer = node.ask(image, 5 * SECOND + 7)
    assert answer.header == to_message(image, 5 * SECOND + 7).header
    assert (answer.height, answer.width, answer.frame_index) == (*image.shape[:2], 0)
    assert [(i.id, i.label, i.class_id, i.class_name) for i in answer.instances] == [
        (1, 1, 0, "red"),
        (2, 2, 1, "blue"),
    ]
    for instance, mask, channel in zip(answer.instances, masks(answer), (0, 2), strict=True):
        truth = image[:, :, channel] > 0
        assert np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth) > 0.9
        assert instance.area == np.count_nonzero(mask)
        assert (instance.box.x, instance.box.y, instance.box.width, instance.box.height) == cv2.boundingRect(
            mask.astype("u1")
        )
        assert (instance.reference_frame, instance.age) == (instance.NO_REFERENCE, 0)
        assert np.isnan([instance.matched_distance, instance.velocity.x]).all()


def test_second_frame_keeps_ids_and_says_why(node: Probe) -> None:
    node.ask(draw([(30, 40, RED)]), SECOND)
    moved = node.ask(draw([(34, 40, RED)]), 2 * SECOND).instances[0]
    assert (moved.id, moved.age, moved.reference_frame, moved.matched_distance) == (1, 1, 0, 4.0)
    assert (moved.center.x, moved.center.y) == (33.5, 37.5)
    assert np.isfinite([moved.velocity.x, moved.velocity.y]).all()


def test_live_tracks_are_the_offline_ones(node: Probe, blobs_model: Path) -> None:
    offline = Pipeline.load(blobs_model, provider="cpu")
    for step in range(6):
        image = draw([(20 + 5 * step, 30, RED), (100 - 6 * step, 60, BLUE)][: 1 + step % 3])
        answer = node.ask(image, step * SECOND // 10 + 1)
        expected = to_instance_array(
            TYPES, offline.step(image, step * SECOND // 10 + 1), answer.header, INFO.class_names
        )
        assert repr(answer) == repr(expected)  # As text, where NaN equals NaN.


def test_live_tracks_are_those_of_the_command(node: Probe, blobs_model: Path, tmp_path: Path) -> None:
    images = [draw([(20 + 5 * step, 30, RED), (100 - 6 * step, 60, BLUE)]) for step in range(6)]
    stamps = [(step + 1) * SECOND // 10 for step in range(6)]
    with BagWriter(tmp_path / "discs.mcap") as bag:
        for image, stamp in zip(images, stamps, strict=True):
            bag.write_image("/camera/image_raw", image, stamp)
    command = ["run", str(tmp_path / "discs.mcap"), "--model", str(blobs_model), "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--provider", "cpu", "--no-video"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / outputs.TABLE).read_text().splitlines()]
    for image, stamp, line in zip(images, stamps, lines, strict=True):
        live = to_tracks(node.ask(image, stamp))
        assert line["tracks"] == [outputs.table_row(live, row, INFO.class_names) for row in range(len(live))]


@pytest.mark.parametrize(("topic", "encoding"), [("label_image", "16UC1"), ("overlay", "rgb8")])
def test_pictures_come_once_there_is_a_subscriber(node: Probe, topic: str, encoding: str) -> None:
    pictures: list[Image] = []
    image = draw([(30, 40, RED), (90, 50, BLUE)])
    subscription = node.node.create_subscription(Image, f"instance_flow/{topic}", pictures.append, 1)
    node.until(lambda: node.ask(image, SECOND) and pictures, f"a picture on {topic}")
    node.node.destroy_subscription(subscription)
    picture = pictures[-1]
    assert (picture.encoding, picture.header) == (encoding, to_message(image, SECOND).header)
    pixels = ImageBridge().imgmsg_to_cv2(picture)
    if topic == "label_image":
        answer = node.answers[-1]
        expected = sum(mask * i.label for i, mask in zip(answer.instances, masks(answer), strict=True))
        np.testing.assert_array_equal(pixels, expected)
    else:
        assert pixels.shape == image.shape
        assert np.count_nonzero(pixels != image) > 1000


def test_reset_service_begins_anew(node: Probe) -> None:
    for stamp in (1, 2):
        node.ask(draw([(30, 40, RED)]), stamp * SECOND)
    assert node.call(Trigger, "reset", Trigger.Request()).success
    answer = node.ask(draw([(90, 50, BLUE)]), 3 * SECOND)
    assert (answer.frame_index, [i.id for i in answer.instances]) == (0, [1])


@pytest.mark.parametrize(
    ("size", "stamp", "reason"),
    [
        pytest.param((96, 128), SECOND, "the image stamps ran back by 9.000 s", id="bag_loops"),
        pytest.param((64, 96), 20 * SECOND, "the image size changed from 128 x 96 to 96 x 64", id="size_changes"),
    ],
)
def test_break_in_the_stream_resets_and_says_so_once(
    node: Probe, size: tuple[int, int], stamp: int, reason: str
) -> None:
    node.ask(draw([(30, 40, RED), (90, 50, BLUE)]), 10 * SECOND)
    answer = node.ask(draw([(30, 40, BLUE)], size), stamp)
    assert (answer.frame_index, [i.id for i in answer.instances]) == (0, [1])
    assert node.ask(draw([(30, 40, BLUE)], size), stamp + SECOND).frame_index == 1
    assert node.process.log().count(reason) == 1


def test_disabled_node_is_silent(node: Probe) -> None:
    assert node.call(SetBool, "enable", SetBool.Request(data=False)).success
    heard = len(node.answers)
    node.send(to_message(draw([]), SECOND))
    assert node.next_status().message == "disabled by ~/enable"
    assert len(node.answers) == heard
    assert node.call(SetBool, "enable", SetBool.Request(data=True)).success
    node.answers.clear()
    assert node.ask(draw([]), 2 * SECOND).instances == []


def broken(**changes: Any) -> Image:
    message = to_message(draw([(30, 40, RED)]), SECOND)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(broken(encoding="rgb9"), "'rgb9' is not supported", id="unknown_encoding"),
        pytest.param(broken(encoding="rgb9\n[ERROR] \x1b[31mfire"), r"'rgb9\n[ERROR] \x1b[31mfire'", id="forged_log"),
        pytest.param(broken(encoding="rgb9" * 10**6), "... (4000000 characters)' is not", id="giant_encoding"),
        pytest.param(broken(data=array("B", bytes(100))), "100 bytes", id="short_data"),
        pytest.param(broken(step=10), "step is 10", id="short_step"),
        pytest.param(broken(height=0, width=0, data=array("B")), "empty", id="empty"),
    ],
)
def test_bad_image_is_counted_and_survived(node: Probe, message: Image, reason: str) -> None:
    node.until(lambda: node.statuses, "diagnostics")
    before = refused(node.statuses[-1])
    node.send(message)
    status = node.until(lambda: next((s for s in node.statuses if refused(s) > before), None), "a refused frame")
    assert (status.level, reason in status.message) == (DiagnosticStatus.WARN, True)
    assert (status.message.isprintable(), len(status.message) <= MESSAGE) == (True, True)
    assert [i.class_name for i in node.ask(draw([(30, 40, BLUE)]), 2 * SECOND).instances] == ["blue"]


def refused(status: DiagnosticStatus) -> int:
    return int(values(status).get("frames refused", 0))  # Not while it is being configured.


def test_diagnostics_tell_rate_latency_and_provider(node: Probe) -> None:
    node.statuses.clear()
    stamps = iter(range(1, 10**6))

    def busy_period() -> DiagnosticStatus | None:
        node.ask(draw([(30, 40, RED)]), next(stamps) * SECOND)
        return next((s for s in node.statuses if float(values(s).get("Actual frequency (Hz)", 0)) > 0), None)

    status = node.until(busy_period, "diagnostics of a busy period")
    figures = values(status)
    assert (status.level, status.message, status.hardware_id) == (DiagnosticStatus.OK, "tracking", "blobs")
    assert (figures["provider"], figures["live tracks"]) == ("cpu", "1")
    assert 0 < float(figures["latency p50 (ms)"]) <= float(figures["latency p95 (ms)"])
    assert 0 < float(figures["beyond the network p50 (ms)"]) < float(figures["latency p95 (ms)"])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        pytest.param("center_threshold", 2.0, "range", id="out_of_range"),
        pytest.param("center_threshold", "high", "type", id="wrong_type"),
        pytest.param("references", 9, "at most 4", id="more_than_the_model_takes"),
        pytest.param("model", "other.onnx", "unconfigured", id="fixed_while_configured"),
        pytest.param("threads", 1, "unconfigured", id="threads_fixed_while_configured"),
        pytest.param("affinity", 2, "type", id="one_core_without_quotes"),
    ],
)
def test_wrong_setting_is_refused(node: Probe, name: str, value: Any, reason: str) -> None:
    accepted, why = node.set_parameter(name, value)
    assert (accepted, reason in why.lower()) == (False, True), why


def test_new_setting_counts_from_the_next_frame_on_and_loses_no_id(node: Probe) -> None:
    image = draw([(30, 40, RED), (90, 50, BLUE)])
    assert len(node.ask(image, SECOND).instances) == 2
    assert node.set_parameter("max_instances", 1) == (True, "")
    answer = node.ask(image, 2 * SECOND)
    assert node.set_parameter("max_instances", 100) == (True, "")
    assert (answer.frame_index, [(i.id, i.age) for i in answer.instances]) == (1, [(answer.instances[0].id, 1)])
    assert [i.id for i in node.ask(image, 3 * SECOND).instances] == [1, 2]


def test_masks_over_the_budget_are_left_out_whole(node: Probe) -> None:
    image = draw([(30, 40, RED), (90, 50, BLUE)])
    both = node.ask(image, SECOND).instances
    assert node.set_parameter("mask_budget", 4 * max(len(i.mask.runs) for i in both)) == (True, "")
    answer = node.ask(image, 2 * SECOND)
    assert node.set_parameter("mask_budget", 1_000_000) == (True, "")
    kept, left_out = sorted(answer.instances, key=lambda i: i.score, reverse=True)
    assert (kept.has_mask, left_out.has_mask) == (True, False)
    assert (left_out.mask.width, left_out.mask.height, list(left_out.mask.runs)) == (0, 0, [])
    assert (left_out.area, left_out.box) == (both[left_out.id - 1].area, both[left_out.id - 1].box)
    assert values(node.next_status())["masks left out"] == "1"


def test_topics_without_subscribers_are_not_computed(node: Probe) -> None:
    """With a budget that no mask keeps to, every message that is made counts as masks left out."""
    image = to_message(draw([(30, 40, RED)]), SECOND)
    assert node.set_parameter("mask_budget", 1) == (True, "")
    node.camera.ask(image)
    node.camera.stop_listening()

    def answered_and_left_out() -> tuple[int, ...]:
        node.send(image)
        figures = values(node.next_status())
        return tuple(int(figures[name]) for name in ("frames answered", "masks left out"))

    def answers_in_silence() -> bool:
        (answered, left_out), (answered_then, left_out_then) = answered_and_left_out(), answered_and_left_out()
        return answered_then > answered and left_out_then == left_out

    node.until(answers_in_silence, "images answered without a message")
    node.camera.listen()
    assert node.set_parameter("mask_budget", 1_000_000) == (True, "")
    assert len(node.ask(draw([(30, 40, RED)]), 2 * SECOND).instances) == 1


def test_every_parameter_says_what_it_is_and_when_it_can_be_set(node: Probe) -> None:
    own = [field.name for kind in (*FIXED, StreamConfig, AssemblyConfig) for field in fields(kind)]
    found = node.call(DescribeParameters, "describe_parameters", DescribeParameters.Request(names=own)).descriptors
    assert [descriptor.name for descriptor in found] == own
    for descriptor in found:
        number = descriptor.type in (ParameterType.PARAMETER_INTEGER, ParameterType.PARAMETER_DOUBLE)
        ranges = len(descriptor.integer_range) + len(descriptor.floating_point_range)
        assert (len(descriptor.description) > 10, ranges) == (True, int(number)), descriptor.name
        fixed = descriptor.name in {field.name for kind in FIXED for field in fields(kind)}
        when = "only while the node is unconfigured" if fixed else "at any time"
        assert when in descriptor.additional_constraints, descriptor.name
