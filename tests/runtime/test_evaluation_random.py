# SPDX-License-Identifier: Apache-2.0
"""AP and AR of random cases against plain formulas on decoded masks, one step after the other as the metric is told.

Masks are decoded by pycocotools. Every case mixes what is peculiar: crowds, objects and predictions that are never
seen, empty masks, equal scores, duplicates, stated areas, sizes right at a limit, categories without objects, videos
out of order, polygons and both kinds of run lengths, and now and then more than 100 predictions of a category.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.evaluation.average_precision import STATS
from instance_flow.evaluation.evaluate import evaluate_data
from instance_flow.formats.rle import run_lengths

coco = pytest.importorskip("pycocotools.mask")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools with numpy 2

HEIGHT, WIDTH = 12, 15
CATEGORIES, UNLISTED = (2, 3, 7), 99
Mask = NDArray[np.uint8] | None


def random_case(rng: np.random.Generator, limits: tuple[float, float]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Give ground truth and results; both ``limits`` of size occur exactly as areas."""
    videos = [
        {"id": int(k), "height": HEIGHT, "width": WIDTH, "length": int(rng.integers(1, 5))}
        for k in rng.permutation(20)[: rng.integers(1, 4)]
    ]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for video in videos:
        tracks = [random_track(rng, video["length"], limits) for _ in range(rng.integers(0, 5))]
        for track in tracks:
            annotations.append(
                {
                    **{
                        "id": len(annotations) + 1,
                        "video_id": video["id"],
                        "category_id": int(rng.choice(CATEGORIES[:2])),
                    },
                    **{"iscrowd": int(rng.random() < 0.15), "areas": stated_areas(track, limits, rng)},
                    "segmentations": [encode_truth(mask, rng) for mask in track],
                }
            )
        for _ in range(120 if rng.random() < 0.05 else rng.integers(0, 9)):
            results += random_predictions(rng, video, tracks, annotations, limits)
    names = [{"id": k, "name": f"category {k}"} for k in CATEGORIES]
    order = rng.permutation(len(results))
    return {"videos": videos, "categories": names, "annotations": annotations}, [results[k] for k in order]


def random_track(rng: np.random.Generator, length: int, limits: tuple[float, float]) -> list[Mask]:
    sides = [(3, 3), (5, 6), *(divide(int(limit)) for limit in limits), tuple(rng.integers(1, 12, 2).tolist())]
    height, width = sides[int(rng.integers(len(sides)))]
    corner = rng.integers(0, [HEIGHT - height + 1, WIDTH - width + 1])
    track: list[Mask] = []
    for _ in range(length):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        y, x = corner.tolist()
        mask[y : y + height, x : x + width] = rng.random() > 0.05
        track.append(None if rng.random() < 0.2 else mask)
        corner = np.clip(corner + rng.integers(-1, 2, 2), 0, [HEIGHT - height, WIDTH - width])
    return [None] * length if rng.random() < 0.1 else track


def divide(area: int) -> tuple[int, int]:
    height = next(n for n in range(min(HEIGHT, area), 0, -1) if area % n == 0 and area // n <= WIDTH)
    return height, area // height


def stated_areas(
    track: Sequence[Mask], limits: tuple[float, float], rng: np.random.Generator
) -> list[float | None] | None:
    kind = rng.random()
    if kind < 0.2:
        return [None if mask is None else float(rng.choice(limits)) for mask in track]
    return None if kind < 0.4 else [None if mask is None else int(mask.sum()) for mask in track]


def encode_truth(mask: Mask, rng: np.random.Generator) -> Any:
    if mask is None:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) and rng.random() < 0.3:
        top, left, bottom, right = float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1)
        return [[left, top, right, top, right, bottom, left, bottom]]
    plain = {"size": [HEIGHT, WIDTH], "counts": run_lengths(mask).tolist()}
    return plain if rng.random() < 0.5 else encode(mask)


def encode(mask: Mask) -> dict[str, Any] | None:
    if mask is None:
        return None
    return {"size": [HEIGHT, WIDTH], "counts": coco.encode(np.asfortranarray(mask))["counts"].decode()}


def random_predictions(
    rng: np.random.Generator,
    video: dict[str, Any],
    tracks: Sequence[list[Mask]],
    annotations: Sequence[dict[str, Any]],
    limits: tuple[float, float],
) -> list[dict[str, Any]]:
    """One prediction, often of an object with some frames of something else; now and then it stands there twice."""
    track, category = random_track(rng, video["length"], limits), int(rng.choice([*CATEGORIES, UNLISTED]))
    if tracks and rng.random() < 0.8:
        chosen = int(rng.integers(len(tracks)))
        track = [other if rng.random() < 0.3 else own for own, other in zip(tracks[chosen], track, strict=True)]
        category = annotations[len(annotations) - len(tracks) + chosen]["category_id"]
    entry = {
        **{"video_id": video["id"], "category_id": category, "score": float(rng.integers(0, 6)) / 5},
        "segmentations": [encode(mask) for mask in track],
    }
    return [entry, entry] if rng.random() < 0.1 else [entry]


def decode(mask: Any) -> Mask:
    if mask is None:
        return None
    if isinstance(mask, list):
        return coco.decode(coco.merge(coco.frPyObjects(mask, HEIGHT, WIDTH)))
    plain = isinstance(mask["counts"], list)
    return coco.decode(coco.frPyObjects(mask, HEIGHT, WIDTH) if plain else mask)


