# SPDX-License-Identifier: Apache-2.0
"""The constants of the matching are chosen on clips, and go into the model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instance_flow import AssemblyConfig, Pipeline
from instance_flow.network.onnx import OnnxNetwork
from instance_flow.structures import MatchCosts, ModelInfo
from instance_flow_training.comparing.calibration import FoundClip, calibrate, find, score, write_costs
from instance_flow_training.comparing.cli import main
from instance_flow_training.comparing.scoring import score_tracks, track_clip
from instance_flow_training.worlds.oracle import OracleNetwork
from instance_flow_training.worlds.synthetic import Clip, WorldConfig, generate_clip

LOST = AssemblyConfig().lost_frames


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [generate_clip(seed, "crossing", WorldConfig(size=(96, 160), frames=12)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def found(clips: list[Clip]) -> list[FoundClip]:
    return [find(Pipeline(OracleNetwork(clip)), clip) for clip in clips]


@pytest.fixture(scope="module")
def info(clips: list[Clip]) -> ModelInfo:
    return OracleNetwork(clips[0]).info


def unit(info: ModelInfo, costs: MatchCosts) -> float:
    return costs.flow_error * float(np.sqrt(np.prod(info.input_size))) / info.output_stride


def test_the_truth_has_no_switches(found: list[FoundClip], info: ModelInfo) -> None:
    costs = info.match_costs
    judged = score(found, costs, unit(info, costs), LOST)
    assert judged.switches == 0
    assert judged.idf1 > 0.99


@pytest.mark.parametrize("max_cost", [8.5, 0.4])
def test_scores_are_those_of_the_evaluator(
    clips: list[Clip], found: list[FoundClip], info: ModelInfo, max_cost: float
) -> None:
    """Matching again what was found is as good as running the pipeline again, and counts switches as it does."""
    config = AssemblyConfig(max_cost=max_cost, min_score=0.0, confirm_frames=1)
    tracks = [track_clip(Pipeline(OracleNetwork(clip), config), clip) for clip in clips]
    expected = score_tracks(clips, tracks)["tracking"]["class_agnostic"]
    costs = replace(info.match_costs, max_cost=max_cost)
    judged = score(found, costs, unit(info, costs), LOST)
    assert judged.switches == expected["IDSW"]
    assert judged.idf1 == pytest.approx(expected["IDF1"], abs=0.02)


def test_bad_constants_are_bettered(found: list[FoundClip], info: ModelInfo) -> None:
    said: list[str] = []
    bad = replace(info, match_costs=replace(info.match_costs, max_cost=1.0))
    costs, before, after = calibrate(bad, found, said.append)
    assert after.idf1 > before.idf1
    assert costs != bad.match_costs
    assert len(said) == 18
    assert "round 2 of 2, max_cost" in said[-1]


def test_clips_without_objects_are_refused(info: ModelInfo) -> None:
    with pytest.raises(ValueError, match="to calibrate on; give others"):
        calibrate(info, [])


def test_the_model_file_takes_them(bundled_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    costs = MatchCosts(max_cost=3.25, look_weight=0.5)
    write_costs(bundled_model, tmp_path / "out.onnx", costs)
    assert OnnxNetwork(tmp_path / "out.onnx", "cpu").info == replace(
        OnnxNetwork(bundled_model, "cpu").info, match_costs=costs
    )


def test_command(bundled_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    out = tmp_path / "out.onnx"
    assert (
        main([str(bundled_model), "--calibrate", str(out), "--clips", "2", "--frames", "8", "--trackers", "flow"]) == 0
    )
    assert "before  IDF1" in capsys.readouterr().out
    assert out.is_file()
    true = [str(bundled_model), "--calibrate", str(out), "--clips", "1", "--frames", "6", "--true-masks"]
    assert main(true) == 0
    said = capsys.readouterr().out
    assert float(said.split("before  IDF1 ")[1].split(",")[0]) > 0.5, "the truth's objects, not the model's"
    assert main([str(bundled_model), "--calibrate", str(out), "--clips", "0"]) == 2
    assert "the number of clips is 0" in capsys.readouterr().err
