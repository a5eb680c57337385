# SPDX-License-Identifier: Apache-2.0
"""The network works on the next frame while the objects of this one are assembled; the tracks are the same.

With a network that takes 2 to 10 ms on a device of its own, streams gave 1.1 to 1.9 times the frames per second
(`python bench/overlap.py`): the more, the longer the assembly takes beside the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Condition
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.pipeline import Perceived
from instance_flow.spatial.camera import CameraModel
from instance_flow.stream import Stream
from instance_flow.structures import Image, Tracks
from instance_flow.tracking.memory import Reference, ReferenceMemory


@dataclass(frozen=True, eq=False)
class Pending:
    """A frame between ``Overlap.begin`` and ``Overlap.finish``; stamp as ``Stream.follow`` gave it."""

    image: Image
    perceived: Perceived
    stamp: int | None


class Overlap:
    """A stream in two halves for two threads, one that begins frames and one that finishes them.

    Every frame that was begun must be finished, in the same order, or cancelled.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._unfinished: list[Pending] = []
        self._changed = Condition()

    def begin(self, image: Image, stamp: int | None, encoding: str = "") -> Pending:
        """Run the network on the next frame, whether or not the frames before it are finished.

        Before a break of the stream it waits for them. Arguments and errors as of ``Stream.step``; depth is wanted only
        in ``finish``, as it comes later than the image.
        """
        pipeline = self.stream.pipeline
        stamp = self.stream.follow(image, stamp, encoding, self.wait_until_finished)
        with self._changed:
            unfinished = [pending.perceived.features for pending in self._unfinished]
        perceived = pipeline.perceive(image, predicted_references(pipeline.memory, unfinished))
        pending = Pending(image, perceived, stamp)
        with self._changed:
            self._unfinished.append(pending)
        return pending

    def finish(
        self, pending: Pending, *, depth: NDArray[Any] | None = None, camera: CameraModel | None = None
    ) -> Tracks:
        """The tracks of the oldest frame that was begun; arguments and errors as of ``Stream.step``."""
        pipeline, perceived = self.stream.pipeline, pending.perceived
        try:
            references = pipeline.reference_features()
            if [id(features) for features in references] != [id(features) for features in perceived.references]:
                # It was predicted wrongly which frames would be references, which is rare.
                again = pipeline.perceive(pending.image, references)
                perceived = replace(again, features=perceived.features)
            return pipeline.track(perceived, pending.stamp, depth=depth, camera=camera)
        finally:
            self.cancel(pending)

    def cancel(self, pending: Pending) -> None:
        """Leave a frame out that was begun; the stream is as if it had never come."""
        with self._changed:
            if pending in self._unfinished:
                self._unfinished.remove(pending)
            self._changed.notify_all()

    def wait_until_finished(self) -> None:
        """Wait for other threads to finish, or cancel, what was begun; only then may the stream be reset."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unfinished)


def predicted_references(memory: ReferenceMemory, unfinished: Sequence[Any]) -> list[Any]:
    """Features of the references that the next frame will have, once the unfinished frames are tracked, in order.

    Whether one of these frames releases the anchor depends on its objects; here the anchor is assumed to stay.

    Args:
        unfinished: features of the frames; those that the memory holds already are not added again.
    """
    known = {id(reference.features) for reference in memory.references}
    predicted = memory.resized(memory.capacity, memory.anchored, anchor_frames=0)  # 0: nothing is ever released
    for features in unfinished:
        if id(features) not in known:
            predicted.add(Reference(-1, None, features, np.zeros((0, 2), np.float32), np.zeros(0, np.int64)))
    return [reference.features for reference in predicted.references]


def pipelined(stream: Stream, frames: Iterable[tuple[Image, int | None, str]]) -> Iterator[Tracks]:
    """The tracks of all frames of a recording at full speed, the same as of ``stream.step``; with its errors.

    A frame's tracks come when the next one's network is under way: for a live camera that would be a frame late, so
    the node has two threads that wait for nothing instead (its parameter ``pipelined``).

    Args:
        frames: image, stamp and encoding of each, as ``Stream.step`` takes them.
    """
    overlap, pending = Overlap(stream), None
    with ThreadPoolExecutor(1, "instance_flow_network") as network:
        for frame in frames:
            begun = network.submit(overlap.begin, *frame)
            try:
                if pending is not None:
                    finished, pending = pending, None
                    yield overlap.finish(finished)
            finally:
                pending = begun.result()
        if pending is not None:
            yield overlap.finish(pending)
