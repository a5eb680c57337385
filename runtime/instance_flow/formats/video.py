# SPDX-License-Identifier: Apache-2.0
"""Sources of frames: videos, pictures and bags."""

from __future__ import annotations

import logging
import math
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from instance_flow.formats.bag_files import first_bytes, is_ros1, ros1_advice
from instance_flow.formats.bags import BagImage, BagImages, is_bag
from instance_flow.formats.camera_names import camera_names
from instance_flow.formats.picture_files import count_pictures, decode_pictures, first_duration
from instance_flow.structures import Image, SourceError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Name endings of the files that count as pictures, in lower case."""
_MASK = re.compile(r"(.+?)[._ -](?:mask|masks|label|labels|labelids|seg|segmentation|gt|panoptic|instance\w*)", re.I)
"""Stem of a file that labels the picture whose stem is the first group."""

PLAYBACK_RATE = 10.0
"""Frames per second at which pictures are shown that came without a time."""

_log = logging.getLogger("instance_flow")

USUAL_RATE = 30.0
"""Frames per second of a video that does not tell them."""
_HIGHEST_RATE = 240.0
"""Frames per second above which a container rather counts time in milliseconds than tells how many frames it holds."""
_RATE_SAMPLE = 30
WITHOUT_TIMES = re.compile(rb"\0?\0\0\x01[^\xba]|\xff\xd8\xff|\x12\0\x0a", re.DOTALL)
"""How streams of H.264, H.265, MPEG-1, 2 and 4, JPEG and AV1 begin that lie in no container."""


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    image: (H, W, 3) uint8 RGB.   stamp: nanoseconds, None where the source knows no time.
    frame_id: of the message's header, empty outside bags.   name: file name of a picture, with "#" and the number of
        the page where the file holds several; empty elsewhere.
    encoding: of a bag's raw image, or the format of a compressed one; empty elsewhere.
    received: nanoseconds, the bag's own time of the message; None elsewhere.   time: seconds and nanoseconds as they
        stand in the message's header, also where they say nothing; zeros elsewhere.
    camera: index into ``Source.cameras``.   number: place among the frames of its camera, from 0, counting those that
        cannot be used.
    depth, calibration: (H, W) and its ``CameraModel``, as ``DepthInput.take`` gives them; None where none is read.
    """

    image: Image
    stamp: int | None
    frame_id: str
    name: str
    encoding: str = ""
    received: int | None = None
    camera: int = 0
    number: int = 0
    time: tuple[int, int] = (0, 0)
    depth: Any = None
    calibration: Any = None


@dataclass(frozen=True)
class SourceCamera:
    """One stream of frames in a source.

    name: distinct and fit for a folder; empty where there is but one camera.   topic: empty outside bags.
    length: number of frames, None where only reading tells.   rate: frames per second, for playback.
    """

    name: str
    topic: str
    length: int | None
    rate: float


Refuse = Callable[[int, int, str], None]
"""Called with camera, number and reason for a frame that cannot be used."""


class Source(Protocol):
    """Frames in order. ``length``, of all cameras, is None where only reading tells; ``rate`` is the first camera's."""

    name: str
    length: int | None
    rate: float
    cameras: Sequence[SourceCamera]

    def __iter__(self) -> Iterator[Frame]:
        """Start from the first frame. Raises SourceError where a frame cannot be read."""
        ...

    def frames(self, refuse: Refuse) -> Iterator[Frame]:
        """Start from the first frame and leave out single ones that cannot be used, as the live node does: ``refuse``
        is called for each. Raises SourceError where nothing more can be read."""
        ...


def open_source(
    path: Path | str, topic: str | Sequence[str] | None = None, rate: float | None = None
) -> PictureSource | VideoSource | BagSource:
    """Open a video file, a picture, a folder of pictures in natural order, or topics of images in a ROS 2 bag.

    topic: for bags only, one or several, each of which is a camera; needed only where a bag has several.
    rate: frames per second of a source that knows no times; None = its frames have no stamps.
    Raises SourceError where there is nothing that can be read, ValueError for a topic without a bag, and for a rate
    where the source has times of its own.
    """
    source = _open_source(path, topic, rate)
    if rate is not None and source.knows_times:
        raise ValueError(f"--rate is for pictures and streams without times, but {path} has its own")
    return source


def _open_source(
    path: Path | str, topic: str | Sequence[str] | None, rate: float | None
) -> PictureSource | VideoSource | BagSource:
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    if is_bag(path):
        return BagSource(path, topic)
    if topic:
        raise ValueError(f"{path} is not a bag, so it has no topic {topic if isinstance(topic, str) else topic[0]}")
    if path.is_dir():
        return PictureSource(path, _pictures_in(path), rate)
    if path.suffix.lower() in PICTURES:
        return PictureSource(path, [path], rate)
    if is_ros1(path):
        raise SourceError(f"{path}: a bag of ROS 1; {ros1_advice(path)}")
    return VideoSource(path, rate)


