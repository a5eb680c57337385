# SPDX-License-Identifier: Apache-2.0
"""Ground truth and results of moving blobs, in YouTube-VIS format, of any size and the same at every run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats import rle

TRUTH, RESULTS = "ground_truth.json", "results.json"
HEIGHT, WIDTH, FRAMES = 360, 640, 30
OBJECTS_PER_VIDEO, PREDICTIONS_PER_VIDEO, CATEGORIES = 4.9, 50, 10

Blob = NDArray[np.float64]
"""Center y, x; velocity y, x in pixels per frame; radius y, x; phase of its outline."""
Track = list[rle.RunLengths | None]


def write_case(folder: Path, videos: int, seed: int = 0) -> None:
    """Write both files, one video at a time: predictions drift, swap objects, mistake categories, or are made up."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "info": {},
        "licenses": [],
        "videos": [_video(number) for number in range(1, videos + 1)],
        "categories": [{"id": k, "name": f"thing {k}", "supercategory": "thing"} for k in range(1, CATEGORIES + 1)],
        "annotations": [],
    }
    with (folder / RESULTS).open("w", encoding="utf-8") as file:
        for number, entry in enumerate(_predictions(truth["annotations"], videos, rng)):
            _write_entry(file, entry, first=number == 0)
        file.write("]")
    (folder / TRUTH).write_text(json.dumps(truth), encoding="utf-8")


def _write_entry(file: TextIO, entry: dict[str, Any], first: bool) -> None:
    file.write("[" if first else ", ")
    json.dump(entry, file)


def _predictions(annotations: list[dict[str, Any]], videos: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Give the predictions of one video after the other, and append its true objects to ``annotations``."""
    for video in range(1, videos + 1):
        blobs = [_blob(rng) for _ in range(round(OBJECTS_PER_VIDEO * video) - len(annotations))]
        # As in real videos, the objects of one are of few categories.
        categories = 1 + (video + rng.integers(0, 2, len(blobs))) % CATEGORIES
        for blob, category in zip(blobs, categories.tolist(), strict=True):
            annotations.append(_annotation(len(annotations) + 1, video, category, _track([blob] * FRAMES, rng)))
        for _ in range(PREDICTIONS_PER_VIDEO):
            yield _prediction(video, blobs, categories, rng)


def _video(number: int) -> dict[str, Any]:
    names = [f"{number:04d}/{t:05d}.jpg" for t in range(FRAMES)]
    return {"id": number, "height": HEIGHT, "width": WIDTH, "length": FRAMES, "file_names": names}


def _annotation(number: int, video: int, category: int, track: Track) -> dict[str, Any]:
    shown = [None if runs is None else runs.tolist() for runs in track]
    return {
        **{"id": number, "video_id": video, "category_id": category, "iscrowd": int(number % 25 == 0)},
        **{"height": HEIGHT, "width": WIDTH, "length": 1},
        "areas": [None if runs is None else sum(runs[1::2]) for runs in shown],
        "bboxes": [None if runs is None else [0.0, 0.0, 1.0, 1.0] for runs in shown],
        # Not compressed, as YouTube-VIS is distributed, and as TrackEval wants it.
        "segmentations": [None if runs is None else {"size": [HEIGHT, WIDTH], "counts": runs} for runs in shown],
    }


def _prediction(
    video: int, blobs: Sequence[Blob], categories: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, Any]:
    chosen, other = rng.integers(len(blobs), size=2)
    swap = rng.integers(FRAMES // 2, 2 * FRAMES)
    made_up = rng.random() < 0.2
    path = [_blob(rng)] * FRAMES if made_up else [blobs[chosen if t < swap else other] for t in range(FRAMES)]
    error = rng.exponential(0.1)
    shift = error * rng.normal(size=7) * [30, 30, 0.5, 0.5, 0, 0, 1]
    scale = np.exp(error * rng.normal(size=7) * [0, 0, 0, 0, 1, 1, 0])
    right = not made_up and rng.random() < 0.85
    track = _track([blob * scale + shift for blob in path], rng)
    return {
        "video_id": video,
        "category_id": int(categories[chosen] if right else rng.integers(1, CATEGORIES + 1)),
        "score": float(np.clip(np.exp(-3 * error - made_up) + rng.normal(0, 0.1), 0, 1)),
        "segmentations": [
            None if runs is None else {"size": [HEIGHT, WIDTH], "counts": rle.compress(runs)} for runs in track
        ],
    }


def _blob(rng: np.random.Generator) -> Blob:
    y, x = rng.uniform((60, 80), (HEIGHT - 60, WIDTH - 80))
    radii = np.exp(rng.uniform(np.log((15, 20)), np.log((150, 220))))
    return np.array([y, x, *rng.normal(0, 2, 2), *radii, rng.uniform(0, 6)])


def _track(path: Sequence[Blob], rng: np.random.Generator) -> Track:
    return [None if rng.random() < 0.1 else _draw(blob, t, rng) for t, blob in enumerate(path)]


def _draw(blob: Blob, frame: int, rng: np.random.Generator) -> rle.RunLengths:
    """Give the run lengths of a wobbling ellipse with a ragged outline, one stretch of pixels per column."""
    y, x, dy, dx, radius_y, radius_x, phase = blob
    y, x = y + dy * frame, x + dx * frame
    columns = np.arange(max(0, int(x - radius_x)), min(WIDTH, int(x + radius_x) + 1))
    across = (columns - x) / radius_x
    half = radius_y * np.sqrt(np.maximum(0, 1 - across**2)) * (1 + 0.2 * np.sin(4 * across + phase + frame / 5))
    ragged = rng.integers(-1, 2, (2, len(columns)))
    top, bottom = np.clip(np.rint([y - half, y + half]).astype(np.int64) + ragged, 0, HEIGHT - 1)
    edges = np.stack([columns * HEIGHT + top, columns * HEIGHT + bottom], axis=1)
    return rle.runs_between(edges[top < bottom].reshape(-1), HEIGHT * WIDTH)
