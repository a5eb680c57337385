# SPDX-License-Identifier: Apache-2.0
"""What should count the pixels that two masks have in common? Time and memory of each way, one thread, same counts.

    python bench/counting.py        # Linux, with pycocotools and opencv beside instance-flow

Every way starts from compressed run lengths and gives, frame by frame, the common pixels of all pairs of true and
predicted objects of a video. Memory is the peak above what the process held before, compiled kernels included.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from evaluator import in_new_process, memory_mib
from evaluator_case import HEIGHT, RESULTS, TRUTH, WIDTH, write_case
from numpy.typing import NDArray

VIDEOS = 10
Masks = list[list[dict[str, Any] | None]]
"""By object and frame."""
Common = NDArray[np.int64]
"""(T, G, P) pixels."""


def run_lengths_in_numba(true: Masks, predicted: Masks) -> Common:
    """Walk along both run lengths, in the kernels of the evaluator."""
    from instance_flow.evaluation.overlaps import measure_overlaps
    from instance_flow.formats.ytvis import Annotation, Result, Video

    video = Video(1, HEIGHT, WIDTH, len(true[0]))
    annotations = [Annotation(k, 1, 1, masks) for k, masks in enumerate(true)]
    results = [Result(k, 1, 1, 1.0, masks) for k, masks in enumerate(predicted)]
    return measure_overlaps(video, annotations, results, ("", "")).common


def pycocotools_iou(true: Masks, predicted: Masks) -> Common:
    """One call of pycocotools per frame gives the IoU, which with the areas gives the common pixels."""
    from pycocotools import mask

    common = np.zeros((len(true[0]), len(true), len(predicted)), np.int64)
    for frame in range(len(true[0])):
        g, p = ([k for k, masks in enumerate(all_masks) if masks[frame]] for all_masks in (true, predicted))
        if g and p:
            here, there = [true[k][frame] for k in g], [predicted[k][frame] for k in p]
            iou = np.asarray(mask.iou(here, there, [0] * len(p)))
            areas = mask.area(here).astype(np.float64)[:, None] + mask.area(there)[None]
            common[frame, np.array(g)[:, None], p] = np.rint(iou * areas / (1 + iou))
    return common


def pycocotools_merge(true: Masks, predicted: Masks) -> Common:
    """One call of pycocotools per pair and frame, as the official code does."""
    from pycocotools import mask

    common = np.zeros((len(true[0]), len(true), len(predicted)), np.int64)
    for frame, g, p in np.ndindex(common.shape):
        pair = true[g][frame], predicted[p][frame]
        common[frame, g, p] = mask.area(mask.merge(pair, True)) if all(pair) else 0
    return common


def pixels_in_numpy(true: Masks, predicted: Masks) -> Common:
    """Decode every mask of a frame and multiply matrices of pixels."""
    from instance_flow.formats.rle import decode

    def pixels(masks: Masks, frame: int) -> NDArray[np.float32]:
        empty = np.zeros(HEIGHT * WIDTH, np.uint8)
        shown = (track[frame] for track in masks)
        return np.stack([empty if mask is None else decode(mask).reshape(-1) for mask in shown]).astype(np.float32)

    frames = range(len(true[0]))
    return np.array([np.rint(pixels(true, t) @ pixels(predicted, t).T) for t in frames]).astype(np.int64)


WAYS: tuple[Callable[[Masks, Masks], Common], ...] = (
    *(run_lengths_in_numba, pycocotools_iou, pycocotools_merge, pixels_in_numpy),
)


def measure(way: Callable[[Masks, Masks], Common], videos: list[tuple[Masks, Masks]]) -> tuple[float, float, int]:
    """Give CPU seconds, peak MiB, and a sum over all counts."""
    before = memory_mib("VmRSS")
    way(*videos[0])  # compiles, imports
    start = time.process_time()
    total = sum(int((way(true, predicted) ** 2).sum()) for true, predicted in videos)
    return time.process_time() - start, memory_mib("VmHWM") - before, total


def read_case() -> list[tuple[Masks, Masks]]:
    """Give the masks of each video, all compressed."""
    from instance_flow.formats.rle import compress

    with tempfile.TemporaryDirectory() as folder:
        write_case(Path(folder), VIDEOS)
        truth, results = (json.loads((Path(folder) / name).read_bytes()) for name in (TRUTH, RESULTS))
    for annotation in truth["annotations"]:
        for mask in filter(None, annotation["segmentations"]):
            mask["counts"] = compress(mask["counts"])
    both = truth["annotations"], results
    of_video = (
        [[e["segmentations"] for e in some if e["video_id"] == k] for some in both] for k in range(1, VIDEOS + 1)
    )
    return [(true, predicted) for true, predicted in of_video]


def main() -> None:
    """Measure every way in a process of its own and print a table."""
    videos = read_case()
    rows = {way.__name__.replace("_", " "): in_new_process(measure, way, videos) for way in WAYS}
    if len({total for _, _, total in rows.values()}) != 1:
        raise RuntimeError(f"the ways do not count the same: {rows}")
    print(f"{VIDEOS} videos, all pairs".ljust(24), "CPU per video", "peak memory", sep="  ")
    for name, (seconds, mib, _) in rows.items():
        print(name.ljust(24), f"{1000 * seconds / VIDEOS:10.1f} ms", f"{mib:7.0f} MiB", sep="  ")


if __name__ == "__main__":
    main()
