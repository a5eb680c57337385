# SPDX-License-Identifier: Apache-2.0
"""The decoders of masks that users take with them, in Python and in C++, against the run lengths of the runtime."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.formats.rle import run_lengths

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "ros2_ws" / "src" / "instance_flow_examples"
sys.path.insert(0, str(EXAMPLES))

from instance_flow_examples.masks import label_map, whole_image, window  # noqa: E402
from instance_flow_examples.pairs import StampPairs  # noqa: E402

Decode = Callable[..., list[str]]


def mask_of(pixels: NDArray[np.bool_], x: int = 0, y: int = 0) -> SimpleNamespace:
    """RunLengthMask of a window (height, width) whose top left pixel is (y, x) of the image."""
    height, width = pixels.shape
    return SimpleNamespace(x=x, y=y, width=width, height=height, runs=run_lengths(pixels))


def damaged(**changes: Any) -> SimpleNamespace:
    """A mask of 3 x 2 pixels at (4, 5), with one thing wrong."""
    return SimpleNamespace(**{**vars(mask_of(np.ones((2, 3), bool), 5, 4)), **changes})


def _random_windows() -> dict[str, NDArray[np.bool_]]:
    generator = np.random.default_rng(4)
    shapes = [(1, 1), (1, 40), (40, 1), (7, 5), (31, 17), (64, 96)]
    noise = {f"noise {h}x{w}": generator.random((h, w)) < 0.5 for h, w in shapes}
    rows, columns = np.mgrid[:60, :80]
    blobs = {
        f"blob {i}": np.hypot(rows - y, columns - x) < r
        for i, (y, x, r) in enumerate(generator.uniform((0, 0, 3), (60, 80, 30), (4, 3)))
    }
    return noise | blobs


WINDOWS = {
    "all outside": np.zeros((3, 4), bool),
    "all inside": np.ones((3, 4), bool),
    "first pixel": np.eye(1, 12, dtype=bool).reshape(3, 4),
    "last pixel": np.eye(1, 12, 11, dtype=bool).reshape(3, 4),
    "no pixels": np.zeros((0, 0), bool),
    **_random_windows(),
}

DAMAGED = {
    "runs too short": damaged(runs=[0, 5]),
    "runs too long": damaged(runs=[0, 5, 2]),
    "no runs": damaged(runs=[]),
    "window taller than said": damaged(height=3),
    "window of a damaged size": damaged(width=2**32 - 1, height=2**32 - 1),
    "right of the image": damaged(x=18),
    "below the image": damaged(y=9),
    "far outside": damaged(x=2**32 - 1, y=2**32 - 1),
}

ORDERS = {
    "first then second": (["first 1 2", "second 1 2"], ["waits", "1.2"]),
    "second then first": (["second 1 2", "first 1 2"], ["waits", "1.2"]),
    "other nanoseconds": (["first 1 2", "second 1 3"], ["waits", "waits"]),
    "other seconds": (["first 1 2", "second 2 2"], ["waits", "waits"]),
    "one pair a stamp": (["first 1 2", "second 1 2", "second 1 2"], ["waits", "1.2", "waits"]),
    "sent twice": (["first 1 2", "first 1 2", "second 1 2"], ["waits", "waits", "1.2"]),
    "not in order": (["first 1 0", "first 2 0", "second 2 0", "second 1 0"], ["waits", "waits", "2.0", "1.0"]),
    "oldest is dropped": (["first 1 0", "first 2 0", "first 3 0", "second 1 0"], ["waits"] * 4),
    "before the epoch": (["first -1 5", "second -1 5"], ["waits", "-1.5"]),
}


@pytest.fixture(scope="session", params=["plain structs", "generated messages"])
def decode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decode:
    """The C++ decoders: takes lines of tasks, and gives the line of answer to each; see decode.cpp."""
    options: list[str] = []
    if request.param == "generated messages":
        folders = _message_headers()
        if not folders:
            pytest.skip("no C++ headers of instance_flow_msgs: source ros2_ws/install/setup.bash first")
        options = ["-DWITH_ROS_MESSAGES", *(f"-isystem{folder}" for folder in folders)]
    program = tmp_path_factory.mktemp("decode") / "decode"
    compiler = shutil.which("c++") or shutil.which("g++") or "c++"
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    include = [f"-I{EXAMPLES / 'include'}"]
    subprocess.run([compiler, *strict, *include, *options, HERE / "decode.cpp", "-o", program], check=True)

    def run(lines: Sequence[str]) -> list[str]:
        text = "\n".join(lines)
        return subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.splitlines()

    return run


def _message_headers() -> list[Path]:
    """Include folders of the generated messages and of what they include; none where the messages are not built."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if prefix]
    if not any((prefix / "include" / "instance_flow_msgs").is_dir() for prefix in prefixes):
        return []
    return [folder for prefix in prefixes for folder in (prefix / "include").glob("*") if folder.is_dir()]


