# SPDX-License-Identifier: Apache-2.0
"""Count the objects in a zone, now and in all, with supervision.

python docs/examples/count_zone.py VIDEO.mp4 0 192 640 192 640 384 0 384

SOURCE is a video file, a camera's number or an address; then the corners of the zone in turn, x y x y ... in pixels. An
object is in the zone while the middle of its box is. Needs `pip install supervision`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import supervision

from instance_flow import Pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("corners", nargs="+", type=int, metavar="X Y")
    parser.add_argument("--model", type=Path, help="the bundled one unless given")
    options = parser.parse_args()
    if len(options.corners) < 6 or len(options.corners) % 2:
        raise SystemExit(f"{len(options.corners)} numbers are no zone; give x and y of three corners or more")
    corners = np.array(options.corners).reshape(-1, 2)
    zone = supervision.PolygonZone(corners, triggering_anchors=[supervision.Position.CENTER])

    pipeline = Pipeline.load(options.model)
    video = cv2.VideoCapture(int(options.source) if options.source.isdecimal() else options.source)
    if not video.isOpened():
        raise SystemExit(f"{options.source}: cannot be opened as a video; give a file, a camera's number or an address")
    seen: set[int] = set()
    most, before = 0, ""
    while (frame := video.read())[0]:
        tracks = pipeline.step(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB))
        inside = zone.trigger(tracks.to_supervision())
        there = [f"{track.class_name} {track.id}" for track, is_in in zip(tracks, inside, strict=True) if is_in]
        names = ", ".join(there)
        if names != before:
            print(f"frame {tracks.frame_index}: {zone.current_count} in the zone{': ' * bool(names)}{names}")
        most, before = max(most, zone.current_count), names
        seen.update(int(number) for number in tracks.ids[inside])
    print(f"{len(seen)} objects in all, at most {most} at a time")


if __name__ == "__main__":
    main()
