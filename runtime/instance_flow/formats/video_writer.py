# SPDX-License-Identifier: Apache-2.0
"""Videos of results, to look at."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2

from instance_flow.formats.atomic import replacing
from instance_flow.formats.video import opencv_path
from instance_flow.structures import Image, InstanceFlowError


class VideoWriter:
    """Write an MPEG-4 video that appears under its name only when it is whole; use it as a context manager.

    path: ends in .mp4.   rate: frames per second.
    Without a single frame no file is made. Raises InstanceFlowError, and leaves no file, where it cannot be written.
    Its name must be UTF-8.
    """

    def __init__(self, path: Path | str, rate: float) -> None:
        self.path = Path(path)
        opencv_path(self.path)
        # The format counts time in 16 bits, so a rate with many digits does not fit into it.
        self._rate = round(min(max(rate, 1.0), 240.0), 2)
        self._size: tuple[int, int] | None = None
        self._frames = 0

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(replacing(self.path, optional=True))
            self._writer = cv2.VideoWriter()
            stack.push(self._close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, image: Image) -> None:
        """Add (H, W, 3) uint8 RGB; ValueError where its size is not that of the first one."""
        height, width = image.shape[:2]
        if self._size is None:
            self._size = self._open(height, width)
        if self._size != (width, height):
            raise ValueError(f"a frame of {width} x {height} does not fit a video of {self._size[0]} x {self._size[1]}")
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if height % 2 or width % 2:
            bgr = cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        # OpenCV 4 does not tell whether a frame was written.
        if self._writer.write(bgr) is False:
            raise self._not_written()
        self._frames += 1

    def _close(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.release()
        if kind is None and self._frames:
            # What fills the disk up goes unsaid until the file is read: its index, which comes last, is missing then.
            capture = cv2.VideoCapture(opencv_path(self._temporary))
            found = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            capture.release()
            if found != self._frames:
                raise self._not_written()

    def _not_written(self) -> InstanceFlowError:
        return InstanceFlowError(f"{self.path}: the video cannot be written whole; is the disk full?")

    def _open(self, height: int, width: int) -> tuple[int, int]:
        # The colour of two by two pixels is shared, so sides must be even.
        even = (width + width % 2, height + height % 2)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        if not self._writer.open(opencv_path(self._temporary), code, self._rate, even):
            raise InstanceFlowError(
                f"{self.path}: OpenCV cannot write an MPEG-4 video of {width} x {height} here; is the disk full?"
            )
        return width, height
