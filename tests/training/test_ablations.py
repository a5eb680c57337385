# SPDX-License-Identifier: Apache-2.0
"""The ablation tables: every row can be trained and scored; the command does it, resumes, and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.network.protocol import Network
from instance_flow.settings import AssemblyConfig
from instance_flow.structures import Image, ModelInfo, Prediction
from instance_flow_training.ablating import ablations
from instance_flow_training.ablating.ablation_tables import OURS, PRETRAINING, TABLES, VARIANTS, Row
from instance_flow_training.config import load_config
from instance_flow_training.targets import frame_targets, target_offset_map
from instance_flow_training.worlds.synthetic import Clip, WorldConfig, generate_clip

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
TINY = Path(__file__).parents[1] / "tiny.toml"
ROWS = {f"{name}: {row.label}": row for name, table in TABLES.items() for row in table.rows}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_names_a_network_and_an_assembly(row: Row) -> None:
    load_config(CONFIGS / "ablations.toml", list(VARIANTS[row.variant]))
    AssemblyConfig(**{**OURS, **row.assembly})
    assert row.matcher in ablations.MATCHERS


def test_every_variant_is_in_a_table_and_rows_differ() -> None:
    load_config(CONFIGS / "ablations.toml", list(PRETRAINING))
    assert {row.variant for row in ROWS.values()} == set(VARIANTS)
    for table in TABLES.values():
        assert len({(row.variant, row.key) for row in table.rows}) == len(table.rows)


def test_the_command_trains_scores_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    numbers = tmp_path / "new" / "numbers.json"
    steps = ["--set", "steps=1", "--pretrain-steps", "1", "--clips", "1", "--seeds", "3", "--jobs", "2"]
    command = [str(TINY), "--out", str(out), "--tables", "II", "VI", *steps, "--json", str(numbers)]
    assert ablations.main(command) == 0
    table = capsys.readouterr().out
    assert "### Table II: fusion of the frames" in table
    assert "| Concat + cascade ASPP | 31.0 | 32.6 | " in table
    report = json.loads(numbers.read_text())
    assert {name: list(rows) for name, rows in report.items()} == {
        name: [row.label for row in TABLES[name].rows] for name in ("II", "VI")
    }
    assert all(0 <= numbers["AP"] <= 1 for rows in report.values() for seeds in rows.values() for numbers in seeds)
    assert sorted(p.name for p in out.iterdir()) == ["concat_aspp-3", "concat_convs-3", "ours-3", "pretraining-3"]

    def forbidden(*_: Any) -> None:
        raise AssertionError("scored a second time")

    monkeypatch.setattr(ablations, "score_tracks", forbidden)
    again = ablations.score_row(TABLES["VI"].rows[0], out / "ours-3", 1)
    assert again == report["VI"]["Semantic"][0]
    (out / "ours-3" / "checkpoint.pt").touch()
    with pytest.raises(AssertionError, match="scored a second time"):
        ablations.score_row(TABLES["VI"].rows[0], out / "ours-3", 1)


def test_nothing_to_score_is_said_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablations.main([str(TINY), "--out", str(tmp_path), "--clips", "0"]) == 2
    assert capsys.readouterr().err == "instance-flow-ablate: error: --clips is 0; it must be at least 1\n"
    assert not list(tmp_path.iterdir())


def test_a_training_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(TINY), "--out", str(tmp_path), "--tables", "II", "--seeds", "0", "--set", "data.source=coco"]
    assert ablations.main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "instance-flow-ablate: error: training of pretraining-0 failed: instance-flow-train: error: "
    )


def test_mean_and_deviation_over_the_seeds() -> None:
    numbers = [dict.fromkeys(ablations.METRICS, value) for value in (0.1, 0.2, 0.3)]
    report = {"VI": {row.label: numbers for row in TABLES["VI"].rows}}
    assert "| Product | 34.1 | 37.6 | 20.0 ± 10.0 | 20.0 ± 10.0 | 20.0 ± 10.0 | 20.0 ± 10.0 | 0 ± 0 |" in (
        ablations.format_tables(report)
    )
    alone = {"VI": {row.label: numbers[:1] for row in TABLES["VI"].rows}}
    assert "| 10.0 | 10.0 |" in ablations.format_tables(alone)


class Truthful(Network):
    """Says the true offsets of a clip, or that nothing has moved; features are frame numbers."""

    def __init__(self, clip: Clip, sees_motion: bool) -> None:
        self.info = model_info_of(clip)
        self._targets = [frame_targets(labels, clip.class_ids) for labels in clip.labels]
        self._numbers = {image.tobytes(): number for number, image in enumerate(clip.images)}
        self._sees_motion = sees_motion

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:
        number = self._numbers[image.tobytes()]
        target = self._targets[number]
        offset = target_offset_map(target.labels, target.centers)
        to = [self._targets[r if self._sees_motion else number].centers for r in references]
        reference_offset = np.array([target_offset_map(target.labels, centers) for centers in to], np.float32)
        return Prediction(offset, target.center, offset, reference_offset.reshape(-1, *offset.shape), number)


def model_info_of(clip: Clip) -> ModelInfo:
    return ModelInfo(name="truth", class_names=clip.class_names, input_size=clip.images.shape[1:3])


@pytest.mark.parametrize("sees_motion", [True, False])
def test_flow_errors_are_what_flow_misses_by(sees_motion: bool) -> None:
    """Nothing for the truth; for who says that nothing moves, the way of the objects, which grows."""
    clip = generate_clip(3, "mixed", WorldConfig(size=(96, 160), frames=26))
    errors = ablations.flow_errors(Truthful(clip, sees_motion), [clip])
    medians = [errors[f"flow{gap}_median"] for gap in ablations.FRAMES_BACK]
    if sees_motion:
        assert max(errors.values()) < 1e-3
    else:
        assert 0 < medians[0] <= medians[1] < medians[2]
