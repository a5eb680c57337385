# SPDX-License-Identifier: Apache-2.0
"""Follow one object by its id: where it is, that it is hidden, and where it comes back.

python docs/examples/follow_object.py VIDEO.mp4 --id 3

Without --id it follows the first object that is found. An object that is hidden keeps its id for `lost_frames` frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from instance_flow import Pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--id", type=int, default=0)
    parser.add_argument("--model", type=Path, help="the bundled one unless given")
    options = parser.parse_args()

    pipeline = Pipeline.load(options.model)
    video = cv2.VideoCapture(int(options.source) if options.source.isdecimal() else options.source)
    if not video.isOpened():
        raise SystemExit(f"{options.source}: cannot be opened as a video; give a file, a camera's number or an address")
    wanted, seen, hidden = options.id, False, 0
    while (frame := video.read())[0]:
        tracks = pipeline.step(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB))
        if not wanted and len(tracks):
            wanted = next(iter(tracks)).id
        if wanted in tracks:
            track = tracks[wanted]
            x, y = track.center
            back = f", back after {hidden} frames" if hidden else ""
            print(f"frame {tracks.frame_index}: {track.class_name} {wanted} is at {x:.0f}, {y:.0f}{back}")
            seen, hidden = True, 0
        elif seen:
            hidden += 1
            if hidden == 1:
                print(f"frame {tracks.frame_index}: {wanted} is not seen")
    if not seen:
        print(f"{options.source}: {f'no object has the id {wanted}' if wanted else 'no object was found'}")


if __name__ == "__main__":
    main()
