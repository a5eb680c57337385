# SPDX-License-Identifier: Apache-2.0
"""Made clips as files: a data set in the YouTube-VIS layout, and bags."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth

if TYPE_CHECKING:
    from instance_flow_training.worlds.synthetic import Clip

_FIRST_STAMP = 10**9


def clip_name(clip: Clip, number: int) -> str:
    """Folder or file name of clip ``number`` of a set."""
    return f"{number:04d}_{clip.situation}_{clip.seed}"


def ground_truth(clips: Iterable[Clip], file_names: Iterable[tuple[str, ...]] | None = None) -> GroundTruth:
    """The exact truth of clips; video ids count from 1, category ids are class ids + 1.

    An object that is never visible gets no annotation. The clips are taken one at a time, so a generator never has more
    than one of them in memory.
    """
    videos: list[Video] = []
    annotations: list[Annotation] = []
    names = itertools.repeat(()) if file_names is None else file_names
    class_names: tuple[str, ...] = ()
    for video_id, (clip, files) in enumerate(zip(clips, names, strict=False), 1):
        length, height, width = clip.labels.shape
        class_names = clip.class_names
        videos.append(Video(video_id, height, width, length, files))
        for row, class_id in enumerate(clip.class_ids):
            masks = [encode(mask) if mask.any() else None for mask in clip.labels == row + 1]
            if any(masks):
                annotations.append(Annotation(len(annotations) + 1, video_id, int(class_id) + 1, masks))
    categories = tuple(Category(class_id + 1, name) for class_id, name in enumerate(class_names))
    return GroundTruth(tuple(videos), categories, tuple(annotations))


def write_ytvis(clips: Iterable[Clip], folder: Path | str) -> None:
    """Write ``folder``/instances.json and ``folder``/JPEGImages/<clip>/<frame>.png, in the layout of YouTube-VIS.

    The JSON comes last, so a set that has one is whole.
    """
    folder = Path(folder)
    file_names: deque[tuple[str, ...]] = deque()

    def written() -> Iterator[Clip]:
        for number, clip in enumerate(clips):
            file_names.append(_write_frames(clip, folder, clip_name(clip, number)))
            yield clip

    truth = ground_truth(written(), iter(file_names.popleft, None))
    write_ground_truth(folder / "instances.json", truth)


def _write_frames(clip: Clip, folder: Path, name: str) -> tuple[str, ...]:
    pictures = folder / "JPEGImages"
    (pictures / name).mkdir(parents=True, exist_ok=True)
    file_names = tuple(f"{name}/{t:05d}.png" for t in range(len(clip.images)))
    for file_name, image in zip(file_names, clip.images, strict=True):
        _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        (pictures / file_name).write_bytes(np.asarray(data).tobytes())
    return file_names


def write_bag(
    clip: Clip, path: Path | str, topic: str = "/camera/image_raw", compressed: bool = True, quality: int = 90
) -> None:
    """Write a rosbag2 file (``.mcap`` or ``.db3``) or folder of the clip's images, stamped by its rate from 1 s on.

    compressed: JPEG as CompressedImage on ``topic``/compressed; otherwise rgb8 as Image on ``topic``. The frame_id is
    "camera". Raises SourceError where a bag folder of this name exists already.
    """
    with BagWriter(path) as bag:
        for t, image in enumerate(clip.images):
            stamp = _FIRST_STAMP + round(t * 1e9 / clip.rate)
            if compressed:
                bag.write_jpeg(f"{topic}/compressed", image, stamp, frame_id="camera", quality=quality)
            else:
                bag.write_image(topic, image, stamp, frame_id="camera")
