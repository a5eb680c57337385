# SPDX-License-Identifier: Apache-2.0
"""Synthetic clips as files: a data set in the YouTube-VIS layout, bags, and the truth in metres."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.json_files import write_json
from instance_flow.formats.rle import encode
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth
from instance_flow.spatial.camera import CameraModel

if TYPE_CHECKING:
    from instance_flow_training.worlds.depth_scenes import DepthClip
    from instance_flow_training.worlds.synthetic import Clip

_FIRST_STAMP = 10**9

WORLD_FRAME, BASE_FRAME, CAMERA_FRAME = "world", "base_link", "camera_optical_frame"


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


def write_depth_bag(
    scene: DepthClip, path: Path | str, topic: str = "/camera/image_raw", compressed: bool = True
) -> None:
    """Write a scene with depth as a rosbag2 file: images as ``write_bag`` does, and beside their topic, with the same
    stamps, ``depth/image_raw`` (16UC1), ``camera_info`` and the true ``label_image`` (16UC1, label k + 1 of object k).

    ``/tf`` has the robot in the world at each stamp, ``/tf_static`` the camera on the robot.
    compressed: JPEG, and depth as compressedDepth on ``depth/image_raw/compressedDepth``; otherwise raw images.
    Raises ValueError for a topic that one of these has.
    """
    beside, _, name = topic.rpartition("/")
    if name in ("camera_info", "label_image"):
        raise ValueError(f"the topic {topic} is that of the scene's own {name}; choose another one for the images")
    camera, size = CameraModel(scene.matrix, scene.distortion), scene.config.size
    bases = np.array([_base(pose) for pose in scene.poses])
    with BagWriter(path) as bag:
        mount = np.linalg.inv(bases[0]) @ scene.poses[0]
        bag.transforms("/tf_static", [(BASE_FRAME, CAMERA_FRAME, mount)], _FIRST_STAMP)
        for t, image in enumerate(scene.images):
            stamp = _FIRST_STAMP + int(scene.stamps[t])
            bag.transforms("/tf", [(WORLD_FRAME, BASE_FRAME, bases[t])], stamp)
            bag.camera_info(f"{beside}/camera_info", camera, size, stamp, CAMERA_FRAME)
            depth_topic = f"{beside}/depth/image_raw"
            if compressed:
                bag.write_jpeg(f"{topic}/compressed", image, stamp, frame_id=CAMERA_FRAME)
                bag.compressed_depth(f"{depth_topic}/compressedDepth", scene.depths[t], stamp, CAMERA_FRAME)
            else:
                bag.write_image(topic, image, stamp, frame_id=CAMERA_FRAME)
                bag.depth(depth_topic, scene.depths[t], stamp, CAMERA_FRAME)
            labels = scene.labels[t].astype(np.uint16)
            bag.write_image(f"{beside}/label_image", labels, stamp, frame_id=CAMERA_FRAME, encoding="16UC1")


def write_spatial_truth(scene: DepthClip, path: Path | str) -> None:
    """Write where all objects of a scene are and how they move, in metres: the form is in docs/spatial.md."""
    here, moving = scene.from_camera()
    names = scene.clip().class_names
    objects = [
        {"label": k + 1, "class": names[class_id], "size": scene.sizes[k].tolist(), "yaw": float(scene.yaws[k])}
        for k, class_id in enumerate(scene.class_ids.tolist())
    ]
    frames = []
    for t, pose in enumerate(scene.poses):
        pixels = np.bincount(scene.labels[t].ravel(), minlength=len(objects) + 1)
        surfaces = scene.surfaces(t)
        rows = [
            {
                "label": k + 1,
                "pixels": int(pixels[k + 1]),
                "world": _motion(scene.positions[t, k], scene.velocities[t, k]),
                "camera": _motion(here[t, k], moving[t, k]),
                "surface": surfaces[k].tolist() if pixels[k + 1] else None,
            }
            for k in range(len(objects))
        ]
        frames.append({"stamp": _FIRST_STAMP + int(scene.stamps[t]), "pose": pose.tolist(), "objects": rows})
    camera = {"size": scene.config.size, "matrix": scene.matrix.tolist(), "distortion": scene.distortion}
    frame_ids = {"camera": CAMERA_FRAME, "world": WORLD_FRAME}
    write_json(path, {"frame_ids": frame_ids, "camera": camera, "objects": objects, "frames": frames})


def _motion(position: NDArray[Any], velocity: NDArray[Any]) -> dict[str, list[float]]:
    return {"position": position.tolist(), "velocity": velocity.tolist()}


def _base(pose: NDArray[Any]) -> NDArray[Any]:
    """(4, 4) of the robot on the plane below a camera, looking where it looks: x forward, z up (REP 103)."""
    ahead = pose[:2, 2] / np.linalg.norm(pose[:2, 2])
    base = np.eye(4)
    base[:2, 0], base[:2, 1] = ahead, (-ahead[1], ahead[0])
    base[:2, 3] = pose[:2, 3]
    return base
