# SPDX-License-Identifier: Apache-2.0
"""Identity over time: which id each object of a frame gets, why, and which class its track has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.assembly.appearance import APPEARANCE_SIZE, blend
from instance_flow.assembly.matching import KnownIdentities, Matches
from instance_flow.spatial.camera import CameraModel
from instance_flow.spatial.measure import Places, SpatialConfig
from instance_flow.structures import (
    LAST_ID,
    NEW,
    STATES,
    FloatArray,
    Identities,
    InstanceFlowError,
    Instances,
    IntArray,
    Tracks,
)
from instance_flow.tracking.memory import Reference
from instance_flow.tracking.motion import Motions, follow_in_image, follow_in_space
from instance_flow.tracking.snapshot import Snapshot, pack_stamp, take, take_counts, unpack_stamp

LEAST_SHARE = 0.05
"""Weight of the newest appearance in an id's mean: it follows the light, but not one bad mask."""
MOST_LOST = 100
"""Lost ids that are kept at most, so that no flood of ghosts costs time or memory."""


@dataclass
class _Track:
    """first_frame, last_frame: frame indices of the id's first and latest appearance.   sightings: their number.

    first_stamp: nanoseconds of the first one, None where unknown.
    votes: (C,) float64, sum of its class probabilities.   appearance: (512,) float32, mean over its sightings.
    center, velocity: (2,) float32 cells where it was last, and cells per frame.
    streak: in how many frames in a row it was seen.   published: whether it was, when it was last seen.
    shown: whether it ever was.
    confirmed: whether a streak of it was long enough, for good.
    """

    first_frame: int
    first_stamp: int | None
    last_frame: int
    sightings: int
    votes: NDArray[np.float64]
    appearance: FloatArray
    center: FloatArray
    velocity: FloatArray
    streak: int = 0
    published: bool = False
    shown: bool = False
    confirmed: bool = False

    def see(self, frame_index: int, votes: FloatArray, appearance: FloatArray, center: FloatArray) -> None:
        """Take the next sighting."""
        self.sightings += 1
        self.streak = self.streak + 1 if frame_index == self.last_frame + 1 else 1
        self.votes += votes
        self.appearance = blend(self.appearance, appearance, max(1 / self.sightings, LEAST_SHARE))
        if frame_index > self.last_frame:
            moved = (center - self.center) / (frame_index - self.last_frame)
            self.velocity = (moved if self.sightings == 2 else (self.velocity + moved) / 2).astype(np.float32)
        self.center, self.last_frame = center, frame_index


