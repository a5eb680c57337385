# SPDX-License-Identifier: Apache-2.0
"""Count the objects that cross a line, in both directions, with supervision.

python docs/examples/count_line.py VIDEO.mp4 320 0 320 384

SOURCE is a video file, a camera's number or an address; then the ends of the line, x y x y in pixels. Of a line that is
given from top to bottom, objects that go to the right go "in"; give the other end first to turn that round.
Needs `pip install supervision`; docs/tasks/count.md does it without.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import supervision

from instance_flow import Pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("line", nargs=4, type=int, metavar=("X0", "Y0", "X1", "Y1"))
    parser.add_argument("--model", type=Path, help="the bundled one unless given")
    options = parser.parse_args()
    x0, y0, x1, y1 = options.line
    center = (supervision.Position.CENTER,)  # a corner of the box crosses whenever the object turns
    zone = supervision.LineZone(supervision.Point(x0, y0), supervision.Point(x1, y1), triggering_anchors=center)

    pipeline = Pipeline.load(options.model)
    video = cv2.VideoCapture(int(options.source) if options.source.isdecimal() else options.source)
    if not video.isOpened():
        raise SystemExit(f"{options.source}: cannot be opened as a video; give a file, a camera's number or an address")
    while (frame := video.read())[0]:
        tracks = pipeline.step(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB))
        crossed_in, crossed_out = zone.trigger(tracks.to_supervision())
        for track, goes_in, goes_out in zip(tracks, crossed_in, crossed_out, strict=True):
            if goes_in or goes_out:
                print(f"frame {tracks.frame_index}: {track.class_name} {track.id} went {'in' if goes_in else 'out'}")
    print(f"in {zone.in_count}, out {zone.out_count}")


if __name__ == "__main__":
    main()
