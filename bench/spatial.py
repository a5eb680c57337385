# SPDX-License-Identifier: Apache-2.0
"""Errors in metres on synthetic scenes, beside the naive way, and what placing objects costs: docs/spatial.md.

    python bench/spatial.py
    python bench/spatial.py --picture docs/spatial.png     # only the picture of a scene

The masks and ids are the truth's, so that errors are those of the depth. The naive way takes the mean depth of the
middle fifth of the box, and differences of positions between frames.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow import Pipeline, Tracks
from instance_flow.pictures.birds_eye import birds_eye
from instance_flow.pictures.draw import overlay
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.measure import SpatialConfig, measure
from instance_flow_training.worlds.depth_scenes import DepthClip, DepthSceneConfig, generate_depth_clip
from instance_flow_training.worlds.oracle import OracleNetwork

NOISES, BANDS = (0.5, 1.0, 2.0), ((1, 3), (3, 5), (5, 8))
SETTLED = 5
"""Frames after which a velocity is judged."""

Errors = dict[tuple[float, tuple[int, int], str], list[float]]


def naive_position(clip: DepthClip, t: int, box: NDArray[np.float32]) -> NDArray[np.float64]:
    """(3,) in the world, NaN without depth."""
    x, y, width, height = box
    top, bottom = int(y + 0.4 * height), int(y + 0.6 * height) + 1
    left, right = int(x + 0.4 * width), int(x + 0.6 * width) + 1
    depths = clip.depths[t, top:bottom, left:right].astype(np.float64) / 1000
    z = depths[depths > 0].mean() if (depths > 0).any() else np.nan
    ray = np.linalg.inv(clip.matrix) @ (x + (width - 1) / 2, y + (height - 1) / 2, 1)
    return clip.poses[t, :3, :3] @ (ray * z) + clip.poses[t, :3, 3]


def collect(seed: int, noise: float, errors: Errors) -> None:
    """Add the errors of one scene."""
    clip = generate_depth_clip(seed, DepthSceneConfig((240, 320), 20, 10.0, 4, (1.8, 7.0), noise=noise))
    pipeline, before = Pipeline(OracleNetwork(clip.clip())), dict[int, NDArray[np.float64]]()
    for t, image in enumerate(clip.images):
        camera = CameraModel(clip.matrix, pose=clip.poses[t])
        tracks: Tracks = pipeline.step(image, int(clip.stamps[t]), depth=clip.depths[t], camera=camera)
        surfaces, now = clip.surfaces(t), dict[int, NDArray[np.float64]]()
        for row, identity in enumerate(tracks.ids.tolist()):
            k = int(np.bincount(clip.labels[t][tracks.label_map == identity]).argmax()) - 1
            band = next((b for b in BANDS if b[0] <= surfaces[k, 2] < b[1]), None)
            now[identity] = naive_position(clip, t, tracks.boxes[row])
            if band is None or tracks.spatial_states[row] != 0:
                continue
            true = clip.poses[t, :3, :3] @ surfaces[k] + clip.poses[t, :3, 3]
            errors[noise, band, "position"].append(float(np.linalg.norm(tracks.positions[row] - true)))
            errors[noise, band, "naive position"].append(float(np.linalg.norm(now[identity] - true)))
            if tracks.ages[row] >= SETTLED and identity in before:
                speed = tracks.spatial_velocities[row] - clip.velocities[t, k]
                naive = (now[identity] - before[identity]) * clip.config.rate - clip.velocities[t, k]
                errors[noise, band, "velocity"].append(float(np.linalg.norm(speed)))
                errors[noise, band, "naive velocity"].append(float(np.linalg.norm(naive)))
        before = now


def table(errors: Errors) -> str:
    """Median and 90th percentile of each kind."""
    kinds = ("position", "naive position", "velocity", "naive velocity")
    lines = ["| noise | distance | " + " | ".join(kinds) + " |", "|---|---|" + "---:|" * len(kinds)]
    for noise in NOISES:
        for band in BANDS:
            cells = []
            for kind in kinds:
                found = np.array(errors[noise, band, kind])
                cells.append(f"{np.nanmedian(found):.2f} / {np.nanquantile(found, 0.9):.2f}" if len(found) else "")
            lines.append(f"| {noise:g} | {band[0]} to {band[1]} m | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost(frames: int = 200) -> str:
    """Milliseconds of one thread for 64 objects that fill an image of 640 x 480."""
    rng = np.random.default_rng(0)
    labels = (np.arange(480)[:, None] // 60 * 8 + np.arange(640)[None] // 80 + 1).astype(np.int32)
    depth = (1000 * rng.uniform(1, 6, 65)[labels] + 20 * rng.standard_normal(labels.shape)).astype(np.uint16)
    boxes = np.array([(x * 80, y * 60, 80, 60) for y in range(8) for x in range(8)], np.float32)
    camera = CameraModel(np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
    taken = []
    for _ in range(frames):
        start = time.thread_time()
        measure(depth, labels, np.arange(1, 65), boxes, camera, SpatialConfig())
        taken.append(1e3 * (time.thread_time() - start))
    return f"64 objects at 640x480: {np.median(taken):.2f} ms (median), {np.quantile(taken, 0.9):.2f} ms (p90)"


def picture(seed: int = 1, frame: int = 14) -> NDArray[np.uint8]:
    """One frame of a scene, as the camera sees it and from above."""
    clip = generate_depth_clip(seed, DepthSceneConfig((300, 400), frame + 1, objects=5))
    pipeline, camera = Pipeline(OracleNetwork(clip.clip())), CameraModel(clip.matrix)
    for image, depth, stamp in zip(clip.images, clip.depths, clip.stamps.tolist(), strict=True):
        tracks = pipeline.step(image, stamp, depth=depth, camera=camera)
    seen = overlay(clip.images[-1], tracks, ["object"] * len(pipeline.info.class_names))
    return np.hstack([seen, birds_eye(tracks, camera, size=(300, 300))])


def main() -> None:
    """Print the table and the cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--scenes", type=int, default=6, help="scenes for each noise")
    parser.add_argument("--picture", help="PNG file for a picture of a scene, in place of all else")
    options = parser.parse_args()
    if options.picture:
        cv2.imwrite(options.picture, cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR))
        return
    print(cost())
    errors: Errors = defaultdict(list)
    for noise in NOISES:
        for seed in range(options.scenes):
            collect(seed, noise, errors)
    print(table(errors))


if __name__ == "__main__":
    main()
