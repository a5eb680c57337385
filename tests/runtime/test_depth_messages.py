# SPDX-License-Identifier: Apache-2.0
"""Depth and calibration out of messages, as bags give them and as rclpy does."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from instance_flow.formats.depth_messages import compress, to_depth
from instance_flow.spatial.camera import CameraModel, to_camera

MILLIMETRES = np.array([[1, 300, 0], [65535, 4, 515]], np.uint16)
METRES = np.array([[0.5, np.nan, np.inf], [9.25, 0, 3]], np.float32)


def png(values: Any) -> bytes:
    return bytes(cv2.imencode(".png", values)[1])


def raw(encoding: str, data: Any, step: int, is_bigendian: int = 0, size: tuple[int, int] = (2, 3)) -> Any:
    height, width = size
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=is_bigendian, step=step, data=data
    )


def compressed(data: Any, form: str = "16UC1; compressedDepth png") -> Any:
    return SimpleNamespace(format=form, data=data)


def header(a: float = 0, b: float = 0, kind: int = 0) -> bytes:
    return struct.pack("<iff", kind, a, b)


def padded(values: Any, dtype: str, padding: int) -> bytes:
    return b"".join(row.astype(dtype).tobytes() + bytes([7] * padding) for row in values)


WHOLE = MILLIMETRES.astype("<u2").tobytes()
IMAGES: dict[str, tuple[Any, Any]] = {
    "millimetres": (raw("16UC1", WHOLE, 6), MILLIMETRES),
    "of rclpy": (raw("16UC1", array("B", WHOLE), 6), MILLIMETRES),
    "of rosbags": (raw("16UC1", np.frombuffer(WHOLE, np.uint8), 6), MILLIMETRES),
    "mono16": (raw("mono16", WHOLE, 6), MILLIMETRES),
    "rows with padding": (raw("16UC1", padded(MILLIMETRES, "<u2", 4), 10), MILLIMETRES),
    "rows at odd addresses": (raw("16UC1", padded(MILLIMETRES, "<u2", 3), 9), MILLIMETRES),
    "no padding behind the last row": (raw("16UC1", padded(MILLIMETRES, "<u2", 4)[:-4], 10), MILLIMETRES),
    "high byte first": (raw("16UC1", MILLIMETRES.astype(">u2").tobytes(), 6, 1), MILLIMETRES),
    "metres": (raw("32FC1", METRES.astype("<f4").tobytes(), 12), METRES),
    "metres, padding, high byte first": (raw("32FC1", padded(METRES, ">f4", 5), 17, 1), METRES),
    "png": (compressed(header() + png(MILLIMETRES)), MILLIMETRES),
    "png of rclpy": (compressed(array("B", header() + png(MILLIMETRES)), "16UC1; compressedDepth"), MILLIMETRES),
    "png without a kind of header": (compressed(header(kind=-1) + png(MILLIMETRES)), MILLIMETRES),
    # 10100 and -1009 are a and b for 100 steps and 10 m: 1 is the farthest, 0 and what is beyond it are unknown.
    "png of metres": (
        compressed(header(10100, -1009) + png(np.array([[0, 1, 4041]], np.uint16)), "32FC1; compressedDepth png"),
        np.array([[np.nan, 10, 2]], np.float32),
    ),
    "png of metres, a step that none has": (
        compressed(header(100, 5) + png(np.array([[5, 4, 55]], np.uint16)), "32FC1; compressedDepth png"),
        np.array([[np.nan, np.nan, 2]], np.float32),
    ),
}


@pytest.mark.parametrize(("message", "expected"), IMAGES.values(), ids=IMAGES)
def test_depth_is_read(message: Any, expected: Any) -> None:
    depth = to_depth(message)
    assert depth.dtype == expected.dtype
    assert depth.dtype.isnative
    np.testing.assert_array_equal(depth, expected)


GOOD = header() + png(MILLIMETRES)
CRACKED = bytearray(GOOD)
CRACKED[len(GOOD) - 20] ^= 0xFF
WIDE = bytearray(GOOD)
WIDE[12 + 16 : 12 + 24] = struct.pack(">II", 200_000, 200_000)
REFUSED: dict[str, tuple[Any, str]] = {
    "colours": (raw("rgb8", bytes(18), 9), "encoding 'rgb8' cannot be read; expected 16UC1, mono16, 32FC1"),
    "signed": (raw("16SC1", WHOLE, 6), "encoding '16SC1'"),
    "long name": (raw("x\n" * 10**6, WHOLE, 6), r"'x\\nx.*2000000 characters"),
    "empty": (raw("16UC1", b"", 0, size=(0, 0)), "the image is empty"),
    "short data": (raw("16UC1", WHOLE[:-1], 6), "has 11 bytes, but 2 rows"),
    "short step": (raw("16UC1", WHOLE, 5), "step is 5 bytes, but a row of 16UC1 takes 6"),
    "giant": (raw("32FC1", b"", 80_000, size=(20_000, 20_000)), "20000 rows of 20000 pixels, more than"),
    "a colour JPEG": (compressed(GOOD, "rgb8; jpeg compressed bgr8"), "'rgb8; jpeg compressed bgr8'; expected '16UC1"),
    "png of another transport": (compressed(png(MILLIMETRES), "16UC1; png compressed "), "take the camera's"),
    "RVL": (compressed(GOOD, "16UC1; compressedDepth rvl"), "'16UC1; compressedDepth rvl', and RVL is not read"),
    "RVL in capitals": (compressed(GOOD, "16UC1;compressedDepth RVL"), "and RVL is not read"),
    "no format": (compressed(GOOD, ""), "is ''; expected"),
    "no bytes": (compressed(b""), "has 0 bytes; expected a header of 12"),
    "part of a header": (compressed(bytes(11)), "has 11 bytes; expected a header of 12"),
    "nothing but a header": (compressed(bytes(12)), "0 bytes behind its header that are no PNG"),
    "no header": (compressed(png(MILLIMETRES)), "behind its header that are no PNG"),
    "cut off": (compressed(GOOD[:-12]), "the PNG is cut off"),
    "a byte changed": (compressed(bytes(CRACKED)), "damaged"),
    "giant png": (compressed(bytes(WIDE)), "200000 rows of 200000 pixels, more than"),
    "8 bits": (compressed(header() + png(np.zeros((2, 3), np.uint8))), "uint8 of shape .2, 3.; expected one channel"),
    "colours of 16 bits": (compressed(header() + png(np.zeros((2, 3, 3), np.uint16))), "shape .2, 3, 3."),
    "parameters of zero": (compressed(GOOD, "32FC1; compressedDepth png"), "the parameters 0 and 0; expected"),
    "parameters that are none": (
        compressed(header(100, float("nan")) + png(MILLIMETRES), "32FC1; compressedDepth"),
        "the parameters 100 and nan",
    ),
    "another message": (SimpleNamespace(data=b""), "not a SimpleNamespace"),
}


@pytest.mark.parametrize(("message", "words"), REFUSED.values(), ids=REFUSED)
def test_other_depth_is_refused_in_a_sentence(message: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        to_depth(message)
    assert len(str(error.value).splitlines()) == 1


def camera_info(**fields: Any) -> Any:
    region = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    known: dict[str, Any] = {
        "height": 48,
        "width": 64,
        "distortion_model": "plumb_bob",
        "d": array("d", [0.1, 0, 0, 0, 0]),
    }
    known |= {"k": np.array([60.0, 0, 32, 0, 61, 24, 0, 0, 1]), "binning_x": 0, "binning_y": 0, "roi": region}
    region.__dict__.update(fields.pop("roi", {}))
    return SimpleNamespace(**{**known, **fields})


CAMERAS: dict[str, dict[str, Any]] = {
    "usual": {},
    "binning of 1": {"binning_x": 1, "binning_y": 1},
    "whole region": {"roi": {"width": 64, "height": 48}},
    "no distortion": {"d": []},
    "fisheye": {"distortion_model": "equidistant", "d": [0.1, 0, 0, 0]},
}


@pytest.mark.parametrize("fields", CAMERAS.values(), ids=CAMERAS)
def test_camera_is_read(fields: dict[str, Any]) -> None:
    message = camera_info(**fields)
    camera = to_camera(message)
    np.testing.assert_array_equal(camera.matrix, [[60, 0, 32], [0, 61, 24], [0, 0, 1]])
    assert (camera.size, camera.distortion_model) == ((48, 64), message.distortion_model)
    assert list(camera.distortion) == list(message.d)
    assert camera.pose is None
    assert camera.problem((48, 64)) == ""


def test_no_calibration_is_left_to_the_camera_model() -> None:
    camera = to_camera(camera_info(k=[0.0] * 9, d=[], distortion_model="", height=0, width=0))
    assert camera.size is None
    assert "focal lengths 0 and 0" in camera.problem((48, 64))


BAD_CAMERAS: dict[str, tuple[dict[str, Any], str]] = {
    "binning": ({"binning_x": 2, "binning_y": 2}, "a binning of 2 x 2"),
    "binning of rows": ({"binning_y": 2}, "a binning of 0 x 2"),
    "region": ({"roi": {"x_offset": 8, "y_offset": 4, "width": 32, "height": 24}}, r"32 x 24 pixels at \(8, 4\) of 64"),
    "region at the corner": ({"roi": {"width": 64, "height": 24}}, "region of interest"),
    "eight numbers": ({"k": [1.0] * 8}, "K of the camera info has 8 numbers"),
}


@pytest.mark.parametrize(("fields", "words"), BAD_CAMERAS.values(), ids=BAD_CAMERAS)
def test_a_camera_of_another_image_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_camera(camera_info(**fields))


def test_what_a_bag_is_given_comes_back(tmp_path: Path) -> None:
    """Written by ``BagWriter``, read by rosbags' own reader."""
    anyreader = pytest.importorskip("rosbags.highlevel")
    from rosbags.interfaces import QosDurability

    from instance_flow.formats.bag_writer import BagWriter

    turned = np.eye(4)
    turned[:3] = np.array(
        [(0, 0, 1, 0.5), (-1, 0, 0, 0), (0, -1, 0, 1.2)]
    )  # the optical frame of a camera that looks ahead
    around = np.diag([-1.0, -1, 1, 1])
    camera = CameraModel(np.array([[60.0, 0, 1], [0, 61, 1.5], [0, 0, 1]]), (0.1, 0.2, 0, 0), "equidistant")
    with BagWriter(tmp_path / "depth.mcap") as bag:
        bag.transforms("/tf_static", [("base", "camera", turned)], 5)
        bag.transforms("/tf", [("world", "base", around), ("world", "still", np.eye(4))], 6)
        for name, depth in (("mm", MILLIMETRES), ("m", METRES)):
            bag.depth(f"/{name}", depth, (1, 7), "camera")
            bag.compressed_depth(f"/{name}/compressedDepth", depth, 7, "camera")
        bag.camera_info("/camera_info", camera, (2, 3), 7, "camera")
    with anyreader.AnyReader([tmp_path / "depth.mcap"]) as reader:
        latched = {c.topic: [q.durability for q in c.ext.offered_qos_profiles] for c in reader.connections}
        found = {c.topic: reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()}
    assert latched["/tf_static"] == [QosDurability.TRANSIENT_LOCAL]
    assert latched["/tf"] == []
    for topic in ("/mm", "/mm/compressedDepth"):
        np.testing.assert_array_equal(to_depth(found[topic]), MILLIMETRES)
    np.testing.assert_array_equal(to_depth(found["/m"]), METRES)
    nearly = to_depth(found["/m/compressedDepth"])
    np.testing.assert_allclose(nearly, np.where(np.isfinite(METRES) & (METRES > 0), METRES, np.nan), rtol=1e-3)
    assert (found["/m"].header.stamp.sec, found["/m"].header.stamp.nanosec) == (1, 7)
    assert found["/m/compressedDepth"].format == "32FC1; compressedDepth png"
    again = to_camera(found["/camera_info"])
    assert (again.size, again.distortion, again.distortion_model) == ((2, 3), (0.1, 0.2, 0, 0), "equidistant")
    np.testing.assert_array_equal(again.matrix, camera.matrix)
    (fixed,) = found["/tf_static"].transforms
    assert (fixed.header.frame_id, fixed.child_frame_id) == ("base", "camera")
    assert (fixed.transform.translation.x, fixed.transform.translation.z) == (0.5, 1.2)
    np.testing.assert_allclose(quaternion(fixed), [-0.5, 0.5, -0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(
        np.abs([quaternion(t) for t in found["/tf"].transforms]), [[0, 0, 1, 0], [0, 0, 0, 1]], atol=1e-12
    )


def quaternion(transform: Any) -> list[float]:
    turn = transform.transform.rotation
    return [turn.x, turn.y, turn.z, turn.w]


def test_metres_lose_little_and_what_does_not_fit_is_unknown() -> None:
    depth = np.array([[0.1, 0.16, 1, 5, 9.99, 10, 10.01, -1, np.nan, np.inf]], np.float32)
    back = to_depth(compressed(compress(depth), "32FC1; compressedDepth png"))
    np.testing.assert_array_equal(np.isnan(back), [[1, 0, 0, 0, 0, 0, 1, 1, 1, 1]])
    step = depth**2 / 10100  # the derivative of the value by the depth
    assert (np.abs(back - depth)[~np.isnan(back)] <= 0.51 * step[~np.isnan(back)]).all()


@pytest.mark.parametrize(
    "depth",
    [np.zeros((2, 3)), np.zeros((2, 3, 1), np.uint16), np.zeros((0, 3), np.float32)],
    ids=["type", "shape", "none"],
)
@pytest.mark.parametrize("call", ["depth", "compressed_depth"])
def test_what_is_no_depth_is_not_written(tmp_path: Path, depth: Any, call: str) -> None:
    pytest.importorskip("rosbags")
    from instance_flow.formats.bag_writer import BagWriter

    with pytest.raises(ValueError, match=r"expected \(H, W\) uint16"), BagWriter(tmp_path / "one.mcap") as bag:
        getattr(bag, call)("/depth", depth, 0)
    assert not list(tmp_path.iterdir())
