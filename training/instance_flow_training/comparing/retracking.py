# SPDX-License-Identifier: Apache-2.0
"""The same masks with other identities: what a tracker that sees only a frame's finished objects makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from instance_flow.structures import ROW_ARRAYS, Image, IntArray, Tracks

NO_ID = 0


class Retracker(Protocol):
    """A tracker of finished objects, fresh for each clip."""

    def update(self, frame: Tracks, image: Image) -> IntArray:
        """Give the identity of each of the frame's N objects, (N,) int64 from 1 on, or NO_ID where it has none."""
        ...


def retrack(frames: Sequence[Tracks], images: Image, tracker: Retracker) -> list[Tracks]:
    """Give the objects of a clip the tracker's identities; an object that it leaves without one gets one of its own.

    So no mask is ever lost: what trackers differ in is identity alone. (Their DetA still differs in the third digit,
    because HOTA pairs objects with the tracks that fit them best over the whole video.) Masks, classes, scores and
    everything else stay those of ``frames``.
    """
    ids = [tracker.update(frame, image) for frame, image in zip(frames, images, strict=True)]
    fresh = 1 + max((int(given.max(initial=NO_ID)) for given in ids), default=NO_ID)
    out = []
    for frame, given in zip(frames, ids, strict=True):
        without = np.flatnonzero(given == NO_ID)
        given = given.copy()
        given[without] = np.arange(fresh, fresh + len(without))
        fresh += len(without)
        out.append(with_ids(frame, given))
    return out


def with_ids(frame: Tracks, ids: IntArray) -> Tracks:
    """Give row n of the frame the identity ids[n]; the rows come in the order of their new identities.

    Raises ValueError where an identity stands twice or is not above 0.
    """
    if len(ids) != len(frame) or len(np.unique(ids)) != len(ids) or (ids <= NO_ID).any():
        raise ValueError(f"frame {frame.frame_index}: {ids.tolist()} are not {len(frame)} different ids above 0")
    lookup = np.zeros(int(frame.ids.max(initial=0)) + 1, np.int32)
    lookup[frame.ids] = ids
    order = np.argsort(ids)
    rows = {name: getattr(frame, name)[order] for name in ROW_ARRAYS}
    return replace(frame, **{**rows, "label_map": lookup[frame.label_map], "ids": ids[order].astype(np.int64)})
