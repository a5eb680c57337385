# SPDX-License-Identifier: Apache-2.0
"""Training samples: a few frames of one clip with their targets, made fresh or drawn from a data set, from a seed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from instance_flow.declare import check, setting
from instance_flow.structures import SourceError
from instance_flow_training.augment import (
    STILL_FRAMES,
    Matrix,
    change_colour,
    draw_colour,
    draw_motion,
    draw_view,
    warp_image,
    warp_labels,
)
from instance_flow_training.data.annotated_clips import AnnotatedClip, ClipSet, paint_labels
from instance_flow_training.data.class_tables import ALL_CLASSES
from instance_flow_training.data.crowds import AUTO, CROWDS
from instance_flow_training.data.label_sources import open_label_set
from instance_flow_training.data.set_files import read_frame
from instance_flow_training.data.still_sets import open_still_set
from instance_flow_training.data.video_sets import open_video_set
from instance_flow_training.losses import BatchTargets
from instance_flow_training.network.model import INPUT_SIZE
from instance_flow_training.targets import IGNORE, FrameTargets, frame_targets
from instance_flow_training.worlds.cutouts import CutoutLibrary
from instance_flow_training.worlds.synthetic import (
    CLASS_NAMES,
    CUTOUT_SIZE,
    MOST_SEEDS,
    REAL_SITUATIONS,
    SITUATIONS,
    World,
    WorldConfig,
)

log = logging.getLogger(__name__)

SOURCES = ("worlds", "youtube_vis", "coco", "auto")
MIXED, ANYWHERE, BEFORE_OR_AFTER = REFERENCE_FRAMES = ("mixed", "anywhere", "before_or_after")
_ATTEMPTS = 10
"""Pictures in a row that cannot be read before a run ends: the disk may be gone."""


@dataclass(frozen=True)
class DataConfig:
    """What is trained on. The defaults of crop, scales and flip are the paper's (section IV-A)."""

    source: str = setting(
        "worlds",
        "worlds = synthetic clips; youtube_vis = a set in the form of YouTube-VIS or OVIS; coco = stills, each moved "
        "through a clip of its own; auto = labels in any form of docs/labels.md, also several sources",
        choices=SOURCES,
    )
    annotations: str | tuple[str, ...] = setting(
        "",
        "the set's JSON file, or the root of a set as it is distributed. With auto a file, folder or zip file, or a "
        "list of them",
        several=True,
    )
    images: str = setting("", "folder of the set's frames; empty = beside the annotations")
    rename: dict[str, str] = setting({}, 'with auto, new names of classes by their old ones, such as {"Car": "car"}')
    classes: str = setting(
        ALL_CLASSES,
        "all = the set's own; youtube_vis_2019 or youtube_vis_2021 = those of COCO that are shared with it, under its "
        "names; or names with commas between. Other objects are background",
    )
    balance: float = setting(
        0.0,
        "draw clips of rare classes more often: as often as the root of balance over the share of clips that show the "
        "rarest of their classes, where that is more than once (the repeat factors of LVIS). 0 = all alike",
        0,
        1,
    )
    cutouts: float = setting(
        0.0,
        "share of the samples that are worlds of the set's own objects, cut out, over its pictures. 1 = nothing else",
        0,
        1,
    )
    paste: float = setting(
        0.0,
        "share of the stills onto which more of the set's objects are pasted, mostly beside others of their class and "
        "over parts of them",
        0,
        1,
    )
    first_seed: int = setting(1_000_000, "sample i is made from this seed and i", 0, MOST_SEEDS)
    sizes: tuple[tuple[int, int], ...] = setting(
        ((192, 320),),
        "sizes of synthetic worlds in the order of training, each for an equal share of the steps",
        empty=False,
        **INPUT_SIZE,
    )
    crop: tuple[int, int] = setting((640, 640), "of real sets: crop of a frame that was scaled", **INPUT_SIZE)
    scales: tuple[float, ...] = setting(
        (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        "of real sets: a frame is scaled by one of them. One draw for all frames of a clip, as for flip and colour",
        high=1000,
        above=0,
        empty=False,
    )
    flip: bool = setting(True, "of real sets: mirror clips at random")
    colour: float = setting(0.2, "of real sets: colours are changed by factors up to 1 +- colour. 0 = as it is", 0, 1)
    reference_frames: str = setting(
        MIXED,
        "mixed = one reference 1 to 3 frames before the last frame, the others anywhere before; anywhere = all frames "
        "of the clip drawn from the whole video. Both in time order, so that references are earlier frames, as in a "
        "stream. before_or_after = as anywhere, but in random order: a reference may be a later frame, as in the paper",
        choices=REFERENCE_FRAMES,
    )
    center_spread: float = setting(
        0.0,
        "of real sets: least standard deviation of a center's Gaussian as a share of the root of its object's area. 0 "
        "= the same Gaussian for all objects, as in the paper",
        0,
        10,
    )
    crowds: str = setting(
        AUTO,
        'what "iscrowd": 1 means: ignore = a group that no loss touches; objects = no more than that a mask is '
        "painted, as CVAT writes it; auto = the latter where it is that of nearly all masks of run lengths, and of at "
        "least half of all annotations or in a file from CVAT. The check before training says which",
        choices=CROWDS,
    )
    ignore_unlabelled: bool = setting(
        False, "no clip labels all of its objects, so no loss touches what is not labelled"
    )
    frames_per_clip: int = setting(
        3, "a shorter video gives some of its frames twice; a video of one frame is moved like a still", 1, 1000
    )
    workers: int = setting(
        1,
        "processes that make samples while the network works, for each process of the training; 0 = none, every step "
        "waits for its own",
        0,
        1024,
    )
    prefetch: int = setting(4, "passes that each worker has ready ahead", 1, 10_000)

    def __post_init__(self) -> None:
        check(self, "data.")
        if self.source != "auto" and (self.rename or not isinstance(self.annotations, str)):
            raise ValueError(
                f'data.source is "{self.source}", which reads one set as it is; for several, and for data.rename, '
                'set data.source = "auto"'
            )
        for name in self.rename.values():
            if not name.strip():
                raise ValueError(f"data.rename gives the name {name!r}; write old and new names, both of them texts")


@dataclass(frozen=True)
class Sample:
    """K frames of one clip, in the order of ``draw_frames``: images (K, H, W, 3) uint8 and their targets."""

    images: NDArray[np.uint8]
    targets: list[FrameTargets]


def draw_frames(rng: np.random.Generator, length: int, count: int, reference_frames: str = MIXED) -> list[int]:
    """``count`` frames of a video of ``length``, distinct unless the video is shorter than that. Each of them has those
    before it here as references; in time order, but for BEFORE_OR_AFTER.

    reference_frames: mixed = one gap of 1 to 3 frames as in a stream, the rest anywhere before (at inference the
        references are the previous three frames and the first); anywhere = from the whole video; before_or_after =
        likewise in random order, as in the paper: "randomly chosen among all frames in the video".
    """
    if reference_frames == BEFORE_OR_AFTER:
        return rng.permutation(draw_frames(rng, length, count, ANYWHERE)).tolist()
    if length <= count:
        again = rng.integers(length, size=count - length)
        return sorted([*range(length), *again.tolist()])
    if reference_frames == ANYWHERE or count == 1:
        return sorted(rng.choice(length, size=count, replace=False).tolist())
    last = int(rng.integers(count, length))
    near = max(last - int(rng.integers(1, 4)), 1, count - 2)
    rest = rng.choice(near, size=count - 2, replace=False)
    return sorted([*rest.tolist(), near, last])


class TrainingData(Dataset[Sample]):
    """``total`` samples; sample i is a function of ``DataConfig.first_seed`` and i alone. class_names: by class_id."""

    total: int
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return self.total


class WorldClips(TrainingData):
    """Sample i is made from seed ``first_seed + i``: endless, never the same twice, and the same on every machine.

    Args:
        sizes: (height, width) of training images, in the order of training: the first share of ``total`` samples has
            the first size, and so on (small images first saves time).
        frames: images per sample.   reference_frames: see ``draw_frames``.
    """

    def __init__(
        self,
        first_seed: int,
        total: int,
        sizes: Sequence[tuple[int, int]],
        frames: int,
        batch: int,
        reference_frames: str = MIXED,
    ):
        self.first_seed, self.total, self.sizes, self.frames, self.batch = first_seed, total, sizes, frames, batch
        self.reference_frames = reference_frames
        self.class_names = CLASS_NAMES

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.first_seed, index])
        batch_start = index - index % self.batch
        size = self.sizes[min(batch_start * len(self.sizes) // self.total, len(self.sizes) - 1)]
        situation = SITUATIONS[int(rng.integers(len(SITUATIONS)))]
        config = replace(WorldConfig(), size=size)
        world = World(self.first_seed + index, situation, config)
        times = draw_frames(rng, config.frames, self.frames, self.reference_frames)
        rendered = [world.render(t) for t in times]
        targets = [frame_targets(labels, world.class_ids) for _, labels in rendered]
        return Sample(np.stack([image for image, _ in rendered]), targets)


class AnnotatedClips(TrainingData):
    """Random views of the clips of a data set; each pass over the set takes every clip once, in an order of its own, or
    with ``balance`` as often as is expected of its rarest class."""

    def __init__(self, clip_set: ClipSet, config: DataConfig, total: int):
        self.clip_set, self.config, self.total = clip_set, config, total
        self.class_names = clip_set.class_names
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._shares = clip_shares(clip_set, config.balance) if config.balance else None
        self._library = CutoutLibrary(clip_set) if config.cutouts or config.paste else None
        self._named: set[str] = set()

    def __getitem__(self, index: int) -> Sample:
        """Raises SourceError where several pictures in a row cannot be read; one alone is named and left out."""
        return self._draw(index, 0)

    def _draw(self, index: int, failures: int) -> Sample:
        seed = [self.config.first_seed, index]
        rng = np.random.default_rng([*seed, 2, failures] if failures else seed)
        try:
            if self._library is not None and not failures and rng.random() < self.config.cutouts:
                return self._world(rng, index, self._library)
            place = int(rng.integers(len(self.clip_set.clips))) if failures else self._clip_index(index)
            return self._clip(rng, self.clip_set.clips[place])
        except SourceError as error:
            if failures + 1 == _ATTEMPTS:
                raise
            self._name(error)
        return self._draw(index, failures + 1)

    def _name(self, error: SourceError) -> None:
        """Once for each picture and process."""
        if str(error) not in self._named:
            self._named.add(str(error))
            log.warning(f"{error}; it is left out")

    def _clip(self, rng: np.random.Generator, clip: AnnotatedClip) -> Sample:
        """A view of frames of the clip."""
        frames, moves = self._draw_frames(rng, clip)
        colour = draw_colour(rng, self.config.colour)
        pixels = {t: change_colour(self._read(clip, t), colour) for t in set(frames)}
        painted = {t: paint_labels(clip, t) for t in set(frames)}
        class_ids = clip.class_ids
        share = self.config.paste if len(clip.files) == 1 else 0
        if share and self._library is not None and rng.random() < share:
            pixels[0], painted[0], class_ids = self._library.paste(rng, pixels[0], painted[0], class_ids)
        truth = [painted[t] for t in frames]
        views, labels = self._view(rng, truth, moves)
        if not any((frame != IGNORE).any() for frame in labels):
            # Where labels are few, most views show none of them, and nothing could be learnt from those.
            views, labels = self._view(rng, truth, moves, _known_point(rng, truth, moves))
        images = [warp_image(pixels[t], view, self.config.crop) for t, view in zip(frames, views, strict=True)]
        return Sample(
            np.stack(images),
            [frame_targets(frame, class_ids, spread=self.config.center_spread) for frame in labels],
        )

    def _world(self, rng: np.random.Generator, index: int, library: CutoutLibrary) -> Sample:
        """Frames of a world of cut-outs, two in three over a picture with objects of its own."""
        situation = REAL_SITUATIONS[int(rng.integers(len(REAL_SITUATIONS)))]
        config = replace(WorldConfig(), size=self.config.crop, object_size=CUTOUT_SIZE)
        world = World(self.config.first_seed + index, situation, config, library, furnished=rng.random() < 2 / 3)
        times = draw_frames(rng, config.frames, self.config.frames_per_clip, self.config.reference_frames)
        rendered = [world.render(t) for t in times]
        spread = self.config.center_spread
        targets = [frame_targets(labels, world.class_ids, spread=spread) for _, labels in rendered]
        return Sample(np.stack([image for image, _ in rendered]), targets)

    def _draw_frames(self, rng: np.random.Generator, clip: AnnotatedClip) -> tuple[list[int], Matrix]:
        """Frames of the clip, and how each is moved, (K, 3, 3): a still along its way, others not at all."""
        count, references = self.config.frames_per_clip, self.config.reference_frames
        if len(clip.files) > 1:
            return draw_frames(rng, len(clip.files), count, references), np.tile(np.eye(3), (count, 1, 1))
        moves = draw_motion(rng, (clip.height, clip.width))[draw_frames(rng, STILL_FRAMES, count, references)]
        # One of the frames, any of them, shows the still in full.
        return [0] * count, moves @ np.linalg.inv(moves[rng.integers(count)])

    def _view(
        self,
        rng: np.random.Generator,
        painted: Sequence[NDArray[np.uint8]],
        moves: Matrix,
        show: Sequence[float] | None = None,
    ) -> tuple[Matrix, list[NDArray[np.uint8]]]:
        """One view for all frames: (K, 3, 3), and what it shows of the label maps."""
        config = self.config
        views = draw_view(rng, painted[0].shape, config.crop, config.scales, config.flip, show) @ moves
        return views, [warp_labels(labels, view, config.crop) for labels, view in zip(painted, views, strict=True)]

    def _read(self, clip: AnnotatedClip, frame: int) -> NDArray[np.uint8]:
        return read_frame(self.clip_set.images / clip.files[frame], clip.height, clip.width)

    def _clip_index(self, index: int) -> int:
        turn, place = divmod(index, len(self.clip_set.clips))
        if self._order is None or self._order[0] != turn:
            # The third number keeps these draws apart from those of the samples.
            rng = np.random.default_rng([self.config.first_seed, turn, 1])
            count = len(self.clip_set.clips)
            order = rng.permutation(count) if self._shares is None else rng.choice(count, count, p=self._shares)
            self._order = turn, order
        return int(self._order[1][place])


def clip_shares(clip_set: ClipSet, threshold: float) -> NDArray[np.float64]:
    """How often each clip is to be drawn, as a share: ``DataConfig.balance``."""
    clips = clip_set.clips
    shown = np.zeros((len(clips), len(clip_set.class_names)), bool)
    for row in range(len(clips)):
        shown[row, clips[row].class_ids] = True
    factors = np.sqrt(np.maximum(1.0, threshold / np.maximum(shown.mean(0), 1e-9)))
    shares = np.where(shown, factors, 1.0).max(1)
    return shares / shares.sum()


def _known_point(rng: np.random.Generator, painted: Sequence[NDArray[np.uint8]], moves: Matrix) -> list[float] | None:
    """Where (y, x) one of the pixels is, after the frame's move, whose label is known; None where there is none."""
    frame = int(rng.integers(len(painted)))
    known = np.flatnonzero(painted[frame] != IGNORE)
    if not len(known):
        return None
    y, x = divmod(int(rng.choice(known)), painted[frame].shape[1])
    moved = moves[frame] @ [x, y, 1]
    return [moved[1] / moved[2], moved[0] / moved[2]]


def collate(samples: Sequence[Sample]) -> tuple[Tensor, BatchTargets]:
    """Stack to images (B * K, H, W, 3) uint8 and targets of B * K frames, objects padded to the largest number."""
    frames = [t for sample in samples for t in sample.targets]
    most = max(1, *(len(t.centers) for t in frames))

    def padded(arrays: list[NDArray[np.float32]], fill: float) -> Tensor:
        out = np.full((len(arrays), most, *arrays[0].shape[1:]), fill, np.float32)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(out)

    targets = BatchTargets(
        semantic=torch.from_numpy(np.stack([t.semantic for t in frames])),
        labels=torch.from_numpy(np.stack([t.labels for t in frames])),
        center=torch.from_numpy(np.stack([t.center for t in frames])),
        centers=padded([t.centers for t in frames], np.nan),
        weight=padded([t.weight for t in frames], 1.0),
    )
    return torch.from_numpy(np.concatenate([s.images for s in samples])), targets


def open_training_data(config: DataConfig, total: int, batch: int) -> TrainingData:
    """Open what ``config`` names for ``total`` samples and check it whole; raises SourceError where it is not right.

    Of the pictures only the headers are read: one whose pixels turn out to be damaged is named and left out later.
    """
    if config.source == "worlds":
        sizes = config.sizes
        return WorldClips(config.first_seed, total, sizes, config.frames_per_clip, batch, config.reference_frames)
    if not config.annotations:
        raise SourceError(f'data.source is "{config.source}", so data.annotations must name its JSON file or its root')
    named = [config.annotations] if isinstance(config.annotations, str) else config.annotations
    paths, images = [Path(name) for name in named], Path(config.images) if config.images else None
    wanted = images, config.classes, config.ignore_unlabelled, config.crowds
    if config.source == "auto":
        clip_set = open_label_set(paths, *wanted, config.rename)
    elif config.source == "coco":
        clip_set = open_still_set(paths[0], *wanted)
    else:
        clip_set = open_video_set(paths[0], *wanted)
    for note in clip_set.notes:
        log.info(note if len(named) > 1 else f"{named[0]}: {note}")
    return AnnotatedClips(clip_set, config, total)
