# SPDX-License-Identifier: Apache-2.0
"""The anchor on an endless stream: which objects are removed from it, when it is released; memory stays bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.structures import Image, ModelInfo, Prediction
from instance_flow.tracking.memory import Reference, ReferenceMemory
from instance_flow.tracking.tracker import MOST_LOST

Frames = list[list[int]]


def reference(frame_index: int, ids: Sequence[int]) -> Reference:
    centers = np.array([(i, 2 * i) for i in ids], np.float32).reshape(-1, 2)
    return Reference(frame_index, None, frame_index, centers, np.array(ids, np.int64))


def filled(memory: ReferenceMemory, frames: Frames, first: int = 0) -> ReferenceMemory:
    for t, ids in enumerate(frames, first):
        memory.add(reference(t, ids))
    return memory


def shown(memory: ReferenceMemory) -> list[tuple[int, list[int]]]:
    for r in memory.references:
        assert r.features == r.frame_index
        assert r.centers[:, 1].tolist() == [2 * i for i in r.ids.tolist()]
    return [(r.frame_index, r.ids.tolist()) for r in memory.references]


ANCHORS: dict[str, tuple[int, Frames, list[tuple[int, list[int]]]]] = {
    "in view": (2, [[1, 2]] * 6, [(0, [1, 2]), (4, [1, 2]), (5, [1, 2])]),
    "away for two frames": (2, [[1, 2], [1], [1], [1, 2]], [(0, [1, 2]), (2, [1]), (3, [1, 2])]),
    "away twice for two frames": (2, [[1, 2], [1], [1], [1, 2], [1], [1]], [(0, [1, 2]), (4, [1]), (5, [1])]),
    "away for three frames": (2, [[1, 2], [1], [1], [1]], [(0, [1]), (2, [1]), (3, [1])]),
    "removed, and back": (2, [[1, 2], [1], [1], [1], [1, 2]], [(0, [1]), (3, [1]), (4, [1, 2])]),
    "half of them removed": (2, [[1, 2, 3, 4], *[[1, 2]] * 4], [(0, [1, 2]), (3, [1, 2]), (4, [1, 2])]),
    "more than half, released": (2, [[1, 2, 3], *[[1]] * 4], [(2, [1]), (3, [1]), (4, [1])]),
    "the only one, released": (2, [[1], [2], [2], [2]], [(1, [2]), (2, [2]), (3, [2])]),
    "released for good": (2, [[1], [2], [2], [2], [1], [3], [3]], [(4, [1]), (5, [3]), (6, [3])]),
    "empty frames count": (2, [[1], [], [], [], [4]], [(2, []), (3, []), (4, [4])]),
    "never": (0, [[1, 2], *[[3]] * 9], [(0, [1, 2]), (8, [3]), (9, [3])]),
}


@pytest.mark.parametrize(("anchor_frames", "frames", "expected"), ANCHORS.values(), ids=ANCHORS)
def test_objects_out_of_sight_are_struck_off_the_anchor(
    anchor_frames: int, frames: Frames, expected: list[tuple[int, list[int]]]
) -> None:
    assert shown(filled(ReferenceMemory(3, anchor_frames=anchor_frames), frames)) == expected


def test_a_memory_of_one_goes_over_to_the_latest_frame() -> None:
    memory = ReferenceMemory(1, anchor_frames=1)
    assert shown(filled(memory, [[1], [2]])) == [(0, [1])]
    assert shown(filled(memory, [[2]], 2)) == [(2, [2])]


def test_after_a_break_there_is_an_anchor_again() -> None:
    memory = filled(ReferenceMemory(2, anchor_frames=1), [[1], [2], [2], [2]])
    memory = memory.cleared()
    assert shown(filled(memory, [[3], [3], [3]], 4)) == [(4, [3]), (6, [3])]


CHANGES: dict[str, tuple[tuple[int, bool, int], list[int]]] = {
    "smaller": ((2, True, 5), [0, 5]),
    "larger": ((5, True, 5), [0, 3, 4, 5]),
    "no anchor any more": ((3, False, 5), [3, 4, 5]),
    "more patience": ((4, True, 50), [0, 3, 4, 5]),
}


@pytest.mark.parametrize(("kind", "expected"), CHANGES.values(), ids=CHANGES)
def test_another_kind_of_memory_keeps_what_fits(kind: tuple[int, bool, int], expected: list[int]) -> None:
    memory = filled(ReferenceMemory(4, anchor_frames=5), [[1, 2], *[[2]] * 5]).resized(*kind)
    assert [r.frame_index for r in memory.references] == expected


def test_other_settings_do_not_bring_back_an_anchor_or_its_objects() -> None:
    memory = filled(ReferenceMemory(3, anchor_frames=2), [[1, 2], *[[2]] * 3])
    assert shown(memory.resized(3, anchor_frames=2))[0] == (0, [2])
    filled(memory, [[3]] * 3, 4)
    assert shown(memory.resized(3, anchor_frames=2)) == [(4, [3]), (5, [3]), (6, [3])]


class Visitors:
    """A network of objects that stay for a while: one in each of 24 places, each place with a pace of its own."""

    info = ModelInfo(name="visitors", class_names=("thing",), input_size=(96, 160), center_window=0.01)

    def __init__(self) -> None:
        self.t = 0

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:
        h, w = image.shape[0] // 4, image.shape[1] // 4
        center = np.zeros((h, w), np.float32)
        for place in range(24):
            if (self.t + 13 * place) % (40 + place) < 4 + place:
                center[4 + 5 * (place // 6), 4 + 6 * (place % 6)] = 1
        self.t += 1
        towards = np.zeros((len(references), 2, h, w), np.float32)
        return Prediction(np.stack([1 - center, center]), center, np.zeros((2, h, w), np.float32), towards, self.t - 1)


@pytest.mark.parametrize("anchor_frames", [5, 30])
def test_an_id_that_nothing_can_claim_is_forgotten_however_long_the_stream(anchor_frames: int) -> None:
    config = AssemblyConfig(anchor_frames=anchor_frames, lost_frames=20)
    pipeline, image = Pipeline(Visitors(), config), np.zeros((96, 160, 3), np.uint8)
    last_seen: dict[int, int] = {}
    for t in range(1000):
        tracks = pipeline.step(image)
        last_seen.update(dict.fromkeys(tracks.ids.tolist(), t))
        known = pipeline._tracker.known(t).ids.tolist()
        assert all(t - last_seen[i] <= max(anchor_frames, 20) + 1 for i in known)
        assert len(known) <= 24 + MOST_LOST
        assert len(pipeline._memory.references) <= 4
    assert len(last_seen) > 60


def test_a_clip_of_twenty_frames_is_as_without_the_rule() -> None:
    image = np.zeros((96, 160, 3), np.uint8)
    with_rule, without = (Pipeline(Visitors(), replace(AssemblyConfig(), anchor_frames=n)) for n in (20, 0))
    for _ in range(21):
        np.testing.assert_array_equal(with_rule.step(image).label_map, without.step(image).label_map)
