# SPDX-License-Identifier: Apache-2.0
"""Which objects are published: by score, class and number of sightings. Ids do not depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.structures import STATES, Image, ModelInfo, Prediction

INFO = ModelInfo(name="scripted", class_names=("cat", "dog"), input_size=(64, 96), min_score=0.3, confirm_frames=2)
GONE = None
NOBODY = -1.0
"""Heat of a frame without cat and dog."""


class Scripted:
    """A cat on the left whose center heat is given for each frame, and a dog on the right, always plain to see."""

    def __init__(self, heats: Sequence[float | None], info: ModelInfo = INFO) -> None:
        self.info, self._heats = info, list(heats)

    def predict(self, _: Image, references: Sequence[Any]) -> Prediction:
        heat = self._heats.pop(0)
        dog = None if heat == NOBODY else 0.9
        heat = None if heat == NOBODY else heat
        semantic = np.zeros((3, 16, 24), np.float32)
        center, offset = np.zeros((16, 24), np.float32), np.zeros((2, 16, 24), np.float32)
        for channel, column, height in ((1, 4, heat), (2, 18, dog)):
            if height is not None:
                box = np.s_[6:11, column - 2 : column + 3]
                semantic[(channel, *box)] = 1.0
                center[8, column] = height
                y, x = np.mgrid[box]
                offset[(slice(None), *box)] = 8 - y, column - x
        semantic[0] = semantic.sum(0) == 0
        return Prediction(semantic, center, offset, np.repeat(offset[None], len(references), axis=0), np.zeros(1))


def shown(heats: Sequence[float | None], info: ModelInfo = INFO, **settings: Any) -> list[list[int]]:
    """Ids that are published in each frame; the cat's is 2 as the dog's center is hotter, but for later ones."""
    pipeline = Pipeline(Scripted((NOBODY, *heats), info), AssemblyConfig(center_threshold=0.01, **settings))
    image = np.zeros((64, 96, 3), np.uint8)
    pipeline.step(image)
    frames = [pipeline.step(image) for _ in heats]
    for tracks in frames:
        assert sorted(set(np.unique(tracks.label_map)) - {0}) == tracks.ids.tolist()
    return [tracks.ids.tolist() for tracks in frames]


HEATS = (0.5, 0.5, 0.5)
CASES: dict[str, tuple[Sequence[float | None], dict[str, Any], list[list[int]]]] = {
    "the model's own: in the second frame": (HEATS, {}, [[], [1, 2], [1, 2]]),
    "at once": (HEATS, {"confirm_frames": 1}, [[1, 2], [1, 2], [1, 2]]),
    "in the third": (HEATS, {"confirm_frames": 3}, [[], [], [1, 2]]),
    "in a row": ((0.5, GONE, 0.5, 0.5), {}, [[], [1], [1], [1, 2]]),
    "confirmed for good": ((0.5, 0.5, GONE, 0.5), {}, [[], [1, 2], [1], [1, 2]]),
    "a low score": ((0.2, 0.2, 0.2), {"confirm_frames": 1}, [[1], [1], [1]]),
    "no least score": ((0.05, 0.05), {"confirm_frames": 1, "min_score": 0.0}, [[1, 2], [1, 2]]),
    "down to half of it where it was there": ((0.4, 0.2, 0.1, 0.2), {"confirm_frames": 1}, [[1, 2], [1, 2], [1], [1]]),
    "cats": (HEATS, {"classes": "cat"}, [[], [2], [2]]),
    "cats and dogs": (HEATS, {"classes": " dog , cat"}, [[], [1, 2], [1, 2]]),
}


@pytest.mark.parametrize(("heats", "settings", "expected"), CASES.values(), ids=CASES)
def test_what_is_published(heats: Sequence[float | None], settings: dict[str, Any], expected: list[list[int]]) -> None:
    assert shown(heats, **settings) == expected


def test_a_model_that_says_nothing_shows_all() -> None:
    assert shown((0.02,), replace(INFO, min_score=0.0, confirm_frames=1)) == [[1, 2]]


def test_an_id_is_new_when_it_is_published_first() -> None:
    pipeline, image = Pipeline(Scripted((NOBODY, *HEATS))), np.zeros((64, 96, 3), np.uint8)
    states = [pipeline.step(image).states.tolist() for _ in range(4)]
    new, tracked = STATES.index("new"), STATES.index("tracked")
    assert states == [[], [], [new, new], [tracked, tracked]]


def test_a_single_picture_shows_its_objects() -> None:
    """Nothing could have been seen before the first frame of a stream."""
    pipeline, image = Pipeline(Scripted((0.5, 0.5))), np.zeros((64, 96, 3), np.uint8)
    assert pipeline.step(image).ids.tolist() == [1, 2]
    pipeline.reset()
    assert pipeline.step(image).ids.tolist() == [1, 2]


def test_settings_change_live_and_no_id_does() -> None:
    pipeline, image = (
        Pipeline(Scripted((NOBODY, *HEATS)), AssemblyConfig(classes="cat")),
        np.zeros((64, 96, 3), np.uint8),
    )
    pipeline.step(image)
    assert pipeline.step(image).ids.tolist() == []
    pipeline.configure(AssemblyConfig(classes="dog", confirm_frames=1))
    assert pipeline.step(image).ids.tolist() == [1]
    pipeline.configure(AssemblyConfig())
    assert pipeline.step(image).ids.tolist() == [1, 2]


def test_a_snapshot_knows_who_was_published() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    before, after = Pipeline(Scripted((0.5, 0.5))), Pipeline(Scripted((0.2,)))
    for _ in range(2):
        before.step(image)
    after.restore(before.snapshot())
    assert after.step(image).ids.tolist() == [1, 2]


@pytest.mark.parametrize("classes", ["bird", "cat, bird", "Cat"])
def test_an_unknown_class_is_named(classes: str) -> None:
    with pytest.raises(ValueError, match="this model knows cat, dog"):
        Pipeline(Scripted(()), AssemblyConfig(classes=classes))


@pytest.mark.parametrize(
    ("setting", "value"), [("min_score", 1.5), ("min_score", -2), ("confirm_frames", -1), ("classes", 3)]
)
def test_values_that_cannot_be(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{setting} is {value!r}; it must be a"):
        AssemblyConfig(**{setting: value})


def test_match_costs_are_the_models_but_for_those_that_are_set() -> None:
    costs = replace(INFO.match_costs, look_weight=7.0, max_cost=3.0)
    info = replace(INFO, match_costs=costs)
    assert AssemblyConfig().match_costs(info) == costs
    assert AssemblyConfig(max_cost=0.0, lost_cost=1.5).match_costs(info) == replace(costs, max_cost=0.0, lost_cost=1.5)


def test_the_paper_publishes_every_center_above_its_threshold_at_once() -> None:
    """Whatever the model says: neither its threshold, nor its least score, nor the sightings that it wants count."""
    info = replace(INFO, center_threshold=0.5)
    pipeline = Pipeline(Scripted((NOBODY, 0.16, 0.14), info), AssemblyConfig.paper())
    ids = [pipeline.step(np.zeros((64, 96, 3), np.uint8)).ids.tolist() for _ in range(3)]
    assert ids == [[], [1, 2], [1]]