class PictureSource:
    """Picture files, one after the other, and all pages of those that have several. Nothing tells when they were taken,
    so their stamps are None unless ``rate`` says; but a single animation counts time from its beginning."""

    def __init__(self, path: Path, files: Sequence[Path], rate: float | None = None) -> None:
        self.name = path.resolve().stem if path.is_file() else path.resolve().name
        self.files = tuple(files)
        self._files = [(file, count_pictures(file)) for file in files]
        self.length: int | None = sum(count for _, count in self._files)
        duration = first_duration(files[0]) if len(files) == 1 and self.length > 1 else None
        self.knows_times, self._given_rate = duration is not None, rate
        self.has_times = self.knows_times or rate is not None
        self.rate = 1e9 / duration if duration else rate or PLAYBACK_RATE
        self.cameras: Sequence[SourceCamera] = (SourceCamera("", "", self.length, self.rate),)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(raise_refused)

    def frames(self, refuse: Refuse) -> Iterator[Frame]:
        """See Source."""
        first = 0
        for file, count in self._files:
            number, time = first, 0
            try:
                for image, duration in decode_pictures(file.read_bytes(), count):
                    name = file.name if count == 1 else f"{file.name}#{number - first}"
                    if self._given_rate is not None:
                        time = round(number * 1e9 / self._given_rate)
                    yield Frame(image, time if self.has_times else None, "", name, number=number)
                    number, time = number + 1, time + (duration or 0)
            except (OSError, ValueError) as error:
                for lost in range(number, first + count):
                    refuse(0, lost, f"{file}: cannot be read as a picture: {error}")
            first += count


class VideoSource:
    """A video file; stamps count from its beginning. A stream without a container has no times: its stamps are None
    unless ``rate`` is given."""

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self._path = path
        capture = self._open()
        self._codec = _codec(capture)
        own_rate = capture.get(cv2.CAP_PROP_FPS)
        self.knows_times, self._given_rate = not WITHOUT_TIMES.match(first_bytes(path)), rate
        self.has_times = self.knows_times or rate is not None
        self.name = path.resolve().stem
        self.length = frame_count(capture)
        if not is_rate(own_rate):
            declared, own_rate = own_rate, _shown_rate(capture) or USUAL_RATE
            if not 0.9 < declared / own_rate < 1.1:
                self.length = None  # The length was computed from that rate.
        capture.release()
        self.rate = float(rate or own_rate)
        self.cameras: Sequence[SourceCamera] = (SourceCamera("", "", self.length, self.rate),)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(raise_refused)

    def frames(self, refuse: Refuse) -> Iterator[Frame]:  # noqa: ARG002 - decoders pass over what they cannot read
        """See Source."""
        capture, count = self._open(), 0
        stamp: int | None = None
        try:
            while True:
                found, bgr = capture.read()
                if not found:
                    break
                if self._given_rate is not None:
                    stamp = round(count * 1e9 / self._given_rate)
                elif self.has_times:
                    stamp = next_stamp(capture, stamp, self.rate)
                count += 1
                image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(image, stamp, "", "", number=count - 1)
        finally:
            capture.release()
        if not count:
            raise SourceError(
                f"{self._path}: not one frame of this video can be decoded, its codec is {self._codec or 'unknown'}; "
                f"convert it with `ffmpeg -i {self._path} -c:v libx264 OUT.mp4`"
            )
        if self.length is not None and count < self.length:
            # A warning, since containers may only estimate how many frames they hold.
            _log.warning("%s: only %d of its %d frames could be decoded", self._path, count, self.length)

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(opencv_path(self._path))
        if not capture.isOpened() and _is_unfinished(self._path):
            raise SourceError(
                f"{self._path}: this recording was not finished: an MP4 file without its index (moov) cannot be "
                "played; `untrunc` can repair it, given an intact file of the same camera"
            )
        if not capture.isOpened():
            raise SourceError(
                f"{self._path}: cannot be read as a video; expected a video file, a picture, "
                "a folder of pictures, or a ROS 2 bag (.mcap, .db3, or bag folder)"
            )
        return capture


class BagSource:
    """Topics of a bag, each of which is a camera; stamps and frame_ids are those of the messages' headers."""

    knows_times = has_times = True

    def __init__(self, path: Path, topic: str | Sequence[str] | None) -> None:
        self.images = images = BagImages(path, topic)
        self.name = path.resolve().stem if path.is_file() else path.resolve().name
        self.length: int | None = len(images)
        names = camera_names(list(images.topics)) if len(images.topics) > 1 else [""]
        self.cameras: Sequence[SourceCamera] = tuple(
            SourceCamera(name, topic, length, images.rates[topic] or PLAYBACK_RATE)
            for name, (topic, length) in zip(names, images.topics.items(), strict=True)
        )
        self.rate = self.cameras[0].rate
        self._index = {camera.topic: index for index, camera in enumerate(self.cameras)}

    def __iter__(self) -> Iterator[Frame]:
        return map(self.frame, self.images)

    def frames(self, refuse: Refuse) -> Iterator[Frame]:
        """See Source."""
        return map(self.frame, self.images.images(self.refusing(refuse)))

    def refusing(self, refuse: Refuse) -> Callable[[str, int, str], None]:
        """``refuse``, for images by their topic."""
        path, index = self.images.path, self._index
        return lambda topic, number, reason: refuse(
            index[topic], number, f"{path}: image {number + 1} of {topic}: {reason}"
        )

    def arrivals(self) -> list[tuple[int, int]]:
        """When each frame was received, in nanoseconds, and its camera, in order."""
        return [(received, self._index[topic]) for received, topic in self.images.arrivals()]

    def frame(self, image: BagImage) -> Frame:
        """An image of this source as one of its frames."""
        return Frame(
            image=image.image,
            stamp=image.stamp,
            frame_id=image.frame_id,
            name="",
            encoding=image.encoding,
            received=image.received,
            camera=self._index[image.topic],
            number=image.number,
            time=image.time,
        )


