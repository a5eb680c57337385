# SPDX-License-Identifier: Apache-2.0
"""What breaks a stream, and what is left of its tracks then; settings that change while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.stream import Stream
from instance_flow.structures import STATES, Image, ModelInfo, Prediction

SECOND = 10**9
NEW, TRACKED, RECOVERED = range(len(STATES))


class Squares:
    """Sees red squares where they are, each with its center where green stands, and no motion at all."""

    info = ModelInfo(name="squares", class_names=("square",), input_size=(96, 128))

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        cells = (image[2::4, 2::4] / 255).astype(np.float32)
        semantic = np.stack([1 - cells[:, :, 0], cells[:, :, 0]]).astype(np.float32)
        zeros = np.zeros((2, *cells.shape[:2]), np.float32)
        return Prediction(semantic, cells[:, :, 1], zeros, np.zeros((len(references), *zeros.shape), np.float32), None)


def draw(*corners: tuple[int, int], size: tuple[int, int] = (96, 128)) -> Image:
    """Squares of 20 pixels at (y, x), multiples of 4."""
    image = np.zeros((*size, 3), np.uint8)
    for y, x in corners:
        image[y : y + 20, x : x + 20, 0] = 255
        image[y + 8 : y + 12, x + 8 : x + 12, 1] = 255
    return image


TALL, FLAT = draw((20, 20)), draw((20, 20), size=(64, 128))


@pytest.mark.parametrize(
    ("frames", "indices", "states", "breaks"),
    [
        pytest.param([(TALL, 1), (TALL, 2), (TALL, 3)], [0, 1, 2], [NEW, TRACKED, TRACKED], [], id="steady"),
        pytest.param([(TALL, 5), (TALL, 5)], [0, 1], [NEW, TRACKED], [], id="same_stamp_twice"),
        pytest.param(
            [(TALL, 5), (TALL, 4), (TALL, 5)], [0, 0, 1], [NEW, NEW, TRACKED], ["ran back by 1.000 s"], id="back"
        ),
        pytest.param(
            [(TALL, 5), (TALL, None), (TALL, 6)], [0, 1, 2], [NEW, TRACKED, TRACKED], [], id="a_stamp_is_missing"
        ),
        pytest.param([(TALL, None), (TALL, None)], [0, 1], [NEW, TRACKED], [], id="no_stamps"),
        pytest.param(
            [(TALL, 5), (TALL, None), (TALL, 1)], [0, 1, 0], [NEW, TRACKED, NEW], ["ran back"], id="back_behind_none"
        ),
        pytest.param(
            [(TALL, 1), (FLAT, 2), (TALL, 3)], [0, 0, 0], [NEW] * 3, ["128 x 96 to 128 x 64", "128 x 64 to"], id="size"
        ),
        pytest.param([(TALL, 2), (FLAT, 1)], [0, 0], [NEW, NEW], ["size changed"], id="size_and_stamp_break_once"),
        pytest.param(
            [(TALL, 1), (TALL, 4), (TALL, 5)], [0, 1, 2], [NEW, RECOVERED, TRACKED], ["3.000 s passed"], id="gap"
        ),
        pytest.param(
            [(TALL, 1), (TALL, None), (TALL, 9)], [0, 1, 2], [NEW, TRACKED, RECOVERED], ["8.000 s"], id="gap_2"
        ),
        pytest.param([(TALL, 1), (TALL, 3)], [0, 1], [NEW, TRACKED], [], id="longest_gap_that_is_none"),
    ],
)
def test_breaks(
    frames: list[tuple[Image, int | None]], indices: list[int], states: list[int], breaks: list[str]
) -> None:
    told: list[str] = []
    stream = Stream(Pipeline(Squares()), max_gap=2.0, on_break=told.append)
    found = [stream.step(image, None if stamp is None else stamp * SECOND) for image, stamp in frames]
    assert [tracks.frame_index for tracks in found] == indices
    assert [tracks.states.tolist() for tracks in found] == [[state] for state in states]
    assert [tracks.ids.tolist() for tracks in found] == [[1]] * len(frames)
    assert len(told) == len(breaks)
    assert all(part in text for part, text in zip(breaks, told, strict=True)), told


MILLISECOND = 10**6
JITTER: dict[str, tuple[list[int], list[int], int, int]] = {  # stamps in ms, frame indices, jitters, breaks
    "one image early": ([0, 33, 67, 100, 95, 133], [0, 1, 2, 3, 4, 5], 1, 0),
    "a clock set back by half a second": (
        [*range(0, 4000, 100), *range(3500, 4300, 100)],
        list(range(48)),
        4,
        0,
    ),
    "a clock set back by more than max_gap": ([*range(0, 9000, 1000), 5000], [*range(9), 0], 0, 1),
    "a short bag in a loop": ([0, 33, 67, 100, 0, 33, 67, 100], [0, 1, 2, 3, 0, 1, 2, 3], 0, 1),
    "in a loop, its first image lost": ([0, 33, 67, 100, 133, 33, 67], [0, 1, 2, 3, 4, 0, 1], 0, 1),
    "a long bag in a loop": ([*range(0, 60_000, 1000), 0, 1000], [*range(60), 0, 1], 0, 1),
    "the second image before the first": ([100, 95, 133], [0, 0, 1], 0, 1),
}


@pytest.mark.parametrize(("stamps", "indices", "jitters", "breaks"), JITTER.values(), ids=JITTER)
def test_stamps_that_run_back(stamps: list[int], indices: list[int], jitters: int, breaks: int) -> None:
    """A little: ids continue, and the image has no time. Far, or to where the stream began: it is another one."""
    broken: list[str] = []
    jittered: list[str] = []
    stream = Stream(Pipeline(Squares()), 2.0, broken.append, jittered.append)
    found = [stream.step(TALL, stamp * MILLISECOND) for stamp in stamps]
    assert [tracks.frame_index for tracks in found] == indices
    assert (len(jittered), len(broken)) == (jitters, breaks)
    timeless = [np.isnan(tracks.age_seconds).all() for tracks in found]
    assert sum(timeless) == jitters


def test_max_gap_of_zero_keeps_the_rule_for_stamps_that_run_back() -> None:
    told: list[str] = []
    stream = Stream(Pipeline(Squares()), 0.0, told.append)
    for stamp in (0, 60, 120, 117):
        stream.step(TALL, stamp * SECOND)
    assert len(told) == 1


def test_image_that_is_none_breaks_nothing() -> None:
    stream = Stream(Pipeline(Squares()), on_break=pytest.fail)
    stream.step(TALL, 9 * SECOND)
    with pytest.raises(ValueError, match=r"shape \(0, 0, 3\)"):
        stream.step(np.zeros((0, 0, 3), np.uint8), SECOND)
    assert stream.step(TALL, 10 * SECOND).states.tolist() == [TRACKED]


def test_gap_of_any_length_may_be_allowed() -> None:
    stream = Stream(Pipeline(Squares()), max_gap=0, on_break=pytest.fail)
    assert [stream.step(TALL, stamp * SECOND).states.tolist() for stamp in (1, 9000)] == [[NEW], [TRACKED]]


def test_new_encoding_breaks_but_keeps_ids() -> None:
    told: list[str] = []
    stream = Stream(Pipeline(Squares()), on_break=told.append)
    found = [stream.step(TALL, stamp, name) for stamp, name in enumerate(("rgb8", "rgb8", "nv12", "nv12"), start=1)]
    assert [tracks.states.tolist() for tracks in found] == [[NEW], [TRACKED], [RECOVERED], [TRACKED]]
    assert told == [
        "the image encoding changed from rgb8 to nv12: ids continue, but objects are re-identified by appearance only"
    ]


def test_object_that_a_gap_replaced_gets_a_new_id() -> None:
    stream = Stream(Pipeline(Squares()))
    stream.step(draw((20, 20)), SECOND)
    other = draw((20, 20))
    other[:, :, 2] = 255 - other[:, :, 0] // 2
    tracks = stream.step(other, 60 * SECOND)
    assert (tracks.frame_index, tracks.ids.tolist(), tracks.states.tolist()) == (1, [2], [NEW])


def test_states_and_ages() -> None:
    """One object stays, one is hidden for two frames, one comes late."""
    stays, hides, late = (8, 8), (8, 60), (60, 60)
    stream = Stream(Pipeline(Squares()))
    scenes = [(stays, hides), (stays,), (stays,), (stays, hides, late)]
    tracks = [stream.step(draw(*corners), SECOND + n * SECOND // 10) for n, corners in enumerate(scenes)][-1]
    assert tracks.ids.tolist() == [1, 2, 3]
    assert tracks.states.tolist() == [TRACKED, RECOVERED, NEW]
    assert tracks.ages.tolist() == [3, 3, 0]
    np.testing.assert_allclose(tracks.age_seconds, [0.3, 0.3, 0.0], atol=1e-9)


def test_empty_frames_count() -> None:
    stream = Stream(Pipeline(Squares()))
    for n in range(4):
        stream.step(draw() if n else TALL, SECOND + n)
    tracks = stream.step(TALL, SECOND + 4)
    assert (tracks.ids.tolist(), tracks.ages.tolist(), tracks.states.tolist()) == ([1], [4], [RECOVERED])


def test_age_is_unknown_without_a_stamp() -> None:
    pipeline = Pipeline(Squares())
    assert np.isnan(pipeline.step(TALL).age_seconds).all()
    assert np.isnan(pipeline.step(TALL, SECOND).age_seconds).all()


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        pytest.param({"max_instances": 1}, 1, id="max_instances"),
        pytest.param({"center_threshold": 0.99}, 2, id="threshold"),
        pytest.param({"references": 1}, 2, id="fewer_references"),
        pytest.param({"reference_policy": "recent"}, 2, id="policy"),
        pytest.param({"matching": "nearest"}, 2, id="matching"),
    ],
)
def test_new_settings_lose_no_id(settings: dict[str, Any], count: int) -> None:
    pipeline, image = Pipeline(Squares()), draw((8, 8), (60, 60))
    for stamp in (1, 2, 3):
        assert pipeline.step(image, stamp).ids.tolist() == [1, 2]
    pipeline.configure(AssemblyConfig(**settings))
    tracks = pipeline.step(image, 4)
    assert (tracks.frame_index, tracks.ids.tolist()) == (3, [1, 2][:count])
    assert set(tracks.states.tolist()) == {TRACKED}


def test_settings_that_the_model_cannot_have_change_nothing() -> None:
    pipeline = Pipeline(Squares(), AssemblyConfig(max_instances=7))
    with pytest.raises(ValueError, match="references is 9, but this model takes at most 4"):
        pipeline.configure(AssemblyConfig(references=9))
    assert pipeline.config.max_instances == 7


def test_two_streams_on_one_network_know_nothing_of_one_another() -> None:
    network = Squares()
    streams = Stream(Pipeline(network)), Stream(Pipeline(network))
    for stamp in (1, 2, 3):
        found = [streams[0].step(draw((8, 8)), stamp), streams[1].step(draw((8, 8), (60, 60)), stamp)]
    assert [tracks.ids.tolist() for tracks in found] == [[1], [1, 2]]
