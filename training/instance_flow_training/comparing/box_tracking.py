# SPDX-License-Identifier: Apache-2.0
"""What people use: SORT and ByteTrack of the package ``trackers``, and DeepSORT of ``deep-sort-realtime``.

Each keeps its own matching. What is set differently from the packages' defaults helps these trackers, and was chosen
for the best HOTA on synthetic worlds with the seeds 500 to 541: a track is valid from its first detection on, low
scores open tracks too, and boxes are compared by generalised IoU, which also says how far apart two boxes are that do
not touch (HOTA 0.47 where plain IoU gives 0.43).

Both packages ask for opencv-python, which would overwrite the opencv-python-headless of this project, so they are
installed without their dependencies (``HOW_TO_INSTALL``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from instance_flow.assembly.appearance import appearance_vectors
from instance_flow.structures import FloatArray, Image, InstanceFlowError, IntArray, Tracks
from instance_flow_training.comparing.retracking import NO_ID

HOW_TO_INSTALL = (
    "pip install 'instance-flow[compare]' && pip install --no-deps 'trackers>=2.6,<3' 'deep-sort-realtime>=1.3.2,<2'"
)
LOST_FRAMES = 10
"""Frames for which a track without a detection is kept."""
MINIMUM_GIOU = -0.9
"""Least generalised IoU of a track's predicted box and a detection; -1 = boxes that are infinitely far apart."""


def _missing(error: ImportError) -> InstanceFlowError:
    return InstanceFlowError(
        f"the comparison with other trackers needs packages that are not installed ({error.name}); run "
        f"{HOW_TO_INSTALL}, or compare with `--trackers flow,iou`"
    )


def corners(boxes: FloatArray) -> FloatArray:
    """Boxes x, y, width, height (N, 4) as left, top, right, bottom."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


class _FromFirstDetection:
    """A tracker of the package ``trackers`` that names a track at its first detection.

    The package gives an id only with the second one, which would cost each track a switch that is not the method's.
    """

    def __init__(self, kind: str, lost_frames: int, minimum_giou: float, **more: Any) -> None:
        try:
            import trackers
        except ImportError as error:
            raise _missing(error) from error
        self._tracker = getattr(trackers, kind)(
            lost_track_buffer=lost_frames,
            track_activation_threshold=0.0,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=minimum_giou,
            iou=trackers.GIoU(),
            **more,
        )
        self._next_id = 1

    def update(self, frame: Tracks, image: Image) -> IntArray:  # noqa: ARG002
        """See ``retracking.Retracker``."""
        import supervision

        boxes = corners(frame.boxes)
        rows = np.arange(len(frame))
        detections = supervision.Detections(xyxy=boxes, confidence=frame.scores, data={"row": rows})
        found = self._tracker.update(detections)
        ids = np.full(len(frame), NO_ID, np.int64)
        if len(found):
            ids[found.data["row"]] = np.maximum(found.tracker_id, NO_ID)
        for track in self._tracker.tracks:
            if track.tracker_id < 0:
                track.tracker_id = self._next_id
                self._next_id += 1
                distance = np.abs(boxes - track.get_state_bbox()).sum(axis=1)
                ids[np.where(ids == NO_ID, distance, np.inf).argmin()] = track.tracker_id
        return ids


class SortTracker(_FromFirstDetection):
    """Implements ``retracking.Retracker`` by SORT (Bewley et al., 2016): Kalman boxes and IoU."""

    def __init__(self, lost_frames: int = LOST_FRAMES, minimum_giou: float = MINIMUM_GIOU) -> None:
        super().__init__("SORTTracker", lost_frames, minimum_giou)


class ByteTracker(_FromFirstDetection):
    """Implements ``retracking.Retracker`` by ByteTrack (Zhang et al., 2022): SORT in two rounds, high scores first.

    high_score: least score in the first round; the second only continues tracks that the first left unmatched.
    """

    def __init__(
        self, lost_frames: int = LOST_FRAMES, minimum_giou: float = MINIMUM_GIOU, high_score: float = 0.1
    ) -> None:
        super().__init__("ByteTrackTracker", lost_frames, minimum_giou, high_conf_det_threshold=high_score)


class AppearanceTracker:
    """Implements ``retracking.Retracker`` by DeepSORT (Wojke et al., 2017): appearance, gated by a Kalman filter.

    An object's appearance is the colour histogram under its mask (``appearance``), which tells the objects of these
    worlds apart better than the network's own keys and values do. The filter's gate looks at positions alone, for masks
    turn, and its noise is ``gate`` times that of the package, which was set for pedestrians before a calm camera: with
    the package's own gate HOTA is 0.42, with this one 0.60.

    farthest: largest cosine distance of two appearances.
    """

    def __init__(self, lost_frames: int = LOST_FRAMES, farthest: float = 0.3, gate: float = 60.0) -> None:
        try:
            from deep_sort_realtime.deep_sort.track import Track, TrackState
            from deep_sort_realtime.deepsort_tracker import DeepSort
        except ImportError as error:
            raise _missing(error) from error

        class Confirmed(Track):  # type: ignore[misc]
            def __init__(self, *values: Any, **named: Any) -> None:
                super().__init__(*values, **named)
                self.state = TrackState.Confirmed

        self._tracker = DeepSort(
            embedder=None,
            max_age=lost_frames,
            max_cosine_distance=farthest,
            nn_budget=10,
            max_iou_distance=0.95,
            gating_only_position=True,
            override_track_class=Confirmed,
        )
        noise = self._tracker.tracker.kf
        noise._std_weight_position *= gate
        noise._std_weight_velocity *= gate

    def update(self, frame: Tracks, image: Image) -> IntArray:
        """See ``retracking.Retracker``."""
        embeddings = appearance(image, frame)
        detections = [(box, score, "") for box, score in zip(frame.boxes.tolist(), frame.scores.tolist(), strict=True)]
        tracks = self._tracker.update_tracks(detections, embeds=list(embeddings), others=list(range(len(frame))))
        ids = np.full(len(frame), NO_ID, np.int64)
        for track in tracks:
            if track.time_since_update == 0:
                ids[track.others] = int(track.track_id)
        return ids


def appearance(image: Image, frame: Tracks) -> FloatArray:
    """What instance flow goes by too (``appearance.appearance_vectors``), of whole masks: (N, 512), of length 1."""
    rows = np.where(frame.label_map > 0, np.searchsorted(frame.ids, frame.label_map) + 1, 0)
    return appearance_vectors(image, rows, len(frame), stride=1)
