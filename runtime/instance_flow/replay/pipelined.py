# SPDX-License-Identifier: Apache-2.0
"""A recording at full speed: the network works on the next frame while the objects of this one are put together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from instance_flow.stream import Stream
from instance_flow.structures import Image, Tracks


def pipelined(stream: Stream, frames: Iterable[tuple[Image, int | None, str]]) -> Iterator[Tracks]:
    """The tracks of all frames, the same as of ``stream.step`` on one after the other; with its errors.

    A frame's tracks come when the next one's network is under way: for a live camera that would be a frame late, so
    the node has two threads that wait for nothing instead (its parameter ``pipelined``).

    Args:
        frames: image, stamp and encoding of each, as ``Stream.step`` takes them.
    """
    pending = None
    with ThreadPoolExecutor(1, "instance_flow_network") as network:
        try:
            for frame in frames:
                begun = network.submit(stream.begin, *frame)
                try:
                    if pending is not None:
                        finished, pending = pending, None
                        yield stream.finish(*finished)
                finally:
                    pending = begun.result()
            if pending is not None:
                finished, pending = pending, None
                yield stream.finish(*finished)
        finally:
            if pending is not None:
                stream.pipeline.give_up(pending[0])
