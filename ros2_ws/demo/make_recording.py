# SPDX-License-Identifier: Apache-2.0
"""Make demo.mcap out of the clips that it consists of (ATTRIBUTION.md says where they are from).

Usage: make_recording.py FOLDER_OF_CLIPS [OUT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from instance_flow.formats.bag_writer import BagWriter

SIZE = (640, 360)
QUALITY = 80
PERSONS = "one-by-one-person-detection.mp4"
PARTS = (("highway.mp4", 0, 38), (PERSONS, 486, 532), (PERSONS, 738, 804))
"""File, first frame, and the one behind the last."""
PAUSE = 3 * 10**9
"""Between two clips, in nanoseconds: longer than the node's max_gap, so that nothing is matched across."""
TOPIC = "/camera/image_raw/compressed"


def main(clips: Path, out: Path) -> None:
    """Write the recording; each clip at its own rate."""
    stamp = 10**9
    with BagWriter(out) as bag:
        for name, first, last in PARTS:
            video = cv2.VideoCapture(str(clips / name))
            interval = round(1e9 / video.get(cv2.CAP_PROP_FPS))
            for number in range(last):
                there, image = video.read()
                if not there:
                    raise SystemExit(f"{clips / name}: ends after {number} frames, {last} are needed")
                if number >= first:
                    small = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
                    rgb = np.ascontiguousarray(small[..., ::-1], np.uint8)
                    bag.write_jpeg(TOPIC, rgb, stamp, frame_id="camera", quality=QUALITY)
                    stamp += interval
            stamp += PAUSE


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("demo.mcap"))
