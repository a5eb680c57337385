# SPDX-License-Identifier: Apache-2.0
"""When a stream of images begins anew: a bag that loops, another resolution, or because someone asks for it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from instance_flow import Pipeline, Tracks
from instance_flow.structures import Image


class Stream:
    """A pipeline that is reset before the first image that cannot follow the one before it.

    ``step`` belongs to one thread; ``begin_anew`` may be called from any.
    on_reset: called with the reason whenever the images themselves cause a reset.
    """

    def __init__(self, pipeline: Pipeline, on_reset: Callable[[str], None]) -> None:
        self._pipeline = pipeline
        self._on_reset = on_reset
        self._next: Pipeline | None = None
        self._lock = Lock()
        self._stamp: int | None = None
        self._size: tuple[int, int] | None = None

    def begin_anew(self, pipeline: Pipeline) -> None:
        """Reset before the next image, and go on with this pipeline, which may be the same one."""
        with self._lock:
            self._next = pipeline

    def step(self, image: Image, stamp: int | None) -> Tracks:
        """Work on an image (H, W, 3) uint8 RGB; stamp in nanoseconds, None where unknown."""
        size = (image.shape[0], image.shape[1])
        reason = self._break(size, stamp)
        with self._lock:
            requested, self._next = self._next, None
        if requested is not None:
            self._pipeline = requested
        if requested is not None or reason:
            self._pipeline.reset()
            self._stamp = None
        if reason and requested is None:
            self._on_reset(reason)
        self._size = size
        if stamp is not None:
            self._stamp = stamp
        return self._pipeline.step(image, stamp)

    def _break(self, size: tuple[int, int], stamp: int | None) -> str:
        """Why this image cannot follow the one before it; empty where it can."""
        if self._size is not None and size != self._size:
            return f"the image size changed from {_describe(self._size)} to {_describe(size)}"
        if stamp is not None and self._stamp is not None and stamp < self._stamp:
            return f"the image stamps ran back by {(self._stamp - stamp) / 1e9:.3f} s"
        return ""


def _describe(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
