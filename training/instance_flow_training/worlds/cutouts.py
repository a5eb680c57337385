# SPDX-License-Identifier: Apache-2.0
"""Real objects, cut out of labelled pictures by their masks, to play in worlds over other real pictures.

Stills moved as a whole cannot teach what moves against what. Cut-outs do: they have ways, sizes and times of their own,
hide each other and leave, and their masks and identities are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import Image, SourceError
from instance_flow_training.data.annotated_clips import AnnotatedClip, ClipSet, paint_labels
from instance_flow_training.data.set_files import read_frame
from instance_flow_training.data.video_sets import open_video_set
from instance_flow_training.targets import IGNORE

FloatArray = NDArray[np.float32]

LEAST_EXTENT = 48
"""Pixels: a smaller object, enlarged, is a blur."""
_LEAST_SHARE = 0.2
"""Of its box that an object must fill: less is mostly the frame of something else."""
_MARGIN = 2
_MOST_PASTED, _BESIDE = 4, 0.8
"""Cut-outs that are pasted into a picture at most, and the share of them beside one of their class."""
_LEAST_PASTED, _LARGEST_SCALE = 4, 2.0
"""Pixels of each side that a pasted object must show, and how far it is enlarged at most."""
_KEPT = 256
"""Pictures and cut-outs that are kept in memory."""


@dataclass(frozen=True)
class Cutout:
    """Where an object is cut out: its picture and label there, and its box (x0, y0, x1, y1)."""

    clip: int
    label: int
    class_id: int
    box: tuple[int, int, int, int]

    @property
    def extent(self) -> int:
        """Longer side in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


class CutoutLibrary:
    """The cut-outs and grounds of a data set. Only pictures in which everything is labelled are taken.

    Args:
        clip_set: stills, or clips whose first frame is taken.

    Raises SourceError where no object is large enough, or no picture can be a ground.
    """

    def __init__(self, clip_set: ClipSet) -> None:
        self.clip_set, self.class_names = clip_set, clip_set.class_names
        self.cutouts: list[list[Cutout]] = [[] for _ in self.class_names]
        self.grounds: list[int] = []
        self.empty_grounds: list[int] = []
        for row, labels, found in _all_cutouts(clip_set):
            self.grounds.append(row)
            if not labels.any():
                self.empty_grounds.append(row)
            for cutout in found:
                self.cutouts[cutout.class_id].append(cutout)
        counts = np.array([len(members) for members in self.cutouts], np.float64)
        if not counts.any() or not self.grounds:
            raise SourceError(
                f"{clip_set.images}: no object of at least {LEAST_EXTENT} pixels in a picture whose objects are all "
                "labelled, none of them a crowd; cut-outs need such pictures"
            )
        self._shares = np.sqrt(counts) / np.sqrt(counts).sum()
        self.picture = lru_cache(_KEPT)(self._picture)
        self.sprite = lru_cache(_KEPT)(self._sprite)

    def draw(self, rng: np.random.Generator) -> tuple[str, int]:
        """One cut-out, rare classes more often than their number has it: its name and class_id."""
        class_id = int(rng.choice(len(self.class_names), p=self._shares))
        return self._one_of(rng, class_id), class_id

    def _one_of(self, rng: np.random.Generator, class_id: int) -> str:
        """The name of one cut-out of a class."""
        return f"{class_id}:{int(rng.integers(len(self.cutouts[class_id])))}"

    def draw_ground(self, rng: np.random.Generator, empty: bool) -> int:
        """One picture; empty: of those without objects, if there are any."""
        members = self.empty_grounds if empty and self.empty_grounds else self.grounds
        return members[int(rng.integers(len(members)))]

    def paste(
        self, rng: np.random.Generator, image: Image, labels: NDArray[np.uint8], class_ids: NDArray[np.int64]
    ) -> tuple[Image, NDArray[np.uint8], NDArray[np.int64]]:
        """Put one to four cut-outs into a picture: its image (H, W, 3), labels (H, W) and classes with them.

        Most are of the class of an object that is there, of about its size, and hide a part of it or stand behind it:
        where one object ends and the next one of its kind begins is seldom seen in a small set.
        """
        image, labels, classes = image.copy(), labels.copy(), class_ids.tolist()
        for _ in range(int(rng.integers(1, _MOST_PASTED + 1))):
            there = [n for n in np.unique(labels).tolist() if 0 < n < IGNORE and self.cutouts[classes[n - 1]]]
            neighbour = int(rng.choice(there)) if there and rng.random() < _BESIDE else 0
            if neighbour:
                class_id = classes[neighbour - 1]
                name = self._one_of(rng, class_id)
                x, y, w, h = cv2.boundingRect((labels == neighbour).view(np.uint8))
                middle = (
                    x + rng.choice([-1, 1]) * rng.uniform(0.25, 1) * w + w / 2,
                    y + rng.uniform(-0.3, 0.3) * h + h / 2,
                )
                size = np.sqrt(w * h) * rng.uniform(0.7, 1.4)
            else:
                name, class_id = self.draw(rng)
                middle = rng.uniform(0, labels.shape[1]), rng.uniform(0, labels.shape[0])
                size = rng.uniform(0.1, 0.5) * min(labels.shape)
            sprite = self.sprite(name)
            scale = min(size / np.sqrt(sprite.shape[0] * sprite.shape[1]), _LARGEST_SCALE)
            hidden = labels == neighbour if neighbour and rng.random() < 0.5 else None
            placed = _place(rng, sprite, scale, middle, labels.shape)
            if placed is None or len(classes) + 1 >= IGNORE:
                continue
            where, shown = placed
            if hidden is not None:
                shown = shown * ~hidden[where][..., None]
            colour, opacity = shown[..., :3] * rng.uniform(0.75, 1.25), shown[..., 3:]
            image[where] = np.clip(image[where] * (1 - opacity) + colour + 0.5, 0, 255).astype(np.uint8)
            classes.append(class_id)
            labels[where][opacity[..., 0] > 0.5] = len(classes)
        return image, labels, np.array(classes, np.int64)

    def _picture(self, row: int) -> tuple[Image, NDArray[np.uint8], NDArray[np.int64]]:
        """A picture, its labels and the classes of its objects."""
        clip = self.clip_set.clips[row]
        image = read_frame(self.clip_set.images / clip.files[0], clip.height, clip.width)
        return image, paint_labels(clip, 0), clip.class_ids

    def _sprite(self, name: str) -> FloatArray:
        """A cut-out (h, w, 4) float32: colour 0 .. 255 times opacity, then opacity 0 .. 1, soft at its edge."""
        class_id, row = map(int, name.split(":"))
        cutout = self.cutouts[class_id][row]
        image, labels, _ = self.picture(cutout.clip)
        x0, y0, x1, y1 = cutout.box
        mask = np.pad((labels[y0:y1, x0:x1] == cutout.label).astype(np.float32), _MARGIN)
        colour = cv2.copyMakeBorder(image[y0:y1, x0:x1], *(_MARGIN,) * 4, cv2.BORDER_REPLICATE).astype(np.float32)
        # The mask's outermost pixels are half something else.
        alpha = cv2.GaussianBlur(cv2.erode(mask, np.ones((3, 3), np.uint8)), (0, 0), 0.8)
        return np.dstack([colour * alpha[..., None], alpha])


