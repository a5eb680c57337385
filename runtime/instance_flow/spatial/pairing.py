# SPDX-License-Identifier: Apache-2.0
"""Which depth image and which calibration belong to an image, by their stamps; for the live node and for replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from threading import Condition
from time import monotonic
from typing import Any
from weakref import WeakSet

from instance_flow.spatial.camera import CameraModel

TOLERANCE = 0.02
"""Default of the most seconds between the stamps of an image and of its depth."""

LATE = "raise depth_wait by that, or let the driver publish both together"
_KEPT = 12
"""Depth images kept for images that come later than their depth."""
_CALIBRATIONS = 64
_ANSWERED = 64
"""Images that were answered without depth, kept to tell how late their depth comes."""
_SILENCE = 2.0
"""Seconds without any depth after which an image is no longer held up for it."""


@dataclass(eq=False)
class DepthRequest:
    """An image that waits for its depth, and the nearest depth so far.

    stamp: of the image, nanoseconds; None = unknown, so that no depth can be paired with it.
    """

    stamp: int | None
    depth: Any = None
    distance: float = field(default=float("inf"))  # nanoseconds between the two
    difference: float = field(default=float("nan"))  # seconds from the image's stamp to that of the nearest depth
    settled: bool = False  # no nearer one can come


@dataclass(frozen=True)
class PairingReport:
    """The pairing since the last report.

    depths: number of depth images.   paired, unpaired: numbers of images answered with and without depth.
    differences: seconds from the stamps of the unpaired images to that of the depth nearest to each.
    late: seconds after its image's answer at which a depth came that belonged to it.
    """

    depths: int
    paired: int
    unpaired: int
    differences: tuple[float, ...]
    late: tuple[float, ...]

    def problem(self, tolerance: float, advice: str = LATE) -> str:
        """Why images have no depth, in one sentence, where most of them have none; empty where nothing is wrong.

        advice: what to do where it comes too late.
        """
        if not self.unpaired or self.paired > self.unpaired:
            return ""
        if len(self.late) * 2 > self.unpaired:
            return f"depth comes {median(self.late) * 1e3:.0f} ms (median) after its image was answered; {advice}"
        if self.differences:
            return (
                f"no depth image is within depth_tolerance ({tolerance:g} s) of an image: the median difference of "
                f"their stamps is {median(self.differences):+.3f} s; synchronize the two, or raise depth_tolerance"
            )
        return ""


class Calibrations:
    """The calibrations of one camera by their stamps. For use from any thread."""

    def __init__(self) -> None:
        self._cameras: deque[tuple[int, CameraModel | None]] = deque(maxlen=_CALIBRATIONS)

    def add(self, stamp: int, camera: CameraModel | None) -> None:
        """Add a calibration, None for one that cannot be used; it applies from its stamp, nanoseconds, on."""
        self._cameras.append((stamp, camera))

    def at(self, stamp: int | None) -> CameraModel | None:
        """The latest calibration not later than the image's stamp, else the earliest one; None where there is none."""
        cameras = list(self._cameras)
        if not cameras:
            return None
        if stamp is None:
            return cameras[-1][1]
        valid = [one for one in cameras if one[0] <= stamp]
        return max(valid, key=lambda one: one[0])[1] if valid else min(cameras, key=lambda one: one[0])[1]

    def settled(self, stamp: int | None) -> bool:
        """Whether no calibration that is to come is likely to change what ``at`` says: there is one that is not of
        before the image, or only one so far, or those without a time."""
        stamps = {one[0] for one in self._cameras}
        return bool(stamps) and (len(stamps) == 1 or stamp is None or max(stamps) >= stamp)


class DepthPairing:
    """Pairs the images of one camera with depth. For use from any thread; a missing depth holds nothing up.

    Args:
        tolerance: seconds. Of the depth images within it, the nearest one by stamp belongs to an image, of two equally
            near ones the first that came. One depth image may belong to two images.
        clock: seconds, of the time in which messages come.
    """

    def __init__(self, tolerance: float = TOLERANCE, clock: Callable[[], float] = monotonic) -> None:
        self.tolerance, self._clock = tolerance, clock
        self._changed = Condition()
        self.clear()
        self._restart()

    def clear(self) -> None:
        """Forget all depth images."""
        with self._changed:
            self._recent: deque[tuple[int, Any]] = deque(maxlen=_KEPT)
            self._requests: WeakSet[DepthRequest] = WeakSet()
            self._answered: deque[tuple[int, float]] = deque(maxlen=_ANSWERED)
            self._last_depth = float("-inf")

    def request(self, stamp: int | None) -> DepthRequest:
        """Ask for the depth of an image as soon as the image arrives: the nearest depth is kept until ``take``."""
        request = DepthRequest(stamp)
        with self._changed:
            if stamp is not None:
                for other, depth in self._recent:
                    self._offer(request, other, depth)
                # Where all are later, they are of before the clock was set back, or it is too late anyway.
                request.settled = request.settled and any(other <= stamp for other, _ in self._recent)
                self._requests.add(request)
        return request

    def add_depth(self, stamp: int, depth: Any) -> None:
        """Add a depth image: an array, or a message that is decoded only when it is used. stamp: nanoseconds."""
        with self._changed:
            if len(self._recent) == _KEPT and all(stamp < other for other, _ in self._recent):
                self._recent.clear()  # The clock was set back, as where a recording begins again.
            self._recent.append((stamp, depth))
            self._last_depth = self._clock()
            self._depths += 1
            for request in self._requests:
                self._offer(request, stamp, depth)
            for image, when in self._answered:
                if abs(stamp - image) <= self.tolerance * 1e9:
                    self._late.append(self._last_depth - when)
            self._changed.notify_all()

    def take(self, request: DepthRequest, deadline: float = float("-inf")) -> Any:
        """The depth of an image that is answered now; None where there is none.

        deadline: by time.monotonic(), until when to wait for a depth that may still come. There is no wait once a
            depth with the image's stamp or a later one is there, nor where no depth came for two seconds.
        """
        stamp = request.stamp
        with self._changed:
            while stamp is not None and not request.settled:
                now = self._clock()
                if now >= deadline or now - self._last_depth > _SILENCE:
                    break
                self._changed.wait(deadline - now)
            self._requests.discard(request)
            self._count(request)
            return request.depth

    def report(self) -> PairingReport:
        """The report since the last call; the counts start again."""
        with self._changed:
            report = PairingReport(
                self._depths,
                self._paired,
                self._unpaired,
                tuple(self._differences),
                tuple(self._late),
            )
            self._restart()
        return report

    def _restart(self) -> None:
        self._depths = self._paired = self._unpaired = 0
        self._differences: list[float] = []
        self._late: list[float] = []

    def _count(self, request: DepthRequest) -> None:
        if request.depth is not None:
            self._paired += 1
            return
        self._unpaired += 1
        if request.difference == request.difference:
            self._differences.append(request.difference)
        if request.stamp is not None:
            self._answered.append((request.stamp, self._clock()))

    def _offer(self, request: DepthRequest, stamp: int, depth: Any) -> None:
        assert request.stamp is not None
        distance = abs(stamp - request.stamp)
        if distance < request.distance:
            request.distance, request.difference = distance, (stamp - request.stamp) / 1e9
            if distance <= self.tolerance * 1e9:
                request.depth = depth
        request.settled = request.settled or stamp >= request.stamp
