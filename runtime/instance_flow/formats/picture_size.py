# SPDX-License-Identifier: Apache-2.0
"""The size of a picture file by its header alone, so that a small file with a giant picture costs nothing.

OpenCV takes the memory for all pixels first. Formats are those that cameras, image_transport and data sets use.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from mmap import mmap

FORMATS = "JPEG, PNG, WebP, TIFF, BMP, GIF or PNM"
"""What :func:`picture_size` reads, for messages."""

Size = tuple[int, int]

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))
_START_OF_SCAN = 0xDA
_END_OF_JPEG = b"\xff\xd9"
# What ends the data of a scan: any marker but a restart; 0xFF in data has a 0 behind it, before a marker it fills.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_MOST_SEGMENTS = 10_000
# Cameras write one scan, progressive files about ten. Each goes over all pixels: scans times pixels decide about the
# time, which is some 3 seconds for 2^30.
_MOST_SCANS, _MOST_SCANNED = 32, 2**30
_END_OF_PNG = b"IEND"
# Width and height after "P1" to "P6", between white space and comments, which end at either end of a line. There is but
# one way to read each byte: with two, a file of nothing but spaces takes longer than the universe has.
_PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+(\d{1,9})(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})\s")
_PNM_HEADER = 4096  # bytes, in which both have to stand
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


def picture_size(data: bytes | mmap) -> Size:
    """(height, width) in pixels of a picture file, of its first picture where it holds several.

    Raises ValueError where the bytes are no picture of a known format, for a JPEG of more scans than cameras write, and
    for a JPEG or PNG that is cut off: older versions of OpenCV fill what is missing of them with grey, without a word.
    """
    for signature, read in _READERS:
        if re.match(signature, data, re.DOTALL):
            try:
                return read(data)
            except (struct.error, IndexError) as error:
                raise ValueError(f"{len(data)} bytes of compressed image are not a whole picture") from error
    raise ValueError(f"{len(data)} bytes of compressed image are not a {FORMATS} picture")


def _jpeg(data: bytes | mmap) -> Size:
    """Walk along the segments up to the first scan; within a scan the end marker cannot occur."""
    position, size, frame, components = 2, None, 0, 0
    for _ in range(_MOST_SEGMENTS):
        if data[position] != 0xFF:
            raise ValueError(f"the JPEG of {len(data)} bytes is damaged: no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # a filling byte
            position += 1
            continue
        if marker in _START_OF_FRAME:
            size, frame, components = struct.unpack_from(">HH", data, position + 5), marker, data[position + 9]
        if marker == _START_OF_SCAN:
            break
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    else:
        raise ValueError(f"the JPEG of {len(data)} bytes is damaged: no picture within {_MOST_SEGMENTS} segments")
    if size is None:
        raise ValueError(f"the JPEG of {len(data)} bytes is damaged: it does not say how large it is")
    if data.rfind(_END_OF_JPEG, position) < 0:  # from the end, where it is: of a mapped file little is read
        raise ValueError(f"the JPEG is cut off: {len(data)} bytes without an end marker")
    # A camera's one scan holds all components, and decoders pass over others behind it: there is nothing to count.
    usual = frame in _SEQUENTIAL and data[position + 4] == components
    scans = 1 if usual else _count_scans(data, position)
    if scans > _MOST_SCANS or scans * size[0] * size[1] > max(_MOST_SCANNED, size[0] * size[1]):
        raise ValueError(
            f"the JPEG of {size[1]} x {size[0]} pixels has {scans} scans or more, which would take seconds to decode; "
            "have it written as a baseline JPEG"
        )
    return size[0], size[1]


def _count_scans(data: bytes | mmap, position: int) -> int:
    """Scans from ``position`` on, as a decoder meets them, at most one more than ``_MOST_SCANS``."""
    scans = 0
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(data, position)
        marker = found[1] if found else _END_OF_JPEG[1:]
        if found is None or marker == _END_OF_JPEG[1:]:
            return scans
        scans += marker[0] == _START_OF_SCAN
        if scans > _MOST_SCANS:
            break
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return _MOST_SCANS + 1


def _png(data: bytes | mmap) -> Size:
    """Walk along the chunks: OpenCV takes the memory for as long a chunk as is claimed, up to 4 GB."""
    position, kind = 8, b""
    while kind != _END_OF_PNG:
        if position + 12 > len(data):
            raise ValueError(f"the PNG is cut off: {len(data)} bytes without an end chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
    if position > len(data):
        raise ValueError(f"the PNG is damaged: its last chunk ends after the {len(data)} bytes that there are")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _webp(data: bytes | mmap) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        low, high = struct.unpack_from("<HB", data, 24), struct.unpack_from("<HB", data, 27)
        return high[0] + (high[1] << 16) + 1, low[0] + (low[1] << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _tiff(data: bytes | mmap) -> Size:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    found = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            if tag in found:  # Of two sizes decoders take one or the other.
                raise ValueError(f"the TIFF of {len(data)} bytes is damaged: it says twice how large it is")
            (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    if len(found) < 2:
        raise ValueError(f"the TIFF of {len(data)} bytes is damaged: it does not say how large it is")
    return found[_TIFF_HEIGHT], found[_TIFF_WIDTH]


def _bmp(data: bytes | mmap) -> Size:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(height), width  # rows run upwards unless the height is negative


def _gif(data: bytes | mmap) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def _pnm(data: bytes | mmap) -> Size:
    found = _PNM.match(data, 0, _PNM_HEADER)
    if found is None:
        raise ValueError(f"the PNM of {len(data)} bytes is damaged: it does not say how large it is")
    return int(found[2]), int(found[1])


_READERS: tuple[tuple[bytes, Callable[[bytes | mmap], Size]], ...] = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"RIFF....WEBP", _webp),
    (rb"II\*\0|MM\0\*", _tiff),
    (rb"BM", _bmp),
    (rb"GIF8[79]a", _gif),
    (rb"P[1-6][\s#]", _pnm),
)
