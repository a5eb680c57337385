# SPDX-License-Identifier: Apache-2.0
"""Save a picture of every object when it is seen largest, transparent outside its mask: OUT/ID_CLASS.png.

python docs/examples/save_crops.py VIDEO.mp4 OUT

`instance-flow run VIDEO.mp4 --save crops` saves the best-scored ones without a script.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from instance_flow import Pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--model", type=Path, help="the bundled one unless given")
    options = parser.parse_args()

    pipeline = Pipeline.load(options.model)
    video = cv2.VideoCapture(int(options.source) if options.source.isdecimal() else options.source)
    if not video.isOpened():
        raise SystemExit(f"{options.source}: cannot be opened as a video; give a file, a camera's number or an address")
    options.out.mkdir(parents=True, exist_ok=True)
    largest: dict[int, int] = {}
    while (frame := video.read())[0]:
        for track in pipeline.step(cv2.cvtColor(frame[1], cv2.COLOR_BGR2RGB)):
            if track.area > largest.get(track.id, 0):
                largest[track.id] = track.area
                x0, y0, x1, y1 = map(int, track.box)
                alpha = track.mask[y0:y1, x0:x1, None].astype(np.uint8) * 255
                picture = np.concatenate([frame[1][y0:y1, x0:x1], alpha], 2)
                cv2.imwrite(str(options.out / f"{track.id}_{track.class_name.replace('/', '-')}.png"), picture)
    print(f"{options.out}: {len(largest)} objects")


if __name__ == "__main__":
    main()
