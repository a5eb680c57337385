# SPDX-License-Identifier: Apache-2.0
"""From the messages of depth, calibration and transforms to what the pipeline takes with an image: the same way in the
live node and in replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.depth_messages import to_depth
from instance_flow.formats.foreign_text import MESSAGE, shown
from instance_flow.formats.stamps import stamp_problem, to_nanoseconds
from instance_flow.spatial.camera import CameraModel, to_camera
from instance_flow.spatial.pairing import LATE, TOLERANCE, Calibrations, DepthPairing, DepthRequest
from instance_flow.spatial.registration import registered
from instance_flow.spatial.transforms import TransformBuffer, TransformUnknown

_MOST_REFUSED = 20
"""Frames of which it is said why a transform was refused."""


@dataclass(frozen=True)
class DepthReport:
    """The input since the last report.

    depths: number of depth images.   calibrated: for each camera that needs a calibration, whether one has ever come.
    problem: why nothing is known in metres, in one sentence; empty where nothing is wrong, or nothing came.
    """

    depths: int
    calibrated: tuple[bool, ...]
    problem: str


class DepthInput:
    """Depth, calibration and transforms for the images of one camera. ``take`` and ``placed`` are for one thread, the
    rest for any.

    Args:
        aligned: whether depth is registered to the image. Otherwise it is registered here, by the calibration of the
            depth camera (``add_depth_camera``) and the transform between the frames of the two.
        target_frame: frame of all results in metres; empty = the image's own.
        transforms: poses of the frames; None only with ``aligned`` and without a ``target_frame``.
        clock: as of ``DepthPairing``.   late: what to do where depth comes too late.
    """

    def __init__(
        self,
        aligned: bool = True,
        target_frame: str = "",
        transforms: TransformBuffer | None = None,
        clock: Callable[[], float] = monotonic,
        late: str = LATE,
    ) -> None:
        if transforms is None and (target_frame or not aligned):
            raise ValueError("depth that is not registered, and a target_frame, need the transforms between frames")
        self.pairing, self._late = DepthPairing(TOLERANCE, clock), late
        self._aligned, self._target, self._transforms = aligned, target_frame, transforms
        self._cameras, self._depth_cameras = Calibrations(), Calibrations()
        self._came = [False] if aligned else [False, False]
        self._unusable = ["", ""]
        self._unreadable = self._unplaced = ""

    def request(self, stamp: int | None) -> DepthRequest:
        """Have the depth kept that belongs to an image that has just come; stamp in nanoseconds."""
        return self.pairing.request(stamp)

    def add_depth(self, message: Any) -> None:
        """Take a sensor_msgs/Image, or a CompressedImage of compressedDepth; it is decoded only when it is used."""
        stamp = to_nanoseconds(message.header.stamp)
        if stamp is None:
            self._unreadable = f"the depth images cannot be paired: {stamp_problem(message.header.stamp)}"
        else:
            self.pairing.add_depth(stamp, message)

    def add_camera(self, message: Any) -> None:
        """Take the sensor_msgs/CameraInfo of the image."""
        self._cameras.add(*self._calibration(message, 0))

    def add_depth_camera(self, message: Any) -> None:
        """Take the sensor_msgs/CameraInfo of the depth image; of use only where that is not registered."""
        self._depth_cameras.add(*self._calibration(message, 1))

    def is_settled(self, request: DepthRequest, frame_id: str) -> bool:
        """Whether nothing that is still to come would change what ``take`` says, as far as is known: so long as
        messages are at hand, more of them are to be added first."""
        stamp, message = request.stamp, request.depth
        if stamp is None:
            return True
        cameras = (self._cameras,) if self._aligned else (self._cameras, self._depth_cameras)
        if not (request.settled and all(one.settled(stamp) for one in cameras)):
            return False
        try:
            if self._transforms is not None and message is not None:
                if not self._aligned:
                    self._from_depth(message, frame_id)
                if self._target:
                    self._transforms.lookup(self._target, frame_id, stamp)
        except TransformUnknown:
            return False
        return True

    def take(
        self, request: DepthRequest, frame_id: str, size: tuple[int, int], deadline: float = float("-inf")
    ) -> tuple[Any, CameraModel | None]:
        """Depth and camera of an image of (height, width) for ``Pipeline.track``; never raises.

        Depth that cannot be decoded is given as it came, and counts as bad depth; without a transform the camera is
        None.

        frame_id: of the image.   deadline: as of ``DepthPairing.take``.
        """
        message, stamp = self.pairing.take(request, deadline), request.stamp
        camera = self._cameras.at(stamp)
        if message is None:
            return None, camera
        try:
            depth = to_depth(message)
            if camera is not None and not self._aligned:
                depth = self._registered(depth, message, camera, frame_id, size)
        except TransformUnknown as error:
            self._unreadable = str(error)
            return message, None
        except Exception as error:  # The answer in pixels must not depend on it, whatever is wrong.
            self._unreadable = shown(f"a depth image could not be read: {error}", MESSAGE)
            return message, camera
        try:
            return depth, self._placed_camera(camera, frame_id, stamp)
        except TransformUnknown as error:
            self._unreadable = str(error)
            return depth, None

    def placed(self, problem: str) -> None:
        """Take ``Pipeline.spatial_problem`` of an image, for the next report."""
        self._unplaced = problem

    def clear(self) -> None:
        """Forget what came so far."""
        self.pairing.clear()

    def report(self) -> DepthReport:
        """The report since the last call; the counts start again."""
        pairs = self.pairing.report()
        unreadable, self._unreadable = self._unreadable, ""
        causes = (*self._unusable, unreadable, pairs.problem(self.pairing.tolerance, self._late), self._unplaced)
        return DepthReport(pairs.depths, tuple(self._came), next((words for words in causes if words), ""))

    def _calibration(self, message: Any, which: int) -> tuple[int, CameraModel | None]:
        if which < len(self._came):
            self._came[which] = True
        try:
            camera, self._unusable[which] = to_camera(message), ""
        except ValueError as error:
            camera, self._unusable[which] = None, shown(f"the calibration cannot be used: {error}", MESSAGE)
        return to_nanoseconds(message.header.stamp) or 0, camera

    def _registered(self, depth: Any, message: Any, camera: CameraModel, frame_id: str, size: tuple[int, int]) -> Any:
        depth_camera = self._depth_cameras.at(to_nanoseconds(message.header.stamp))
        if depth_camera is None:
            raise ValueError("it is not registered, and the depth camera has no calibration")
        return registered(depth, depth_camera, camera, size, self._from_depth(message, frame_id))

    def _from_depth(self, message: Any, frame_id: str) -> NDArray[np.float64]:
        """The transform (4, 4) from the frame of a depth image to that of the images, at the time of the depth."""
        stamp = to_nanoseconds(message.header.stamp)
        assert self._transforms is not None
        assert stamp is not None  # of a depth image that was paired
        return self._transforms.lookup(frame_id, message.header.frame_id, stamp)

    def _placed_camera(self, camera: CameraModel | None, frame_id: str, stamp: int | None) -> CameraModel | None:
        if camera is None or not self._target or self._transforms is None or stamp is None:
            return camera
        return replace(camera, pose=self._transforms.lookup(self._target, frame_id, stamp))


def add_transforms(buffer: TransformBuffer, message: Any, static: bool, refused: set[str]) -> Iterator[str]:
    """Add a tf2_msgs/TFMessage; gives why transforms were refused, once for each child frame and of a few frames only.

    static: whether it came on /tf_static.   refused: the frames that were refused so far; they are added to it.
    """
    for one in message.transforms:
        place, turn = one.transform.translation, one.transform.rotation
        problem = buffer.add(
            one.header.frame_id,
            one.child_frame_id,
            one.header.stamp.sec * 10**9 + one.header.stamp.nanosec,
            (place.x, place.y, place.z),
            (turn.x, turn.y, turn.z, turn.w),
            static,
        )
        if problem and one.child_frame_id not in refused and len(refused) < _MOST_REFUSED:
            refused.add(one.child_frame_id)
            yield problem
