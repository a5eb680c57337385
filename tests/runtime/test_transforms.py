# SPDX-License-Identifier: Apache-2.0
"""Transforms between frames over time: what is taken, what is looked up, and why something is unknown."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.spatial import transforms
from instance_flow.spatial.transforms import TransformBuffer, TransformUnknown

SECOND = 10**9
NO_TURN = (0.0, 0.0, 0.0, 1.0)
Matrix = NDArray[np.floating]


def about_z(degrees: float) -> tuple[float, float, float, float]:
    return 0.0, 0.0, float(np.sin(np.radians(degrees) / 2)), float(np.cos(np.radians(degrees) / 2))


def matrix(x: float, y: float, z: float, degrees: float) -> Matrix:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1]])


def robot(seconds: float = 10.0, tolerance: float = 0.0) -> TransformBuffer:
    """odom -> base moves from 1 s to 2 s; base -> camera and base -> laser are static; map -> odom is of 1 s alone."""
    buffer = TransformBuffer(seconds, tolerance)
    assert buffer.add("odom", "base", SECOND, (0, 0, 0), about_z(0)) == ""
    assert buffer.add("odom", "base", 2 * SECOND, (2, 4, 0), about_z(90)) == ""
    assert buffer.add("base", "camera", 0, (0.5, 0, 1), about_z(-90), static=True) == ""
    assert buffer.add("base", "laser", 0, (-0.2, 0, 0.3), NO_TURN, static=True) == ""
    assert buffer.add("map", "odom", SECOND, (10, 0, 0), about_z(180)) == ""
    return buffer


CAMERA, LASER, ODOM = matrix(0.5, 0, 1, -90), matrix(-0.2, 0, 0.3, 0), matrix(10, 0, 0, 180)
HALF = matrix(1, 2, 0, 45)
LOOKUPS: dict[str, tuple[str, str, float, Matrix]] = {
    "at a stamp": ("odom", "base", 2, matrix(2, 4, 0, 90)),
    "halfway": ("odom", "base", 1.5, HALF),
    "a quarter of the way": ("odom", "base", 1.25, matrix(0.5, 1, 0, 22.5)),
    "the other way round": ("base", "odom", 1.5, np.linalg.inv(HALF)),
    "static, at any time": ("base", "camera", 1000, CAMERA),
    "static and moving": ("odom", "camera", 1.5, HALF @ CAMERA),
    "down from the ancestor": ("camera", "odom", 1.5, np.linalg.inv(HALF @ CAMERA)),
    "between branches, whatever is known above": ("laser", "camera", 1000, np.linalg.inv(LASER) @ CAMERA),
    "through all of the tree": ("map", "camera", 1, ODOM @ CAMERA),
    "to itself": ("base", "base", 1.5, np.eye(4)),
    "with a slash": ("/odom", "/base", 1.5, HALF),
}


@pytest.mark.parametrize(("target", "source", "seconds", "expected"), LOOKUPS.values(), ids=LOOKUPS)
def test_points_of_the_source_are_taken_to_the_target(
    target: str, source: str, seconds: float, expected: Matrix
) -> None:
    found = robot().lookup(target, source, round(seconds * SECOND))
    assert (found.shape, found.dtype) == ((4, 4), np.float64)
    np.testing.assert_allclose(found, expected, atol=1e-12)


ARCS = {
    "a small turn": (0.0, 1e-5),
    "the shorter way across 180 degrees": (170.0, -170.0),
    "quaternions of opposite signs": (10.0, 380.0),
    "no turn": (30.0, 30.0),
}


@pytest.mark.parametrize(("first", "second"), ARCS.values(), ids=ARCS)
def test_rotations_follow_the_shorter_arc_evenly(first: float, second: float) -> None:
    buffer = TransformBuffer()
    buffer.add("a", "b", 0, (0, 0, 0), about_z(first))
    buffer.add("a", "b", SECOND, (0, 0, 0), about_z(second))
    arc = (second - first + 180) % 360 - 180
    for share in (0.1, 0.5, 0.9):
        found = buffer.lookup("a", "b", round(share * SECOND))
        np.testing.assert_allclose(found, matrix(0, 0, 0, first + share * arc), atol=1e-9)


def with_loop() -> TransformBuffer:
    buffer = robot()
    buffer.add("camera", "map", 0, (0, 0, 0), NO_TURN, static=True)
    return buffer


def with_island() -> TransformBuffer:
    buffer = robot()
    buffer.add("world", "drone", 0, (0, 0, 0), NO_TURN, static=True)
    return buffer


def deep(count: int) -> TransformBuffer:
    buffer = TransformBuffer()
    for k in range(count):
        buffer.add(f"f{k}", f"f{k + 1}", 0, (1, 0, 0), NO_TURN, static=True)
    return buffer


UNKNOWN: dict[str, tuple[Callable[[], TransformBuffer], str, str, float, str]] = {
    "nothing was received": (
        TransformBuffer,
        "map",
        "camera",
        1,
        "no transform of the frame 'map' was received; check",
    ),
    "a source never seen": (robot, "map", "arm", 1, "from 'arm' to 'map': no transform of the frame 'arm' was"),
    "a target never seen": (robot, "earth\n", "base", 1, r"of the frame 'earth\\+n' was received"),
    "never seen, to itself": (robot, "arm", "arm", 1, "of the frame 'arm' was received"),
    "two trees": (with_island, "drone", "camera", 1, "two trees with the roots 'map' and 'world'; publish"),
    "the future": (
        robot,
        "odom",
        "camera",
        2.12,
        "0.12 s after the newest transform of 'base' is needed, an .* future",
    ),
    "the past": (robot, "camera", "odom", 0.75, "0.25 s before the oldest transform of 'base' is needed, an .* past"),
    "one nanosecond": (robot, "odom", "base", 2 + 1e-9, "1e-09 s after the newest transform of 'base'"),
    "a loop": (with_loop, "odom", "laser", 1, r"a loop, .*\(base -> odom -> map -> camera -> base\); stop"),
    "too deep": (lambda: deep(65), "f0", "f65", 0, "'f65' has more than 64 frames above it"),
}


@pytest.mark.parametrize(("buffer", "target", "source", "seconds", "sentence"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_unknown_is_one_sentence(
    buffer: Callable[[], TransformBuffer], target: str, source: str, seconds: float, sentence: str
) -> None:
    with pytest.raises(TransformUnknown) as error:
        buffer().lookup(target, source, round(seconds * SECOND))
    assert re.search(sentence, str(error.value)), error.value
    assert str(error.value).startswith("there is no transform from ")
    assert "\n" not in str(error.value)


def test_64_frames_are_not_too_deep() -> None:
    np.testing.assert_allclose(deep(64).lookup("f0", "f64", 0), matrix(64, 0, 0, 0))


def test_the_tolerance_takes_the_nearest_transform_and_no_more() -> None:
    buffer = robot(tolerance=0.1)
    np.testing.assert_allclose(buffer.lookup("odom", "base", round(2.1e9)), matrix(2, 4, 0, 90), atol=1e-12)
    np.testing.assert_allclose(buffer.lookup("odom", "base", round(0.9e9)), matrix(0, 0, 0, 0), atol=1e-12)
    for seconds in (2.101, 0.899):
        with pytest.raises(TransformUnknown, match=r"0\.101 s"):
            buffer.lookup("odom", "base", round(seconds * SECOND))


REFUSED: dict[str, tuple[Any, Any, Any, Any, Any, str]] = {
    "NaN": ("a", "b", 0, (0, np.nan, 0), NO_TURN, "of 'b' in 'a' is refused: its translation is no 3 finite"),
    "infinite rotation": ("a", "b", 0, (0, 0, 0), (0, 0, np.inf, 1), "its rotation is no 4 finite"),
    "zero quaternion": ("a", "b", 0, (0, 0, 0), (0, 0, 0, 0), "has the length 0 and is no rotation"),
    "a quaternion that is not normalised": ("a", "b", 0, (0, 0, 0), (0, 0, 1, 1), "has the length 1.41 "),
    "a huge quaternion": ("a", "b", 0, (0, 0, 0), (0, 0, 0, 1e200), "has the length inf "),
    "two numbers": ("a", "b", 0, (0, 0), NO_TURN, "its translation is no 3"),
    "words": ("a", "b", 0, ("x", "y", "z"), NO_TURN, "its translation is no 3"),
    "its own parent": ("/a", "a", 0, (0, 0, 0), NO_TURN, "cannot be its own parent"),
    "no parent": ("", "b", 0, (0, 0, 0), NO_TURN, "without the name of its parent frame"),
    "a slash alone": ("a", "/", 0, (0, 0, 0), NO_TURN, "without the name of its child frame"),
    "a long name": ("a", "b" * 300, 0, (0, 0, 0), NO_TURN, "has a name of 300 characters; expected at most 255"),
    "a stamp in seconds": ("a", "b", 0.5, (0, 0, 0), NO_TURN, "its stamp is '0.5'; expected a whole number"),
}


@pytest.mark.parametrize(
    ("parent", "child", "stamp", "translation", "rotation", "sentence"), REFUSED.values(), ids=REFUSED
)
def test_what_is_no_transform_is_refused_in_one_sentence(
    parent: Any, child: Any, stamp: Any, translation: Any, rotation: Any, sentence: str
) -> None:
    buffer = TransformBuffer()
    refusal = buffer.add(parent, child, stamp, translation, rotation)
    assert sentence in refusal
    assert "\n" not in refusal
    with pytest.raises(TransformUnknown, match="no transform of the frame"):
        buffer.lookup("a", "b", 0)


def test_a_quaternion_that_was_rounded_is_normalised() -> None:
    buffer = TransformBuffer()
    assert buffer.add("a", "b", 0, (0, 0, 0), (0, 0, 0.707, 0.707)) == ""
    np.testing.assert_allclose(buffer.lookup("a", "b", 0), matrix(0, 0, 0, 90), atol=1e-12)


def test_what_is_older_than_the_seconds_kept_is_forgotten() -> None:
    buffer = robot(seconds=2)
    buffer.add("odom", "base", round(3.5e9), (0, 0, 0), NO_TURN)
    buffer.lookup("odom", "base", 2 * SECOND)
    with pytest.raises(TransformUnknown, match=r"0\.5 s before the oldest"):
        buffer.lookup("odom", "base", round(1.5e9))


def test_stamps_out_of_order_are_sorted_and_the_last_of_equal_ones_counts() -> None:
    buffer = robot()
    buffer.add("odom", "base", round(1.5e9), (7, 0, 0), NO_TURN)
    np.testing.assert_allclose(buffer.lookup("odom", "base", round(1.25e9)), matrix(3.5, 0, 0, 0), atol=1e-12)
    buffer.add("odom", "base", round(1.5e9), (9, 0, 0), NO_TURN)
    np.testing.assert_allclose(buffer.lookup("odom", "base", round(1.5e9)), matrix(9, 0, 0, 0), atol=1e-12)


def test_a_clock_that_is_set_back_clears_the_history_of_that_frame() -> None:
    """A bag of a minute that is played again."""
    buffer = TransformBuffer()
    for second in (0, 60, 1):
        buffer.add("odom", "base", second * SECOND, (second, 0, 0), NO_TURN)
        buffer.add("base", "camera", second * SECOND, (0, 0, 1), NO_TURN, static=True)
    np.testing.assert_allclose(buffer.lookup("odom", "camera", SECOND), matrix(1, 0, 1, 0))
    with pytest.raises(TransformUnknown, match="59 s after the newest transform of 'base'"):
        buffer.lookup("odom", "camera", 60 * SECOND)


def test_a_new_parent_counts_from_its_stamp_on() -> None:
    """A cup is on the table until 1 s and in the gripper from 2 s on."""
    buffer = TransformBuffer(tolerance=0.1)
    for second, parent in ((0, "table"), (1, "table"), (2, "gripper"), (3, "gripper")):
        buffer.add(parent, "cup", second * SECOND, (second, 0, 0), NO_TURN)
    np.testing.assert_allclose(buffer.lookup("table", "cup", round(0.5e9)), matrix(0.5, 0, 0, 0))
    np.testing.assert_allclose(buffer.lookup("table", "cup", round(1.1e9)), matrix(1, 0, 0, 0))
    np.testing.assert_allclose(buffer.lookup("gripper", "cup", round(1.9e9)), matrix(2, 0, 0, 0))
    np.testing.assert_allclose(buffer.lookup("gripper", "cup", round(2.5e9)), matrix(2.5, 0, 0, 0))
    with pytest.raises(TransformUnknown, match="two trees"):
        buffer.lookup("table", "cup", 3 * SECOND)
    with pytest.raises(TransformUnknown, match="'cup' changes its parent from 'table' to 'gripper' within 1 s"):
        buffer.lookup("gripper", "cup", round(1.6e9))


def test_a_frame_may_become_static_and_move_again() -> None:
    buffer = TransformBuffer()
    buffer.add("a", "b", SECOND, (1, 0, 0), NO_TURN)
    buffer.add("a", "b", 0, (2, 0, 0), NO_TURN, static=True)
    np.testing.assert_allclose(buffer.lookup("a", "b", 99 * SECOND), matrix(2, 0, 0, 0))
    buffer.add("a", "b", SECOND, (3, 0, 0), NO_TURN)
    with pytest.raises(TransformUnknown, match="98 s after the newest"):
        buffer.lookup("a", "b", 99 * SECOND)


def test_foreign_messages_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_FRAMES", 100)
    monkeypatch.setattr(transforms, "_SAMPLES", 50)
    buffer = TransformBuffer()
    refusals = [buffer.add("a", f"b{k}", 0, (0, 0, 0), NO_TURN) for k in range(101)]
    assert [k for k, refusal in enumerate(refusals) if refusal] == [99, 100]
    assert "there are 100 frames already" in refusals[-1]
    for k in range(55):
        buffer.add("a", "b1", k, (k, 0, 0), NO_TURN)
    assert buffer.lookup("a", "b1", 5)[0, 3] == 5
    with pytest.raises(TransformUnknown, match="1e-09 s before the oldest"):
        buffer.lookup("a", "b1", 4)


def test_threads_may_add_and_look_up_at_once() -> None:
    """Each is interrupted as often as Python can; without the lock, lists are seen half changed."""
    buffer, answers, done = TransformBuffer(seconds=20e-9), [0], threading.Event()
    failures: list[object] = []
    buffer.add("a", "b", 0, (0, 0, 0), NO_TURN)

    def look() -> None:
        while not done.is_set():
            stamp = answers[0] + 1
            try:
                found = float(buffer.lookup("a", "b", stamp)[0, 3])
            except TransformUnknown:
                continue
            except Exception as error:
                failures.append(error)
                return
            if abs(found - stamp) > 1e-9:
                failures.append(found)

    readers = [threading.Thread(target=look) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        for k in range(1, 6000):
            buffer.add("a", "b", k, (k, 0, 0), NO_TURN)
            answers[0] = k
    finally:
        done.set()
        sys.setswitchinterval(interval)
    for reader in readers:
        reader.join()
    assert not failures


@pytest.mark.parametrize("name", ["seconds", "tolerance"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_settings_that_are_no_time_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be a finite number"):
        TransformBuffer(**{name: value})
