# SPDX-License-Identifier: Apache-2.0
"""Drawn clips of ellipses with exact truth, and a network that predicts it. Needs the runtime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from instance_flow import ModelInfo, Pipeline, Prediction, Tracks
from instance_flow.assembly.grouping import offset_map
from instance_flow.evaluation.evaluate import evaluate_data
from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, ResultsCollector, Video
from instance_flow.structures import FloatArray, Image, IntArray, LabelMap

SIZE, FRAMES, RATE = (96, 160), 20, 10.0
CLASS_NAMES = ("ball", "box")
FAR_AWAY = -1e4
"""Reference offset of an object that the reference does not show."""

Path = Callable[[int], tuple[float, float]]


@dataclass(frozen=True)
class Thing:
    """An ellipse. radii: half its height and width.   path: its center (y, x) at frame t, perhaps outside."""

    class_id: int
    colour: tuple[int, int, int]
    radii: tuple[float, float]
    path: Path

    def covers(self, t: int) -> np.ndarray:
        """(H, W) bool."""
        (y, x), rows, columns = self.path(t), *np.ogrid[: SIZE[0], : SIZE[1]]
        return ((rows - y) / self.radii[0]) ** 2 + ((columns - x) / self.radii[1]) ** 2 <= 1


@dataclass(frozen=True)
class DrawnClip:
    """images: (T, H, W, 3) uint8 RGB.   labels: (T, H, W) int32, 0 = background, k + 1 = row k of class_ids (N,).

    unreferenced_recoveries: how often an object comes back that neither the first frame nor the last three show.
    """

    images: Image
    labels: LabelMap
    class_ids: IntArray
    unreferenced_recoveries: int = 0


def draw(things: Sequence[Thing], unreferenced_recoveries: int = 0) -> DrawnClip:
    """Things later in the list hide earlier ones."""
    images = np.full((FRAMES, *SIZE, 3), (96, 112, 96), np.uint8)
    images[:, ::8] = 128
    labels = np.zeros((FRAMES, *SIZE), np.int32)
    stripes = (np.arange(SIZE[0]) % 6 < 3)[:, None, None]
    for t in range(FRAMES):
        for row, thing in enumerate(things):
            mask = thing.covers(t)
            labels[t][mask] = row + 1
            images[t] = np.where(
                mask[..., None], np.where(stripes, thing.colour, np.array(thing.colour) // 2), images[t]
            )
    return DrawnClip(images, labels, np.array([thing.class_id for thing in things]), unreferenced_recoveries)


def along(start: tuple[float, float], step: tuple[float, float]) -> Path:
    return lambda t: (start[0] + step[0] * t, start[1] + step[1] * t)


def away(at: tuple[float, float], *frames: range) -> Path:
    """Out of the picture in some frames, else nearly still."""
    return lambda t: (-99, -99) if any(t in some for some in frames) else (at[0] + t / 2, at[1])


RED, BLUE, GREEN, YELLOW = (220, 40, 40), (40, 60, 220), (40, 200, 60), (220, 200, 40)
SITUATIONS = {
    "crossing": draw(
        [
            Thing(0, RED, (14, 9), along((36, 15), (0.5, 7))),
            Thing(0, BLUE, (14, 9), along((48, 145), (0, -7))),
            Thing(1, GREEN, (8, 12), along((80, 80), (0, 0))),
        ]
    ),
    "look-alikes crossing": draw(
        [Thing(0, RED, (14, 9), along((36, 15), (0.5, 7))), Thing(0, RED, (14, 9), along((48, 145), (0, -7)))]
    ),
    "hidden wholly, shown by the first frame": draw(
        [Thing(0, YELLOW, (8, 6), along((40, 80), (1, 0))), Thing(1, BLUE, (30, 22), along((50, -4), (0, 8)))]
    ),
    "back after six frames, shown by the first": draw(
        [
            Thing(0, RED, (10, 16), away((30, 40), range(5, 11), range(14, 18))),
            Thing(1, GREEN, (9, 12), along((70, 130), (-2, -4))),
        ]
    ),
    "back after six frames, shown by no reference": draw(
        [
            Thing(1, GREEN, (9, 12), along((70, 130), (-2, -4))),
            Thing(0, RED, (10, 16), away((20, 40), range(3), range(6, 12))),
        ],
        unreferenced_recoveries=1,
    ),
    "the first frame's only object is away, a look-alike is not": draw(
        [Thing(0, RED, (14, 9), away((36, 40), range(6, 14))), Thing(0, RED, (14, 9), away((48, 120), range(3)))]
    ),
}


class TrueNetwork:
    """Predicts the truth of a clip at stride 1, frame by frame; without references it starts again."""

    def __init__(self, clip: DrawnClip, **settings: float):
        self.info = ModelInfo(
            name="truth",
            class_names=CLASS_NAMES,
            input_size=SIZE,
            output_stride=1,
            center_threshold=0.999,
            center_window=0.0,
            max_distance=1 / 640,
            **settings,  # type: ignore[arg-type]
        )
        self._clip, self._next = clip, 0
        self._centers = [_centers(labels, len(clip.class_ids)) for labels in clip.labels]

    def predict(self, image: Image, references: Sequence[int]) -> Prediction:  # noqa: ARG002
        t = self._next if references else 0
        self._next = t + 1
        labels, centers = self._clip.labels[t], self._centers[t]
        classes = np.concatenate([[0], self._clip.class_ids + 1])[labels]
        semantic = np.where(classes == np.arange(len(CLASS_NAMES) + 1)[:, None, None], 0.998, 0.001)
        center = np.zeros(SIZE, np.float32)
        for y, x in centers[np.isfinite(centers).all(1)].astype(int):
            center[y, x] = 1
        towards = [np.nan_to_num(offset_map(labels, self._centers[r]), nan=FAR_AWAY) for r in references]
        return Prediction(
            semantic.astype(np.float32),
            center,
            offset_map(labels, centers),
            np.stack(towards) if towards else np.empty((0, 2, *SIZE), np.float32),
            t,
        )


def _centers(labels: LabelMap, count: int) -> FloatArray:
    """(N, 2): of each object the pixel nearest to its centroid, NaN where it is not seen."""
    centers = np.full((count, 2), np.nan, np.float32)
    for row in range(count):
        pixels = np.argwhere(labels == row + 1)
        if len(pixels):
            centers[row] = pixels[np.argmin(((pixels - pixels.mean(0)) ** 2).sum(1))]
    return centers


def track(pipeline: Pipeline, clip: DrawnClip) -> list[Tracks]:
    """A whole clip from a fresh stream."""
    pipeline.reset()
    return [pipeline.step(image, round(t * 1e9 / RATE)) for t, image in enumerate(clip.images)]


def truth(clip: DrawnClip) -> GroundTruth:
    masks = [[encode(m) if m.any() else None for m in clip.labels == k + 1] for k in range(len(clip.class_ids))]
    return GroundTruth(
        (Video(1, *SIZE, FRAMES),),
        tuple(Category(k + 1, name) for k, name in enumerate(CLASS_NAMES)),
        tuple(Annotation(k + 1, 1, int(clip.class_ids[k]) + 1, masks[k]) for k in range(len(masks))),
    )


def score(clip: DrawnClip, tracks: Sequence[Tracks]) -> tuple[float, int]:
    """Average precision, and how often an object changes its id."""
    collector = ResultsCollector(len(tracks))
    for frame in tracks:
        collector.add(frame)
    result = evaluate_data(truth(clip), collector.results(1))
    return result["AP"], result["tracking"]["class_agnostic"]["IDSW"]