class Tracker:
    """Gives ids, starting at 1 and never twice, and accumulates each id's class votes (section III-C-3) and appearance.

    Args:
        lost_frames: for how long an id that no reference shows any more may still be given back to an object.
    """

    def __init__(self, lost_frames: int = 0) -> None:
        self.lost_frames = lost_frames
        self._next_id = 1
        self._tracks: dict[int, _Track] = {}
        self._in_image, self._in_space = Motions(2), Motions(3)

    def __len__(self) -> int:
        """Number of identities that may still be handed on."""
        return len(self._tracks)

    def known(self, frame_index: int) -> KnownIdentities:
        """Every identity that may still be handed on to an object of this frame."""
        tracks = list(self._tracks.values())
        gaps = np.array([frame_index - track.last_frame for track in tracks], np.int64)
        appearance = np.array([track.appearance for track in tracks], np.float32).reshape(len(tracks), APPEARANCE_SIZE)
        centers = np.array([track.center for track in tracks], np.float32).reshape(-1, 2)
        velocities = np.array([track.velocity for track in tracks], np.float32).reshape(-1, 2)
        expected = centers + velocities * gaps[:, None].astype(np.float32)
        votes = np.array([track.votes for track in tracks], np.float64)
        return KnownIdentities(np.array(list(self._tracks), np.int64), appearance, expected, gaps, votes)

    def update(
        self,
        instances: Instances,
        matches: Matches,
        references: Sequence[Reference],
        frame_index: int,
        stamp: int | None = None,
        flow_error: float = 1.0,
    ) -> Identities:
        """Give every object of one frame the identity that it was matched to, or a new one.

        stamp: of the frame, in nanoseconds.   flow_error: as of ``Assembly``, in cells.
        Raises InstanceFlowError where there is no further id.
        """
        ids = matches.ids.copy()
        fresh = np.flatnonzero(ids == 0)
        if self._next_id + len(fresh) > LAST_ID + 1:
            raise InstanceFlowError(f"the stream has given all ids up to {LAST_ID}; reset it to begin at 1 again")
        for row in fresh:
            ids[row] = self._next_id
            self._next_id += 1
        last_seen = np.array([self._tracks[i].last_frame if i in self._tracks else NEW for i in ids.tolist()], np.int64)
        self._remember(ids, instances, frame_index, stamp)
        frames = np.array([*(r.frame_index for r in references), NEW], np.int64)[matches.reference]
        velocities, covariances = follow_in_image(self._in_image, ids, instances, references, stamp, flow_error)
        return Identities(
            ids=ids,
            class_ids=np.array([self._tracks[i].votes.argmax() for i in ids], np.int64),
            states=_states(last_seen, references, frame_index),
            ages=np.array([frame_index - self._tracks[i].first_frame for i in ids], np.int64),
            age_seconds=np.array([_seconds(self._tracks[i].first_stamp, stamp) for i in ids], np.float64),
            reference_frames=np.where(matches.reference < 0, last_seen, frames),
            distances=matches.distance,
            velocities=velocities,
            velocity_covariances=covariances,
        )

    def place(
        self, tracks: Tracks, places: Places, camera: CameraModel, stamp: int | None, config: SpatialConfig
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position and velocity (N, 6) of a frame's tracks, and their covariance (N, 6, 6): ``follow_in_space``."""
        return follow_in_space(
            self._in_space,
            tracks.ids,
            places,
            tracks.velocities.astype(np.float64),
            tracks.velocity_covariances.astype(np.float64),
            camera,
            stamp,
            config,
        )

    def publish(
        self,
        identities: Identities,
        scores: FloatArray,
        class_published: NDArray[np.bool_],
        min_score: float,
        confirm_frames: int,
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which objects of the last ``update`` are published, (M,) bool, and which of these for the first time, (M,)
        bool; no id depends on it.

        scores: (M,).   class_published: (M,) whether its class is.
        min_score, confirm_frames: as in ``AssemblyConfig``.
        """
        published, first = np.zeros(len(scores), bool), np.zeros(len(scores), bool)
        for row, identity in enumerate(identities.ids.tolist()):
            track = self._tracks[identity]
            # What a stream begins with, which may be a single picture, could not have been seen before.
            track.confirmed |= track.streak >= confirm_frames or track.first_frame == 0
            # One that is there stays where its score falls a little: else it would flicker.
            least = min_score / 2 if track.published else min_score
            track.published = bool(track.confirmed and scores[row] >= least)
            published[row] = track.published and class_published[row]
            first[row] = published[row] and not track.shown
            track.shown |= bool(published[row])
        return published, first

    def _remember(self, ids: IntArray, instances: Instances, frame_index: int, stamp: int | None) -> None:
        for row, identity in enumerate(ids.tolist()):
            votes, appearance, center = instances.class_scores[row], instances.appearance[row], instances.centers[row]
            if identity not in self._tracks:
                nothing = np.zeros(len(votes), np.float64)
                self._tracks[identity] = _Track(
                    frame_index, stamp, frame_index, 0, nothing, appearance, center, np.zeros(2, np.float32)
                )
            self._tracks[identity].see(frame_index, votes, appearance, center)

    def forget(self, references: Sequence[Reference], frame_index: int) -> None:
        """Drop ids that can no longer be matched: no reference shows them, and they were last seen more than
        ``lost_frames`` ago, or more than ``MOST_LOST`` others were seen later."""
        held = set[int]().union(*(r.ids.tolist() for r in references))
        lost = [i for i in self._tracks if i not in held]
        fresh = [i for i in lost if frame_index - self._tracks[i].last_frame <= self.lost_frames]
        latest = sorted(fresh, key=lambda i: self._tracks[i].last_frame)[-MOST_LOST:]
        for identity in set(lost).difference(latest):
            del self._tracks[identity]
        for motions in (self._in_image, self._in_space):
            motions.retain(self._tracks)

    def clear(self) -> None:
        """Start again with id 1."""
        self._next_id = 1
        self._tracks.clear()
        self._in_image, self._in_space = Motions(2), Motions(3)

    def snapshot(self) -> Snapshot:
        """All identities as plain arrays, one row for each; their order decides between equals."""
        tracks = list(self._tracks.values())
        columns = {
            name: np.array([getattr(track, name) for track in tracks])
            for name in _Track.__dataclass_fields__
            if name != "first_stamp"
        }
        return {
            "tracker.next_id": np.array(self._next_id),
            "tracker.ids": np.array(list(self._tracks), np.int64),
            "tracker.first_stamp": np.array([pack_stamp(track.first_stamp) for track in tracks], np.int64),
            **{f"tracker.{name}": column for name, column in columns.items()},
            **self._in_image.snapshot("tracker.in_image"),
            **self._in_space.snapshot("tracker.in_space"),
        }

    def restored(self, snapshot: Mapping[str, NDArray[Any]], classes: int, frame_index: int) -> Tracker:
        """A tracker of the same kind with the identities of a snapshot; classes: how many the votes are for.
        frame_index: of the next frame.

        Raises InstanceFlowError where a part is missing, or is not what it should be.
        """
        tracker = Tracker(self.lost_frames)
        ids = take(snapshot, "tracker.ids", np.integer, None)
        next_id = int(take(snapshot, "tracker.next_id", np.integer))
        sound = 1 <= next_id <= LAST_ID + 1 and len(np.unique(ids)) == len(ids)
        if not sound or (len(ids) and not 0 < ids.min() <= ids.max() < next_id):
            raise InstanceFlowError(
                "the snapshot is damaged: its ids are not different numbers from 1 on, below the next one, which is at "
                f"most {LAST_ID + 1}; start the stream anew"
            )
        column = {
            name: take(snapshot, f"tracker.{name}", *((kind, len(ids), *shape) if len(ids) else (np.generic, 0)))
            for name, (kind, *shape) in _columns(classes).items()
        }
        for name in ("sightings", "streak") if len(ids) else ():
            take_counts(snapshot, f"tracker.{name}", len(ids))
        for name in ("first_frame", "last_frame") if len(ids) else ():
            if take_counts(snapshot, f"tracker.{name}", len(ids)).max() >= frame_index:
                raise InstanceFlowError(
                    f"the snapshot is damaged: {name} of a track is beyond its {frame_index} frames; start the stream "
                    "anew"
                )
        for k, identity in enumerate(ids.tolist()):
            tracker._tracks[identity] = _Track(
                first_frame=int(column["first_frame"][k]),
                first_stamp=unpack_stamp(column["first_stamp"][k]),
                last_frame=int(column["last_frame"][k]),
                sightings=int(column["sightings"][k]),
                votes=column["votes"][k].copy(),
                appearance=column["appearance"][k].copy(),
                center=column["center"][k].copy(),
                velocity=column["velocity"][k].copy(),
                streak=int(column["streak"][k]),
                published=bool(column["published"][k]),
                confirmed=bool(column["confirmed"][k]),
                shown=bool(column["shown"][k]),
            )
        tracker._next_id = next_id
        tracker._in_image = self._in_image.restored("tracker.in_image", snapshot, tracker.ids)
        tracker._in_space = self._in_space.restored("tracker.in_space", snapshot, tracker.ids)
        return tracker

    @property
    def ids(self) -> set[int]:
        """All identities that may still be handed on."""
        return set(self._tracks)


def _columns(classes: int) -> dict[str, tuple[Any, ...]]:
    """Kind and shape of each field of a track, as a snapshot holds them."""
    numbers = ("first_frame", "first_stamp", "last_frame", "sightings", "streak")
    return {
        **dict.fromkeys(numbers, (np.integer,)),
        **dict.fromkeys(("published", "confirmed", "shown"), (np.bool_,)),
        "votes": (np.floating, classes),
        "appearance": (np.floating, APPEARANCE_SIZE),
        "center": (np.floating, 2),
        "velocity": (np.floating, 2),
    }


def _states(last_seen: IntArray, references: Sequence[Reference], frame_index: int) -> IntArray:
    """After an interruption there are no references, and every object that is re-identified counts as recovered."""
    before = frame_index - 1 if references else frame_index
    recovered = np.where(last_seen < before, STATES.index("recovered"), STATES.index("tracked"))
    return np.where(last_seen == NEW, STATES.index("new"), recovered).astype(np.int64)


def _seconds(earlier: int | None, now: int | None) -> float:
    return np.nan if earlier is None or now is None else (now - earlier) * 1e-9
