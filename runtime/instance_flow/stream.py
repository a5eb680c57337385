# SPDX-License-Identifier: Apache-2.0
"""What a camera's or a recording's images may do to a pipeline: pause, jump back, change their size. One set of rules
for the live node and for replay, so that both give the same tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.preprocess import check_image
from instance_flow.declare import check, setting
from instance_flow.formats.foreign_text import shown
from instance_flow.pipeline import Pipeline
from instance_flow.spatial.camera import CameraModel
from instance_flow.structures import Image, InstanceFlowError, Tracks
from instance_flow.tracking.snapshot import Snapshot, pack_stamp, take, take_counts, unpack_stamp

MAX_GAP = 2.0
"""Default of the most seconds between two images; after a longer gap the references are forgotten."""


@dataclass(frozen=True)
class StreamSettings:
    """What can be set of a stream, by the commands and by the node."""

    max_gap: float = setting(
        MAX_GAP,
        "seconds between two images after which the earlier ones are no longer references: ids continue, and "
        "objects may be re-identified by appearance. 0 = never",
        0,
        3600,
    )

    def __post_init__(self) -> None:
        check(self)


class Stream:
    """A pipeline, and what happens before an image that does not follow from the one before it.

    * The size changed, or the stamp ran far back, as when a recording begins again: reset. Ids begin at 1 again. Far is
      more than ``max_gap``, or more than half of what the stream has lasted: so a short recording may loop, too.
    * The stamp ran back a little, as where drivers publish out of order or a clock is corrected: ids continue, and the
      image is tracked without a time until the stamps have caught up.
    * More than ``max_gap`` seconds passed, or the encoding changed: the references are forgotten, ids continue. Objects
      may be re-identified by appearance.

    Args:
        max_gap: seconds; 0 = no gap is too long.
        on_break: called with a sentence that says what happened, once for each break.
        on_jitter: likewise, for each stamp that ran back a little.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        max_gap: float = MAX_GAP,
        on_break: Callable[[str], None] = lambda _: None,
        on_jitter: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.pipeline = pipeline
        self.max_gap = max_gap
        self._on_break, self._on_jitter = on_break, on_jitter
        self._first_stamp: int | None = None
        self._stamp: int | None = None  # the latest one
        self._size: tuple[int, int] | None = None
        self._encoding = ""

    def step(
        self,
        image: Image,
        stamp: int | None,
        encoding: str = "",
        *,
        depth: NDArray[Any] | None = None,
        camera: CameraModel | None = None,
    ) -> Tracks:
        """Track the objects of the next image, as ``Pipeline.step`` does and with its errors.

        encoding: what the image came as, empty where unknown.
        """
        return self.pipeline.step(image, self.follow(image, stamp, encoding), depth=depth, camera=camera)

    def follow(
        self, image: Image, stamp: int | None, encoding: str = "", before_break: Callable[[], None] = lambda: None
    ) -> int | None:
        """Take the next image into account before it is tracked; gives the stamp to track it with.

        before_break: called before tracks or references are forgotten.
        Raises ValueError for an image of another type or shape.
        """
        check_image(image)  # before it breaks the stream
        size = (image.shape[0], image.shape[1])
        if reason := self._new_scene(size, stamp):
            before_break()
            self.reset()
            self._on_break(f"{reason}: all tracks are forgotten, ids begin at 1 again")
        elif reason := self._interruption(stamp, encoding):
            before_break()
            self.pipeline.forget_references()
            self._on_break(f"{reason}: ids continue, but objects are re-identified by appearance only")
        if stamp is not None and self._stamp is not None and stamp < self._stamp:
            self._on_jitter(f"an image stamp ran back by {(self._stamp - stamp) / 1e6:.1f} ms")
            stamp = None
        self._size, self._encoding = size, encoding
        if stamp is not None:
            # A stream without stamps for a while still knows when the last one was.
            self._stamp = stamp
            self._first_stamp = stamp if self._first_stamp is None else self._first_stamp
        return stamp

    def reset(self) -> None:
        """Forget everything; the next image is the first one."""
        self.pipeline.reset()
        self._first_stamp, self._stamp, self._size, self._encoding = None, None, None, ""

    def snapshot(self) -> Snapshot:
        """See ``Pipeline.snapshot``; with what the next image is compared to."""
        return {
            **self.pipeline.snapshot(),
            "stream.first_stamp": np.array(pack_stamp(self._first_stamp)),
            "stream.stamp": np.array(pack_stamp(self._stamp)),
            "stream.size": np.array(self._size or (), np.int64),
            "stream.encoding": np.array(self._encoding),
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """See ``Pipeline.restore``."""
        stamps, size, encoding = self._unpacked(snapshot)
        self.pipeline.restore(snapshot)
        self._first_stamp, self._stamp = stamps
        self._size, self._encoding = size, encoding

    def check(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """See ``Pipeline.check``."""
        self._unpacked(snapshot)
        self.pipeline.check(snapshot)

    def _unpacked(self, snapshot: Mapping[str, NDArray[Any]]) -> tuple[list[int | None], tuple[int, int] | None, str]:
        """Stamps, size and encoding of a snapshot, checked."""
        parts = {"stream.first_stamp", "stream.stamp", "stream.size", "stream.encoding"}
        if missing := parts.difference(snapshot):
            raise InstanceFlowError(
                f"the snapshot is of a pipeline, not of a stream: it has no {', '.join(sorted(missing))}"
            )
        stamps = [unpack_stamp(take(snapshot, f"stream.{name}", np.integer)) for name in ("first_stamp", "stamp")]
        size = tuple(take_counts(snapshot, "stream.size", None).tolist())
        encoding = str(take(snapshot, "stream.encoding", np.str_))
        if len(size) not in (0, 2):
            raise InstanceFlowError(f"the snapshot is damaged: its image size is {size}; start the stream anew")
        return stamps, (size[0], size[1]) if size else None, encoding

    def _new_scene(self, size: tuple[int, int], stamp: int | None) -> str:
        """Why this image has nothing to do with the one before it; empty where it has."""
        if self._size is not None and size != self._size:
            return f"the image size changed from {_describe(self._size)} to {_describe(size)}"
        if stamp is not None and self._stamp is not None and self._first_stamp is not None:
            back, lasted = self._stamp - stamp, self._stamp - self._first_stamp
            if back > min((self.max_gap or MAX_GAP) * 1e9, lasted / 2) and back > 0:
                return f"the image stamps ran back by {back / 1e9:.3f} s"
        return ""

    def _interruption(self, stamp: int | None, encoding: str) -> str:
        """Why the images before this one are no references for it; empty where they are."""
        if self._size is not None and encoding != self._encoding:
            before, now = (shown(name) or "unknown" for name in (self._encoding, encoding))
            return f"the image encoding changed from {before} to {now}"
        if self.max_gap and stamp is not None and self._stamp is not None:
            gap = (stamp - self._stamp) / 1e9
            if gap > self.max_gap:
                return f"{gap:.3f} s passed between two images (max_gap is {self.max_gap:g} s)"
        return ""


def _describe(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