def frame_count(capture: cv2.VideoCapture) -> int | None:
    """Frames that a video's container says it holds, None where it does not."""
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(frames) if math.isfinite(frames) and frames > 0 else None


def is_rate(declared: float) -> bool:
    """Whether a video can have so many frames per second."""
    return 0 < declared <= _HIGHEST_RATE


def next_stamp(capture: cv2.VideoCapture, before: int | None, rate: float) -> int:
    """Nanoseconds at which a video's container shows the frame that was read last. before: the same of the frame before
    it, None for the first one.   rate: frames per second, for containers that tell the same time of every frame."""
    now = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
    return now if before is None or now > before else before + round(1e9 / rate)


def _is_unfinished(path: Path) -> bool:
    """Whether an MP4 or QuickTime file has no index: recorders write it last."""
    if first_bytes(path)[4:8] != b"ftyp":
        return False
    with path.open("rb") as file:
        while len(header := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", header)
            if kind == b"moov":
                return False
            long = file.read(8) if size == 1 else b""
            size = struct.unpack(">Q", long)[0] if len(long) == 8 else size
            if size < 8:  # The last box reaches to the end of the file.
                return True
            file.seek(size - 8 - len(long), os.SEEK_CUR)
    return True


def _codec(capture: cv2.VideoCapture) -> str:
    """Four letters such as avc1 or AV01, empty where the file does not say."""
    letters = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
    return letters.decode("ascii", "replace").strip("\0 ") if letters.strip(b"\0").isalnum() else ""


def opencv_path(path: Path) -> str:
    """The path as text, from the root on: FFmpeg takes what stands before a colon for a protocol. SourceError where its
    bytes are not UTF-8, which crash OpenCV and the process."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise SourceError(f"{path}: this name is not UTF-8, which OpenCV needs; choose another one") from None
    return str(path.absolute())


def _shown_rate(capture: cv2.VideoCapture) -> float:
    """Frames per second by the median step between the times of the first frames, 0 where they have none."""
    times: list[float] = []
    while len(times) < _RATE_SAMPLE and capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    steps = np.diff(times)
    steps = steps[steps > 0]
    return 1e3 / float(np.median(steps)) if steps.size else 0.0


def raise_refused(_camera: int, _number: int, reason: str) -> None:
    """A ``Refuse`` for readers that must not leave a frame out."""
    raise SourceError(reason)


def _pictures_in(folder: Path) -> list[Path]:
    """In natural order, without masks of other pictures; what is left out is logged."""
    there = [file for file in folder.iterdir() if not file.is_dir() and not file.name.startswith(".")]
    files = [file for file in there if file.suffix.lower() in PICTURES]
    masks = _masks_among(files)
    left_out = Counter(
        file.suffix.lower() or "without an ending" for file in there if file.suffix.lower() not in PICTURES
    )
    said = [f"{count} {ending}" for ending, count in sorted(left_out.items())]
    said += [f"{len(masks)} masks of pictures beside them, such as {min(masks).name}"] if masks else []
    files = [file for file in files if file not in masks]
    if files and said:
        _log.warning("%s: %d pictures are read; left out are %s", folder, len(files), ", ".join(said))
    if not files:
        folders = sum(entry.is_dir() for entry in folder.iterdir())
        hint = f"; it holds {folders} folders, so name one of those" if folders else ""
        raise SourceError(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))}) and is not a bag folder{hint}")
    return sorted(files, key=natural)


def _masks_among(files: list[Path]) -> set[Path]:
    """Files that label a picture of the same folder: a_mask.png beside a.jpg, or a.png beside a.jpg."""
    photos = {file.stem for file in files if file.suffix.lower() in (".jpg", ".jpeg")}
    stems = {file.stem for file in files}
    masks = set()
    for file in files:
        named = _MASK.fullmatch(file.stem)
        if (named and named[1] in stems) or (file.suffix.lower() == ".png" and file.stem in photos):
            masks.add(file)
    return masks


def natural(file: Path) -> list[str | int]:
    """Sort key that puts frame 9 before frame 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)]