def as_text(mask: SimpleNamespace) -> str:
    numbers = [mask.x, mask.y, mask.width, mask.height, len(mask.runs), *mask.runs]
    return " ".join(map(str, numbers))


def as_pixels(line: str) -> NDArray[np.int64]:
    return np.array(line.split(), np.int64)


@pytest.mark.parametrize("pixels", WINDOWS.values(), ids=WINDOWS)
def test_window_is_what_was_encoded(pixels: NDArray[np.bool_]) -> None:
    decoded = window(mask_of(pixels))
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, pixels)


def test_whole_image_has_the_window_in_its_place() -> None:
    pixels = np.array([[1, 0, 1], [0, 1, 1]], bool)
    expected = np.zeros((10, 20), bool)
    expected[4:6, 17:20] = pixels
    np.testing.assert_array_equal(whole_image(mask_of(pixels, 17, 4), 10, 20), expected)


@pytest.mark.parametrize("mask", DAMAGED.values(), ids=DAMAGED)
def test_damaged_mask_is_refused(mask: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"the runs make|the mask reaches"):
        whole_image(mask, 10, 20)


def scene() -> SimpleNamespace:
    """TrackedInstanceArray of two objects with masks, and of one whose mask was left out."""
    empty = SimpleNamespace(x=0, y=0, width=0, height=0, runs=[])
    first, second = np.array([[1, 1], [0, 1], [1, 0]], bool), np.array([[0, 1, 1]], bool)
    instances = [
        SimpleNamespace(id=3, has_mask=True, mask=mask_of(first, 1, 0)),
        SimpleNamespace(id=70_000, has_mask=True, mask=mask_of(second, 0, 1)),
        SimpleNamespace(id=9, has_mask=False, mask=empty),
    ]
    return SimpleNamespace(height=3, width=4, instances=instances)


SCENE_LABELS = [[0, 3, 3, 0], [0, 70_000, 70_000, 0], [0, 3, 0, 0]]


def test_label_map_has_the_ids_and_leaves_out_what_has_no_mask() -> None:
    labels = label_map(scene())
    assert labels.dtype == np.int32
    assert labels.tolist() == SCENE_LABELS


@pytest.mark.parametrize(("arrivals", "answers"), ORDERS.values(), ids=ORDERS)
def test_pairs_have_the_same_stamp(arrivals: list[str], answers: list[str]) -> None:
    heard = []
    pairs = StampPairs(lambda first, second: heard.append((first.name, second.name)), kept=2)
    for arrival, answer in zip(arrivals, answers, strict=True):
        topic, seconds, nanoseconds = arrival.split()
        stamp = SimpleNamespace(sec=int(seconds), nanosec=int(nanoseconds))
        message = SimpleNamespace(name=f"{seconds}.{nanoseconds}", header=SimpleNamespace(stamp=stamp))
        heard.clear()
        (pairs.add_first if topic == "first" else pairs.add_second)(message)
        assert heard == ([] if answer == "waits" else [(answer, answer)])


def test_cpp_windows_are_those_of_python(decode: Decode) -> None:
    lines = decode([f"window {as_text(mask_of(pixels))}" for pixels in WINDOWS.values()])
    for line, pixels in zip(lines, WINDOWS.values(), strict=True):
        np.testing.assert_array_equal(as_pixels(line), pixels.reshape(-1))


def test_cpp_images_are_those_of_python(decode: Decode) -> None:
    masks = [mask_of(pixels, 5 * i, 3 * i) for i, pixels in enumerate(WINDOWS.values())]
    lines = decode([f"image 200 300 {as_text(mask)}" for mask in masks])
    for line, mask in zip(lines, masks, strict=True):
        np.testing.assert_array_equal(as_pixels(line), whole_image(mask, 200, 300).reshape(-1))


def test_cpp_refuses_damaged_masks(decode: Decode) -> None:
    assert decode([f"image 10 20 {as_text(mask)}" for mask in DAMAGED.values()]) == ["refused"] * len(DAMAGED)


def test_an_id_that_a_label_map_does_not_hold_is_refused() -> None:
    message = scene()
    message.instances[0].id = 2**31
    with pytest.raises(ValueError, match="track id 2147483648 does not fit into 32 bits"):
        label_map(message)


def test_cpp_label_map_is_that_of_python(decode: Decode) -> None:
    message = scene()
    rows = [f"{i.id} {int(i.has_mask)} {as_text(i.mask)}" for i in message.instances]
    lines = decode([f"map 3 4 3 {' '.join(rows)}", f"map 1 1 1 {2**31} 0 0 0 0 0 0"])
    assert as_pixels(lines[0]).reshape(3, 4).tolist() == SCENE_LABELS
    assert lines[1] == "refused"


@pytest.mark.parametrize(("arrivals", "answers"), ORDERS.values(), ids=ORDERS)
def test_cpp_pairs_have_the_same_stamp(decode: Decode, arrivals: list[str], answers: list[str]) -> None:
    assert decode(arrivals) == answers
