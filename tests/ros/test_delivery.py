# SPDX-License-Identifier: Apache-2.0
"""Thirty images a second from another process all reach the node, with the Fast DDS profile that we ship.

The network is a small one, so that what is measured is the way of the images. They may be answered late on a busy
machine, but the node must have heard of every one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from blobs import BLUE, RED, draw
from camera_process import CameraProcess
from diagnostic_msgs.msg import DiagnosticStatus
from probe import Probe, values

FRAMES = 60


@pytest.fixture(scope="module")
def node(start_for_all: Callable[..., Probe], blobs_model: Path) -> Probe:
    node = start_for_all(model=blobs_model, provider="cpu")
    node.until(lambda: node.state() == "active", "state active")
    node.next_status()
    return node


@pytest.mark.parametrize("size", [(640, 480), (1280, 720)], ids=["640x480", "1280x720"])
@pytest.mark.parametrize("reliable", [False, True], ids=["best_effort", "reliable"])
def test_every_image_reaches_the_node(node: Probe, size: tuple[int, int], reliable: bool, tmp_path: Path) -> None:
    scenes = [draw([(20 + 4 * step, 30, RED), (100 - 4 * step, 60, BLUE)]) for step in range(10)]
    np.save(tmp_path / "images.npy", [cv2.resize(scene, size) for scene in scenes])
    topic, answers = (node.node.resolve_topic_name(name) for name in ("image", "instance_flow/instances"))
    before = received(node.statuses)
    node.answers.clear()
    with CameraProcess(tmp_path / "images.npy", topic, answers, frames=FRAMES, reliable=reliable) as camera:
        camera.until_ready()
        sent = camera.film()
        node.next_status()
    stamps = [stamp_of(answer) for answer in node.answers]
    knocks = sum(stamp < min(sent) for stamp in stamps)
    assert (len(sent), received(node.statuses) - before - knocks) == (FRAMES, FRAMES)
    assert max(stamps) == max(sent)
    assert set(stamps[knocks:]) <= set(sent)


def received(statuses: list[DiagnosticStatus]) -> int:
    return int(values(statuses[-1])["frames received"])


def stamp_of(answer: object) -> int:
    stamp = answer.header.stamp  # type: ignore[attr-defined]
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