def _place(
    rng: np.random.Generator, sprite: FloatArray, scale: float, middle: Sequence[float], size: Sequence[int]
) -> tuple[tuple[slice, slice], FloatArray] | None:
    """A scaled and perhaps mirrored sprite with its middle (x, y) in a picture of ``size`` (height, width).

    Returns where in it, and the part that is shown there; None where that is too little.
    """
    shape = max(1, round(scale * sprite.shape[1])), max(1, round(scale * sprite.shape[0]))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(sprite, shape, interpolation=way)
    if rng.random() < 0.5:
        scaled = scaled[:, ::-1]
    first = [round(m - n / 2) for m, n in zip(middle[::-1], scaled.shape, strict=False)]
    low = [max(n, 0) for n in first]
    high = [min(n + m, k) for n, m, k in zip(first, scaled.shape, size, strict=False)]
    if min(b - a for a, b in zip(low, high, strict=True)) < _LEAST_PASTED:
        return None
    picture, own = (tuple(slice(a - o, b - o) for a, b, o in zip(low, high, by, strict=True)) for by in ((0, 0), first))
    return (picture[0], picture[1]), np.asarray(scaled[own], np.float32)


def open_cutouts(annotations: Path, images: Path | None, classes: str) -> CutoutLibrary:
    """Arguments and errors as of ``open_video_set``."""
    return CutoutLibrary(open_video_set(annotations, images, classes))


def cover(
    image: NDArray[np.uint8], height: int, width: int, place: Sequence[float], nearest: bool
) -> NDArray[np.uint8]:
    """An image or label map scaled to cover height x width and cut there; place: (y, x) 0 .. 1 of what is cut off."""
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)
    top, left = round(place[0] * (size[1] - height)), round(place[1] * (size[0] - width))
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def has_cutouts(clip_set: ClipSet) -> bool:
    """Whether a ``CutoutLibrary`` of the set would hold anything; looks at pictures' labels up to the first cut-out."""
    return any(found for _, _, found in _all_cutouts(clip_set))


def _all_cutouts(clip_set: ClipSet) -> Iterator[tuple[int, NDArray[np.uint8], list[Cutout]]]:
    """The pictures in which everything is labelled: row, labels and cut-outs of each."""
    for row in range(len(clip_set.clips)):
        clip = clip_set.clips[row]
        if not clip.partial and not any(entry.is_crowd for entry in clip.objects):
            labels = paint_labels(clip, 0)
            yield row, labels, _cutouts(row, clip, labels)


def _cutouts(row: int, clip: AnnotatedClip, labels: NDArray[np.uint8]) -> list[Cutout]:
    """The objects of a picture that are whole in it: large enough, not at its border, nearly in one piece."""
    found = []
    height, width = labels.shape
    for label, class_id in enumerate(clip.class_ids.tolist(), 1):
        if label >= IGNORE:
            break
        mask = (labels == label).view(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        area = int(np.count_nonzero(mask))
        inside = x > 1 and y > 1 and x + w < width - 1 and y + h < height - 1
        if inside and max(w, h) >= LEAST_EXTENT and area >= _LEAST_SHARE * w * h and _is_one_piece(mask, area):
            found.append(Cutout(row, label, class_id, (x, y, x + w, y + h)))
    return found


def _is_one_piece(mask: NDArray[np.uint8], area: int) -> bool:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return bool(stats[1:, cv2.CC_STAT_AREA].max() >= 0.9 * area)
