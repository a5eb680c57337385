# SPDX-License-Identifier: Apache-2.0
"""A window that shows the tracks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import cv2

from instance_flow.formats.video import Frame
from instance_flow.pictures.draw import overlay
from instance_flow.structures import InstanceFlowError, Tracks

_TITLE = "instance-flow"
_ENDS = frozenset({27, ord("q"), ord("Q")})


class Window:
    """Use it as a context manager, on the main thread. ``closed`` once the user pressed Q or Esc, or closed it.

    Raises InstanceFlowError where OpenCV has no windows, or there is no display.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.closed = False
        self._class_names, self._open = class_names, False
        found = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
        if found is not None and found[1] == "NONE":
            raise InstanceFlowError(
                "--show needs an OpenCV with windows, and the one at hand is opencv-python-headless: run `pip "
                "uninstall opencv-python-headless` and `pip install opencv-python`, or use --serve, which needs neither"
            )
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise InstanceFlowError(
                "--show needs a display, and there is none here (DISPLAY is not set): use --serve and a browser"
            )

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            cv2.destroyWindow(_TITLE)

    def add(self, frame: Frame, tracks: Tracks) -> None:
        """Show a frame."""
        if self.closed:
            return
        if not self._open:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(_TITLE, frame.image.shape[1], frame.image.shape[0])
            self._open = True
        cv2.imshow(_TITLE, cv2.cvtColor(overlay(frame.image, tracks, self._class_names), cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        if cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self.closed, self._open = True, False
        self.closed = self.closed or key in _ENDS
