# SPDX-License-Identifier: Apache-2.0
"""Images of every encoding, through the real node: what it has seen stands on ~/overlay, where it finds nothing."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blobs import RED, draw, write_model
from golden_images import FAMILIES, GOLDEN
from golden_messages import to_golden_message
from probe import Probe, ProbeCamera, to_header
from sensor_msgs.msg import CompressedImage, Image

from instance_flow_ros.bridge import ImageBridge

_stamps = count(1)


@pytest.fixture(scope="module")
def blind_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "blind.onnx"
    write_model(path, blind=True)
    return path


@pytest.fixture(scope="module")
def node(start_for_all: Callable[..., Probe], blind_model: Path) -> Probe:
    return start_for_all(model=blind_model, provider="cpu").until_active()


@pytest.fixture(scope="module")
def overlays(node: Probe) -> list[Image]:
    """What comes on ~/overlay; at the end of the fixture the node knows that there is a subscriber."""
    pictures = node.listen(Image, "instance_flow/overlay")
    node.until(lambda: node.ask(draw([]), next(_stamps) * 10**9) and pictures, "a picture on overlay")
    return pictures


@pytest.mark.parametrize("encoding", FAMILIES)
def test_colours_are_those_of_the_golden_images(node: Probe, overlays: list[Image], encoding: str) -> None:
    for golden in (golden for golden in GOLDEN if golden.encoding == encoding):
        answer = node.camera.ask(to_golden_message(golden, to_header(next(_stamps) * 10**9)))
        picture = picture_of(answer, node, overlays)
        assert (answer.height, answer.width, answer.instances) == (golden.height, golden.width, [])
        golden.check(picture)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_compressed_images_are_read(start: Callable[..., Probe], blind_model: Path, suffix: str) -> None:
    node = start(model=blind_model, provider="cpu", image_transport="compressed")
    camera = ProbeCamera(node, message_type=CompressedImage, topic="image/compressed").until_heard()
    pictures = node.listen(Image, "instance_flow/overlay")
    image = cv2.GaussianBlur(draw([(30, 40, RED)]), (0, 0), 3)
    data = array("B", cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())

    def answered() -> Any:
        return camera.ask(CompressedImage(header=to_header(next(_stamps) * 10**9), format=suffix[1:], data=data))

    node.until(lambda: answered() and pictures, "a picture on overlay")
    picture = ImageBridge().imgmsg_to_cv2(pictures[-1])
    np.testing.assert_allclose(picture, image, rtol=0, atol=0 if suffix == ".png" else 12)


def picture_of(answer: Any, node: Probe, overlays: list[Image]) -> np.ndarray:
    """Pixels of the overlay of an answer."""

    def come() -> Image | None:
        return next((picture for picture in overlays if picture.header == answer.header), None)

    return ImageBridge().imgmsg_to_cv2(node.until(come, "the overlay of an answer"))
