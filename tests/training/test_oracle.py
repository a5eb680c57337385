# SPDX-License-Identifier: Apache-2.0
"""Targets, oracle and runtime together: the truth of synthetic worlds goes through the pipeline and comes out whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.settings import POLICIES
from instance_flow_training.comparing.cli import unreferenced_recoveries
from instance_flow_training.comparing.scoring import score_tracks, track_clip
from instance_flow_training.worlds.oracle import OracleNetwork
from instance_flow_training.worlds.synthetic import SITUATIONS, Clip, WorldConfig, generate_clip


@pytest.fixture(scope="module", params=SITUATIONS)
def clip(request: pytest.FixtureRequest) -> Clip:
    return generate_clip(90_000, request.param, WorldConfig(size=(96, 160), frames=20))


def test_the_truth_through_the_oracle_scores_one(clip: Clip) -> None:
    tracks = track_clip(Pipeline(OracleNetwork(clip)), clip)
    for t, frame in enumerate(tracks):
        np.testing.assert_array_equal(frame.label_map > 0, clip.labels[t] > 0)
    result = score_tracks([clip], [tracks])
    assert result["tracking"]["class_agnostic"]["IDSW"] == 0
    assert result["AP"] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_distances_alone_lose_just_what_no_reference_shows(clip: Clip, policy: str) -> None:
    pipeline = Pipeline(OracleNetwork(clip), AssemblyConfig(matching=policy))
    result = score_tracks([clip], [track_clip(pipeline, clip)])
    assert result["tracking"]["class_agnostic"]["IDSW"] == unreferenced_recoveries(clip, 4)


def test_the_papers_settings_lose_just_what_no_reference_shows(clip: Clip) -> None:
    network = OracleNetwork(clip)
    network.info = replace(network.info, min_score=1.0, confirm_frames=9)
    # The oracle's centers are exact: its own window, none, merges no objects that hide each other.
    pipeline = Pipeline(network, replace(AssemblyConfig.paper(), center_window=0.0))
    result = score_tracks([clip], [track_clip(pipeline, clip)])
    assert result["tracking"]["class_agnostic"]["IDSW"] == unreferenced_recoveries(clip, 4)
