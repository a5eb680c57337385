# SPDX-License-Identifier: Apache-2.0
"""Random messages: whatever comes in, an image of the right shape comes out, or a ValueError."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mutants import FORMATS, damaged, one_of

from instance_flow.formats.image_encodings import ENCODINGS, decode_compressed, decode_raw
from instance_flow.formats.picture_size import picture_size

RAW_CASES, COMPRESSED_CASES = 1500, 400
SIDES = (-1, 0, 1, 2, 3, 4, 7, 16, 65_535, 2**31, 2**32 - 1)
OTHER_ENCODINGS = ("", "8UC2", "32FC1", "64FC4", "RGB8", "jpeg", "bayer_rggb12", "\0", "8UC99999999999", "rgb8 ")
ENDINGS = (".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm", ".gif")
BEGINNINGS = (
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF1234WEBP",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"GIF89a",
    b"P6\n",
)


def raw_message(rng: np.random.Generator) -> tuple[bytes, int, int, int, str, bool]:
    """Mostly small sizes and steps near what they should be, so that many messages are good."""
    encoding = str(one_of(rng, ENCODINGS if rng.random() < 0.9 else OTHER_ENCODINGS))
    height, width = (int(rng.integers(1, 12)) if rng.random() < 0.9 else int(one_of(rng, SIDES)) for _ in range(2))
    step = width * int(rng.integers(1, 9)) + int(rng.integers(-1, 4))
    length = min(max(0, step * height * int(rng.integers(1, 4)) + int(rng.integers(-3, 4))), 5000)
    return rng.bytes(length), height, width, step, encoding, bool(rng.integers(2))


def test_random_raw_messages() -> None:
    rng, answers = np.random.default_rng(0), []
    for _ in range(RAW_CASES):
        message = raw_message(rng)
        try:
            image = decode_raw(*message)
        except ValueError:
            continue
        assert (image.shape, image.dtype) == ((message[1], message[2], 3), np.uint8), message[1:]
        assert image.flags.c_contiguous
        answers.append(message[4])
    assert len(answers) > RAW_CASES / 4
    assert set(answers) == set(ENCODINGS)


def test_random_picture_files(capfd: pytest.CaptureFixture[str]) -> None:
    rng, good = np.random.default_rng(1), 0
    picture = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    files = {ending: cv2.imencode(ending, picture)[1].tobytes() for ending in ENDINGS}
    for _ in range(COMPRESSED_CASES):
        file, format = damaged(rng, files[str(one_of(rng, ENDINGS))]), str(one_of(rng, FORMATS))
        try:
            image = decode_compressed(file, format)
        except ValueError:
            continue
        assert (image.shape, image.dtype) == ((*picture_size(file), 3), np.uint8)
        good += 1
    assert good > COMPRESSED_CASES / 8
    capfd.readouterr()  # what OpenCV says of damaged files


def test_random_bytes() -> None:
    rng = np.random.default_rng(2)
    for _ in range(COMPRESSED_CASES):
        data = bytes(one_of(rng, BEGINNINGS)) + rng.bytes(int(rng.integers(0, 60)))
        with pytest.raises(ValueError, match=r"."):
            decode_compressed(data)
