# SPDX-License-Identifier: Apache-2.0
"""How long does an image message take to become RGB? Median milliseconds, one thread of OpenCV.

    python bench/decoding.py        # --rounds 50

Raw images once tight and once with 64 bytes of padding after each row; compressed ones of a smooth picture with noise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from instance_flow.formats.image_encodings import ENCODINGS, decode_compressed, decode_raw
from instance_flow.structures import Image

SIZES = ((480, 640), (720, 1280))
PADDINGS = (0, 64)
COMPRESSED = (".jpg", ".png", ".webp")


def bytes_per_pixel(encoding: str) -> int:
    """Bytes from one pixel of a row to the next; of the luma where it stands alone."""
    size = 2 if encoding.endswith("16") or encoding.startswith("16") else 1
    if encoding.startswith(("rgba", "bgra")) or encoding.endswith("C4"):
        return 4 * size
    if encoding.startswith(("rgb", "bgr")) or encoding.endswith("C3"):
        return 3 * size
    return 2 if encoding in ("uyvy", "yuv422", "yuyv", "yuv422_yuy2") else size


def rows_of_luma(encoding: str, height: int) -> int:
    """Length of the data in steps."""
    return {"nv12": height * 3 // 2, "nv21": height * 3 // 2, "nv24": height * 3}.get(encoding, height)


def milliseconds(decode: Callable[[], Image], rounds: int) -> float:
    """Median of some calls after one that does not count."""
    decode()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        decode()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def raw_case(encoding: str, height: int, width: int, padding: int) -> Callable[[], Image]:
    """A call that decodes noise."""
    step = width * bytes_per_pixel(encoding) + padding
    data = np.random.default_rng(0).bytes(rows_of_luma(encoding, height) * step)
    return lambda: decode_raw(data, height, width, step, encoding)


def compressed_case(ending: str, height: int, width: int) -> Callable[[], Image]:
    """A call that decodes a picture."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    _, data = cv2.imencode(ending, cv2.GaussianBlur(noise, (0, 0), 3))
    return lambda: decode_compressed(data)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    columns = [f"{width}x{height}{' padded' * bool(padding)}" for height, width in SIZES for padding in PADDINGS]
    print("| encoding | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for encoding in ENCODINGS:
        cases = [raw_case(encoding, *size, padding) for size in SIZES for padding in PADDINGS]
        print(f"| {encoding} | " + " | ".join(f"{milliseconds(case, rounds):.3f}" for case in cases) + " |")
    for ending in COMPRESSED:
        tight = [milliseconds(compressed_case(ending, *size), rounds) for size in SIZES]
        print(f"| {ending} | " + " |  | ".join(f"{value:.3f}" for value in tight) + " |  |")


if __name__ == "__main__":
    main()
