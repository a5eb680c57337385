# SPDX-License-Identifier: Apache-2.0
"""Any order of frames, settings, resets, snapshots and restores: nothing fails, and ids keep their promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.structures import STATES, Image, ModelInfo, Prediction

hypothesis = pytest.importorskip("hypothesis")
st, stateful = hypothesis.strategies, pytest.importorskip("hypothesis.stateful")
StateMachine: Any = stateful.RuleBasedStateMachine

PLACES = ((4, 4), (4, 18), (16, 4), (16, 18))
CONFIGS = st.builds(
    AssemblyConfig,
    anchor_frames=st.integers(0, 4),
    lost_frames=st.integers(0, 2),
    references=st.sampled_from([0, 0, 1, 2, 4, 6]),
    reference_policy=st.sampled_from(["first+recent", "first+recent", "recent"]),
    matching=st.sampled_from(["evidence", "evidence", "evidence", "nearest", "mean"]),
    confirm_frames=st.integers(0, 3),
    max_cost=st.sampled_from([-1.0, 0.5, 8.5]),
)


class Places:
    """Sees an object of 5 x 5 cells wherever a place is lit, and says that nothing moved."""

    info = ModelInfo(name="places", class_names=("thing",), input_size=(96, 96), max_references=6)

    def predict(self, image: Image, references: Sequence[Any]) -> Prediction:
        semantic = np.zeros((2, 24, 24), np.float32)
        center, offset = np.zeros((24, 24), np.float32), np.zeros((2, 24, 24), np.float32)
        for y, x in PLACES:
            if image[4 * y, 4 * x].any():
                box = np.s_[y - 2 : y + 3, x - 2 : x + 3]
                semantic[(1, *box)], center[y, x] = 1.0, 1.0
                rows, columns = np.mgrid[box]
                offset[(slice(None), *box)] = y - rows, x - columns
        semantic[0] = 1 - semantic[1]
        shown = np.repeat(offset[None], len(references), axis=0)
        return Prediction(semantic, center, offset, shown, np.zeros(1, np.float32))


class AnyStream(StateMachine):
    """Two pipelines, so that a snapshot may be restored elsewhere and under other settings."""

    snapshots = stateful.Bundle("snapshots")

    @stateful.initialize(config=CONFIGS)
    def begin(self, config: AssemblyConfig) -> None:
        self.pipeline = Pipeline(Places(), config)
        self.announced: set[int] = set()

    @stateful.rule(
        frames=st.lists(st.sets(st.sampled_from(PLACES)), min_size=1, max_size=6), hue=st.sampled_from([10, 200])
    )
    def some_come_and_go(self, frames: list[set[tuple[int, int]]], hue: int) -> None:
        for seen in frames:
            self._step(seen, hue)

    @stateful.rule(stays=st.sampled_from(PLACES), times=st.integers(1, 6))
    def all_are_there_and_then_but_one_are_gone(self, stays: tuple[int, int], times: int) -> None:
        self._step(set(PLACES), 10)
        for _ in range(times):
            self._step({stays}, 10)

    @stateful.rule(times=st.integers(1, 6))
    def nobody_is_there(self, times: int) -> None:
        for _ in range(times):
            self._step(set(), 10)

    def _step(self, seen: set[tuple[int, int]], hue: int) -> None:
        image = np.zeros((96, 96, 3), np.uint8)
        for y, x in seen:
            image[4 * y - 8 : 4 * y + 12, 4 * x - 8 : 4 * x + 12] = hue, 255 - hue, 7
        tracks = self.pipeline.step(image)
        assert len(set(tracks.ids.tolist())) == len(tracks)
        new = set(tracks.ids[tracks.states == STATES.index("new")].tolist())
        assert not new & self.announced
        self.announced |= new
        assert set(tracks.ids.tolist()) <= self.announced

    @stateful.rule(config=CONFIGS)
    def configure(self, config: AssemblyConfig) -> None:
        self.pipeline.configure(config)

    @stateful.rule()
    def reset(self) -> None:
        self.pipeline.reset()
        self.announced = set()

    @stateful.rule()
    def forget_references(self) -> None:
        self.pipeline.forget_references()

    @stateful.rule(target=snapshots)
    def snapshot(self) -> Any:
        return self.pipeline.snapshot(), self.pipeline.config, set(self.announced)

    @stateful.rule(taken=snapshots, anchor_frames=st.integers(0, 4), lost_frames=st.integers(0, 4))
    def restore(self, taken: Any, anchor_frames: int, lost_frames: int) -> None:
        snapshot, made_under, announced = taken
        self.announced = set(announced)
        same = {name: getattr(made_under, name) for name in ("references", "reference_policy", "resize")}
        self.pipeline = Pipeline(Places(), AssemblyConfig(**same, anchor_frames=anchor_frames, lost_frames=lost_frames))
        self.pipeline.restore(snapshot)

    @stateful.invariant()
    def every_id_of_a_reference_is_known(self) -> None:
        if hasattr(self, "pipeline"):
            shown = {i for r in self.pipeline._memory.references for i in r.ids.tolist()}
            assert shown <= self.pipeline._tracker.ids


TestAnyStream = AnyStream.TestCase
TestAnyStream.settings = hypothesis.settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