def video_iou(a: Sequence[Mask], b: Sequence[Mask]) -> float:
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    frames = [(empty if m is None else m, empty if n is None else n) for m, n in zip(a, b, strict=True)]
    union = sum(int((m | n).sum()) for m, n in frames)
    return sum(int((m & n).sum()) for m, n in frames) / union if union else 0.0


def mean_area(areas: Iterable[float | None]) -> float:
    shown = [area for area in areas if area]
    return sum(shown) / len(shown) if shown else 0.0


def plain_stats(truth: dict[str, Any], results: list[dict[str, Any]], limits: tuple[float, float]) -> dict[str, float]:
    for entry in (*truth["annotations"], *results):
        entry["masks"] = [decode(mask) for mask in entry["segmentations"]]
        pixels = [None if mask is None else int(mask.sum()) for mask in entry["masks"]]
        entry["area"] = mean_area(pixels if entry.get("areas") is None else entry["areas"])
    sizes = [(0.0, 1e10), (0.0, limits[0]), limits, (limits[1], 1e10)]
    every = [plain_category(truth, results, category, size) for size in sizes for category in CATEGORIES]
    by_size = [every[k : k + len(CATEGORIES)] for k in range(0, len(every), len(CATEGORIES))]

    def mean(size: int, kind: str, threshold: int | None = None) -> float:
        rows = [row[kind] for row in by_size[size] if row is not None]
        values = [value for row in rows for h, value in enumerate(row) if threshold in (None, h)]
        return float(np.mean(values)) if values else -1.0

    parts = [mean(0, "AP"), mean(0, "AP", 0), mean(0, "AP", 5), *(mean(size, "AP") for size in (1, 2, 3))]
    parts += [mean(0, f"AR{n}") for n in (1, 10, 100)] + [mean(size, "AR100") for size in (1, 2, 3)]
    return dict(zip(STATS, parts, strict=True))


def plain_category(
    truth: dict[str, Any], results: list[dict[str, Any]], category: int, size: tuple[float, float]
) -> dict[str, list[float]] | None:
    """Precision and recalls by threshold of one category at one size; None where there is nothing to find."""
    numbers: dict[str, list[float]] = {"AP": [], "AR1": [], "AR10": [], "AR100": []}
    for threshold in np.linspace(0.5, 0.95, 10):
        rows: list[tuple[float, int, str]] = []
        objects = 0
        for video in sorted(video["id"] for video in truth["videos"]):
            true = [a for a in truth["annotations"] if (a["video_id"], a["category_id"]) == (video, category)]
            found = [r for r in results if (r["video_id"], r["category_id"]) == (video, category)]
            found = sorted(found, key=lambda r: -r["score"])[:100]
            counted = [not a["iscrowd"] and size[0] <= a["area"] <= size[1] for a in true]
            objects += sum(counted)
            verdicts = plain_verdicts(true, counted, found, size, threshold)
            rows += [(r["score"], rank, verdict) for rank, (r, verdict) in enumerate(zip(found, verdicts, strict=True))]
        if not objects:
            return None
        for limit in (1, 10, 100):
            hits = sum(rank < limit and verdict == "right" for _, rank, verdict in rows)
            numbers[f"AR{limit}"].append(hits / objects)
        numbers["AP"].append(plain_precision([v for _, _, v in sorted(rows, key=lambda row: -row[0])], objects))
    return numbers


def plain_verdicts(
    true: list[dict[str, Any]],
    counted: list[bool],
    found: list[dict[str, Any]],
    size: tuple[float, float],
    threshold: float,
) -> list[str]:
    free, verdicts = [True] * len(true), []
    for result in found:
        ious = [video_iou(result["masks"], annotation["masks"]) for annotation in true]
        fitting = [
            (counted[k], iou, k) for k, iou in enumerate(ious) if iou >= threshold and (free[k] or true[k]["iscrowd"])
        ]
        if fitting:
            best = max(fitting)[2]
            free[best] = False
            verdicts.append("right" if counted[best] else "ignored")
        else:
            verdicts.append("wrong" if size[0] <= result["area"] <= size[1] else "ignored")
    return verdicts


def plain_precision(verdicts: list[str], objects: int) -> float:
    judged = [verdict == "right" for verdict in verdicts]
    right = list(itertools.accumulate(judged))
    wrong = list(itertools.accumulate(verdict == "wrong" for verdict in verdicts))
    precisions = [r / (r + w + 2.0**-52) for r, w in zip(right, wrong, strict=True)]
    recalls = [r / objects for r in right]
    # The precision at a recall is the best at this or any higher one.
    return float(
        np.mean(
            [
                max((p for p, r in zip(precisions, recalls, strict=True) if r >= point), default=0.0)
                for point in np.linspace(0, 1, 101)
            ]
        )
    )


@pytest.mark.parametrize("seed", range(60))
def test_numbers_equal_plain_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    limits = (20.0, 60.0)
    truth, results = random_case(rng, limits)
    found = evaluate_data(truth, results, size_limits=limits)
    expected = plain_stats(truth, results, limits)
    assert {name: found[name] for name in STATS} == pytest.approx(expected, abs=1e-9)
    assert {name: evaluate_data(truth, results, size_limits=limits, tracking=False)[name] for name in STATS} == {
        name: found[name] for name in STATS
    }
