# SPDX-License-Identifier: Apache-2.0
"""What a camera's or a recording's images may do to a pipeline: pause, jump back, change their size. One set of rules
for the live node and for replay, so that both give the same tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.pipeline import Pending, Pipeline
from instance_flow.preprocess import check_image
from instance_flow.snapshot import Snapshot, pack_stamp, unpack_stamp
from instance_flow.structures import Image, InstanceFlowError, Tracks

MAX_GAP = 2.0
"""Seconds between two images after which the references are not trusted any more, unless told otherwise."""


class Stream:
    """A pipeline, and what happens before an image that does not follow from the one before it.

    * The size changed, or the stamp ran backwards, as when a recording begins again: reset. Ids begin at 1 again.
    * More than ``max_gap`` seconds passed, or the encoding changed: the references are forgotten, ids go on. Objects
      may be known again by their colours.

    Args:
        max_gap: seconds; 0 = no gap is too long.
        on_break: called with a sentence that says what happened, once for each break.
    """

    def __init__(
        self, pipeline: Pipeline, max_gap: float = MAX_GAP, on_break: Callable[[str], None] = lambda _: None
    ) -> None:
        self.pipeline = pipeline
        self.max_gap = max_gap
        self._on_break = on_break
        self._stamp: int | None = None
        self._size: tuple[int, int] | None = None
        self._encoding = ""

    def step(self, image: Image, stamp: int | None, encoding: str = "") -> Tracks:
        """Track the objects of the next image, as ``Pipeline.step`` does and with its errors.

        encoding: what the image came as, empty where unknown.
        """
        return self.finish(*self.begin(image, stamp, encoding))

    def begin(self, image: Image, stamp: int | None, encoding: str = "") -> tuple[Pending, int | None]:
        """See ``Pipeline.begin``; gives what ``finish`` takes. Before a break it waits for the frames before it."""
        check_image(image)  # before it breaks the stream
        size = (image.shape[0], image.shape[1])
        if reason := self._new_scene(size, stamp):
            self.pipeline.wait_until_finished()
            self.reset()
            self._on_break(f"{reason}: all tracks are forgotten, ids begin at 1 again")
        elif reason := self._interruption(stamp, encoding):
            self.pipeline.wait_until_finished()
            self.pipeline.reanchor()
            self._on_break(f"{reason}: ids go on, but objects are known again by their colours only")
        # A stream without stamps for a while still knows when the last one was.
        self._size, self._encoding, self._stamp = size, encoding, self._stamp if stamp is None else stamp
        return self.pipeline.begin(image), stamp

    def finish(self, pending: Pending, stamp: int | None) -> Tracks:
        """See ``Pipeline.finish``."""
        return self.pipeline.finish(pending, stamp)

    def reset(self) -> None:
        """Forget everything; the next image is the first one."""
        self.pipeline.reset()
        self._stamp, self._size, self._encoding = None, None, ""

    def snapshot(self) -> Snapshot:
        """See ``Pipeline.snapshot``; with what the next image is compared to."""
        return {
            **self.pipeline.snapshot(),
            "stream.stamp": np.array(pack_stamp(self._stamp)),
            "stream.size": np.array(self._size or (), np.int64),
            "stream.encoding": np.array(self._encoding),
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """See ``Pipeline.restore``."""
        if missing := {"stream.stamp", "stream.size", "stream.encoding"}.difference(snapshot):
            raise InstanceFlowError(
                f"the snapshot is of a pipeline, not of a stream: it has no {', '.join(sorted(missing))}"
            )
        self.pipeline.restore(snapshot)
        self._stamp = unpack_stamp(snapshot["stream.stamp"])
        self._size = tuple(snapshot["stream.size"].tolist()) or None
        self._encoding = str(snapshot["stream.encoding"])

    def _new_scene(self, size: tuple[int, int], stamp: int | None) -> str:
        """Why this image has nothing to do with the one before it; empty where it has."""
        if self._size is not None and size != self._size:
            return f"the image size changed from {_describe(self._size)} to {_describe(size)}"
        if stamp is not None and self._stamp is not None and stamp < self._stamp:
            return f"the image stamps ran back by {(self._stamp - stamp) / 1e9:.3f} s"
        return ""

    def _interruption(self, stamp: int | None, encoding: str) -> str:
        """Why the images before this one are no references for it; empty where they are."""
        if self._size is not None and encoding != self._encoding:
            return f"the image encoding changed from {self._encoding or 'unknown'} to {encoding or 'unknown'}"
        if self.max_gap and stamp is not None and self._stamp is not None:
            gap = (stamp - self._stamp) / 1e9
            if gap > self.max_gap:
                return f"{gap:.3f} s passed between two images (max_gap is {self.max_gap:g} s)"
        return ""


def _describe(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
