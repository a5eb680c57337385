# SPDX-License-Identifier: Apache-2.0
"""Errors in metres against the truth of a scene: exact numbers, what belongs to what, and files that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instance_flow.evaluation.in_metres import evaluate_in_metres
from instance_flow.structures import SourceError

FOCAL, MIDDLE = 100.0, (64.0, 48.0)
TURNED = np.array([[0, 0, 1, 7], [-1, 0, 0, 0], [0, -1, 0, 2], [0, 0, 0, 1.0]])
"""The camera in the world: it looks along x."""


def in_world(point: Any) -> list[float]:
    return (TURNED[:3, :3] @ point + TURNED[:3, 3]).tolist()  # type: ignore[no-any-return]


def true_object(surface: Any, velocity: Any = (0.5, 0, 0)) -> dict[str, Any]:
    """Its body is 1 m behind its surface, which errors must not be measured from."""
    turned = (TURNED[:3, :3] @ velocity).tolist()
    return {
        "label": 1,
        "pixels": 0 if surface is None else 9,
        "camera": {"position": [0, 0, 9], "velocity": list(velocity)},
        "world": {"position": [9, 0, 0], "velocity": turned},
        "surface": surface,
    }


def truth(frames: list[list[dict[str, Any]]]) -> dict[str, Any]:
    lens = {"size": [96, 128], "matrix": [[FOCAL, 0, MIDDLE[0]], [0, FOCAL, MIDDLE[1]], [0, 0, 1]], "distortion": []}
    return {
        "frame_ids": {"camera": "optical", "world": "map"},
        "camera": lens,
        "objects": [],
        "frames": [{"stamp": k, "pose": TURNED.tolist(), "objects": row} for k, row in enumerate(frames)],
    }


def track(place: Any, pixel: tuple[float, float], velocity: Any = None, half: float = 10) -> dict[str, Any]:
    x, y = pixel
    return {
        "box": [x - half, y - half, 2 * half, 2 * half],
        "center": {"x": x, "y": y},
        "position": place,
        "spatial_velocity": velocity,
    }


def line(stamp: int | None, tracks: list[dict[str, Any]], frame: str = "optical") -> dict[str, Any]:
    return {"number": 0, "stamp": stamp, "spatial_frame": frame, "tracks": tracks}


def measured(folder: Path, true: Any, lines: list[Any]) -> dict[str, Any]:
    (folder / "truth.json").write_text(json.dumps(true))
    (folder / "tracks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return evaluate_in_metres([(folder / "truth.json", folder / "tracks.jsonl")])


AHEAD = [0.0, 0.0, 2.0]


def test_errors_are_those_that_were_made(tmp_path: Path) -> None:
    """Of positions 1 to 5 cm, of the velocities that are known 0.1 and 0.3 m/s."""
    true = truth([[true_object(AHEAD)] for _ in range(5)])
    speeds = [None, None, None, [0.6, 0, 0], [0.5, 0, -0.3]]
    lines = [line(k, [track([0.0, 0.01 * (k + 1), 2.0], MIDDLE, speeds[k])]) for k in range(5)]
    found = measured(tmp_path, true, lines)
    assert (found["objects"], found["placed"], found["velocities"]) == (5, 5, 2)
    errors = [found[name] for name in ("position_median", "position_p90", "velocity_median", "velocity_p90")]
    np.testing.assert_allclose(errors, [0.03, 0.046, 0.2, 0.28], atol=1e-9)


def test_a_fixed_frame_is_that_of_the_pose(tmp_path: Path) -> None:
    true = truth([[true_object(AHEAD)]])
    turned = (TURNED[:3, :3] @ (0.5, 0, 0.4)).tolist()
    found = measured(tmp_path, true, [line(0, [track(in_world([0.0, 0.3, 2.0]), MIDDLE, turned)], "map")])
    np.testing.assert_allclose((found["position_median"], found["velocity_median"]), (0.3, 0.4), atol=1e-9)


LEFT, RIGHT = (44.0, 48.0), (84.0, 48.0)
"""Where (-0.4, 0, 2) and (0.4, 0, 2) are in the image."""


@pytest.mark.parametrize(
    ("objects", "tracks", "numbers"),
    [
        ([[-0.4, 0, 2], [0.4, 0, 2]], [([0.4, 0, 2.5], RIGHT), ([-0.4, 0, 2.1], LEFT)], (2, 2, 0.3)),
        # The nearer track has it, although the other one is nearer along the ray.
        ([[0, 0, 2]], [([0, 0, 2], (70.0, 48.0)), ([0, 0, 3], MIDDLE)], (1, 1, 1.0)),
        ([[-0.4, 0, 2]], [([-0.4, 0, 2], RIGHT)], (1, 0, None)),
        ([[-0.4, 0, 2]], [(None, LEFT)], (1, 0, None)),
        ([None, [0.4, 0, 2]], [([0.4, 0, 2.2], RIGHT)], (1, 1, 0.2)),
        ([None], [([0.4, 0, 2.2], RIGHT)], (0, 0, None)),
        ([], [], (0, 0, None)),
    ],
    ids=["each its own", "two over one", "elsewhere", "not placed", "one hidden", "all hidden", "nothing"],
)
def test_what_belongs_to_what(tmp_path: Path, objects: list[Any], tracks: list[Any], numbers: Any) -> None:
    true = truth([[true_object(one) for one in objects]])
    found = measured(tmp_path, true, [line(0, [track(*one) for one in tracks])])
    assert (found["objects"], found["placed"]) == numbers[:2]
    assert found["position_median"] == (None if numbers[2] is None else pytest.approx(numbers[2]))


def test_frames_that_the_truth_does_not_have_do_not_count(tmp_path: Path) -> None:
    true, right = truth([[true_object(AHEAD)]]), [track(AHEAD, MIDDLE)]
    assert measured(tmp_path, true, [line(0, right), line(5, right), line(None, right)])["objects"] == 1


def without(entry: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {key: value for key, value in data.items() if key != entry}


def unchanged(data: Any) -> Any:
    return data


@pytest.mark.parametrize(
    ("true", "told", "words"),
    [
        (without("frame_ids"), unchanged, "truth.json: is not the truth of a scene with depth ('frame_ids' is missing"),
        (lambda _: [], unchanged, "truth.json: is not the truth of a scene with depth"),
        (lambda data: data | {"frames": [{"stamp": 0}]}, unchanged, "('objects' is missing or wrong)"),
        (unchanged, without("spatial_frame"), "line 1: it was written without --depth"),
        (
            unchanged,
            lambda data: data | {"spatial_frame": "odom"},
            "are in the frame 'odom', the truth in 'optical' and",
        ),
        (unchanged, without("tracks"), "line 1 is not as a run with --depth writes it ('tracks')"),
        (unchanged, lambda data: data | {"tracks": [{"position": "x", "box": [1]}]}, "line 1 is not as a run"),
        (unchanged, lambda _: 7, "line 1 is not as a run"),
    ],
    ids=["no names", "a list", "no objects", "without depth", "other frame", "no tracks", "odd tracks", "a number"],
)
def test_files_that_do_not_fit(tmp_path: Path, true: Any, told: Any, words: str) -> None:
    good = truth([[true_object(AHEAD)]])
    with pytest.raises(SourceError) as caught:
        measured(tmp_path, true(good), [told(line(0, [track(AHEAD, MIDDLE)]))])
    assert words in str(caught.value)


def test_files_that_are_missing_or_no_json(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(truth([])))
    with pytest.raises(SourceError, match=r"tracks\.jsonl: there is no such file; expected the tracks of a run"):
        evaluate_in_metres([(tmp_path / "truth.json", tmp_path / "tracks.jsonl")])
    (tmp_path / "tracks.jsonl").write_text("{")
    with pytest.raises(SourceError, match="cannot be read as lines of JSON"):
        evaluate_in_metres([(tmp_path / "truth.json", tmp_path / "tracks.jsonl")])
