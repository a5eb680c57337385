# SPDX-License-Identifier: Apache-2.0
"""Ids and frame numbers of a whole run: a stream begins both anew whenever it is reset, as where a recording loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instance_flow.structures import LAST_ID, NEW, InstanceFlowError, Tracks


class RunNumbers:
    """Gives the tracks of a run's frames, in order, with ids and frame numbers that continue through resets."""

    def __init__(self) -> None:
        self._first_id = self._first_frame = 0
        self._last_id = self._last_frame = 0
        self._last_index = -1

    def __call__(self, tracks: Tracks) -> Tracks:
        """The next frame's tracks; the same object as long as nothing was reset.

        Raises InstanceFlowError where there is no further id.
        """
        if tracks.frame_index <= self._last_index:
            self._first_id, self._first_frame = self._last_id, self._last_frame + 1
        self._last_index = tracks.frame_index
        self._last_id = max(self._last_id, self._first_id + max(tracks.ids.tolist(), default=0))
        if self._last_id > LAST_ID:
            raise InstanceFlowError(f"the run has given all ids up to {LAST_ID}; run the recording in parts")
        if self._first_frame:
            tracks = replace(
                tracks,
                frame_index=tracks.frame_index + self._first_frame,
                label_map=np.where(tracks.label_map > 0, tracks.label_map + np.int32(self._first_id), 0),
                ids=tracks.ids + self._first_id,
                reference_frames=np.where(
                    tracks.reference_frames == NEW, NEW, tracks.reference_frames + self._first_frame
                ),
            )
        self._last_frame = tracks.frame_index
        return tracks
