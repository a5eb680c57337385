# SPDX-License-Identifier: Apache-2.0
"""Tracks of a label map, for tests of what is made of tracks. Needs the runtime alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.structures import NEW, Tracks


def label_map_tracks(label_map: NDArray[Any]) -> Tracks:
    """New tracks, all of class 0 and score 0.5: centroids, boxes and areas of their masks, velocities unknown."""
    ids = np.unique(label_map[label_map > 0]).astype(np.int64)
    points = [np.argwhere(label_map == track_id) for track_id in ids]
    boxes = [(*p.min(0)[::-1], *(p.max(0) - p.min(0) + 1)[::-1]) for p in points]
    count = len(ids)
    scores = np.full(count, 0.5, np.float32)
    return Tracks(
        frame_index=0,
        label_map=np.asarray(label_map, np.int32),
        ids=ids,
        class_ids=np.zeros(count, np.int64),
        scores=scores,
        semantic_scores=scores,
        center_scores=scores,
        centers=np.array([p.mean(0) for p in points], np.float32).reshape(-1, 2),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        areas=np.array([len(p) for p in points], np.int64),
        velocities=np.full((count, 2), np.nan, np.float32),
        states=np.zeros(count, np.int64),
        ages=np.zeros(count, np.int64),
        age_seconds=np.full(count, np.nan),
        reference_frames=np.full(count, NEW, np.int64),
        distances=np.full(count, np.nan, np.float32),
    )
