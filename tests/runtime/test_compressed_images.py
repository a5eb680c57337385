# SPDX-License-Identifier: Apache-2.0
"""Picture files as cameras and data sets send them: all kinds, cut off, and of a giant size."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from golden_images import GOLDEN
from numpy.typing import NDArray

from instance_flow.formats.image_encodings import MAX_PIXELS, decode_compressed
from instance_flow.formats.picture_size import picture_size

ENDINGS = (".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm")
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
LOSSLESS_WEBP = (cv2.IMWRITE_WEBP_QUALITY, 101)


def gradient(height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    """A smooth picture (height, width, 3), which survives compression nearly unharmed."""
    y, x = np.mgrid[:height, :width]
    return np.stack([40 + 2 * x, 60 + 3 * y, 200 - x - y], axis=-1).astype(np.uint8)


def encode(pixels: NDArray[Any], ending: str, *parameters: int) -> bytes:
    """A file of grey values, or of channels in the order red, green, blue."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    found, data = cv2.imencode(ending, pixels, parameters)
    assert found
    return data.tobytes()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height: int, width: int, bits: int, rows: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def cmyk_jpeg(inks: tuple[int, int, int, int], size: int = 16) -> bytes:
    """A flat JPEG of four inks, each a scan of its own, taken over from a grey JPEG.

    Inks are stored the other way round, 255 for none, as Adobe began and all follow. Quality 100 divides by 1, so that
    the same table serves all four.
    """
    scans = []
    for ink in inks:
        grey = encode(np.full((size, size), 255 - ink, np.uint8), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100)
        frame, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
        scans.append(grey[scan + 10 : -2])
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3, 4))
    new_frame = b"\xff\xc0" + struct.pack(">HBHHB", 20, 8, size, size, 4) + components
    body = b"".join(
        b"\xff\xda\x00\x08\x01" + bytes([number, 0, 0, 63, 0]) + scan for number, scan in enumerate(scans, start=1)
    )
    return grey[:frame] + new_frame + grey[frame + 13 : scan] + body + b"\xff\xd9"


@pytest.mark.parametrize("size", [(1, 1), (24, 40), (300, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("ending", "parameters"),
    [*((ending, ()) for ending in ENDINGS), (".jpg", PROGRESSIVE), (".webp", LOSSLESS_WEBP)],
    ids=[*ENDINGS, "progressive JPEG", "lossless WebP"],
)
def test_size_is_read_and_colours_kept(ending: str, parameters: tuple[int, ...], size: tuple[int, int]) -> None:
    pixels = gradient(*size)
    data = encode(pixels, ending, *parameters)
    assert picture_size(data) == size
    image = decode_compressed(data)
    assert (image.dtype, image.flags.c_contiguous) == (np.uint8, True)
    assert np.abs(image.astype(int) - pixels).mean() < 3


def test_kinds_of_picture() -> None:
    """Grey, 16 bits, with transparency: the colours are those that the formula gives."""
    grey = gradient()[..., 0]
    deep = np.random.default_rng(0).integers(0, 65536, (6, 8)).astype(np.uint16)
    clear = np.dstack([gradient(), np.full((24, 40), 7, np.uint8)])
    np.testing.assert_array_equal(decode_compressed(encode(grey, ".png")), np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_allclose(decode_compressed(encode(grey, ".jpg"))[..., 1], grey, atol=6)
    np.testing.assert_allclose(decode_compressed(encode(deep, ".png"))[..., 2], deep * (255 / 65535), atol=1.01)
    np.testing.assert_array_equal(decode_compressed(encode(clear, ".png")), gradient())


@pytest.mark.parametrize(
    "inks", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (100, 50, 20, 60)]
)
def test_cmyk_jpeg(inks: tuple[int, int, int, int]) -> None:
    cyan_magenta_yellow, black = np.array(inks[:3]), inks[3]
    expected = (255 - cyan_magenta_yellow) * (255 - black) / 255
    image = decode_compressed(cmyk_jpeg(inks))
    np.testing.assert_allclose(image, np.broadcast_to(expected, (16, 16, 3)), atol=3)


def test_first_picture_of_an_animation() -> None:
    if not hasattr(cv2, "imencodeanimation"):
        pytest.skip("this OpenCV writes no animations")
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(gradient(), cv2.COLOR_RGB2BGR), np.zeros((24, 40, 3), np.uint8)]
    animation.durations = [100, 100]
    for ending in (".png", ".webp", ".gif"):
        _, data = cv2.imencodeanimation(ending, animation)
        image = decode_compressed(data.tobytes())
        assert picture_size(data.tobytes()) == (24, 40)
        assert np.abs(image.astype(int) - gradient()).mean() < 20  # GIF has few colours


def test_exif_does_not_turn_the_pixels() -> None:
    turn = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = encode(gradient(), ".jpg")
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(turn) + 2) + turn + data[2:]
    assert np.asarray(cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)).shape == (40, 24, 3)
    np.testing.assert_array_equal(decode_compressed(turned), decode_compressed(data))


@pytest.mark.parametrize("format", ["bayer_rggb8; jpeg compressed ", "bayer_rggb8; png compressed "])
def test_bayer_pattern_in_a_grey_picture(format: str) -> None:
    """image_transport compresses the pattern as it is, and says so in the format."""
    golden = next(g for g in GOLDEN if g.name == "bayer_rggb8 tight")
    mosaic = np.frombuffer(golden.data, np.uint8).reshape(golden.height, golden.width)
    data = encode(mosaic, ".png")
    golden.check(decode_compressed(data, format))
    as_colours = decode_compressed(encode(gradient(), ".png"), "bayer_rggb8; jpeg compressed bgr8")
    np.testing.assert_array_equal(as_colours, gradient())


@pytest.mark.parametrize("share", [0.999, 0.5, 0.1])
@pytest.mark.parametrize(
    ("ending", "parameters"),
    [*((ending, ()) for ending in ENDINGS), (".jpg", PROGRESSIVE)],
    ids=[*ENDINGS, "progressive JPEG"],
)
def test_cut_off_picture(ending: str, parameters: tuple[int, ...], share: float) -> None:
    data = encode(gradient(240, 100), ending, *parameters)
    with pytest.raises(ValueError, match=r"cut off|damaged|not a"):
        decode_compressed(data[: min(len(data) - 1, int(len(data) * share))])


def test_what_is_cut_off_is_said() -> None:
    jpeg, png_file = encode(gradient(), ".jpg"), encode(gradient(), ".png")
    with pytest.raises(ValueError, match=f"the JPEG is cut off: {len(jpeg) - 2} bytes without an end marker"):
        decode_compressed(jpeg[:-2])
    with pytest.raises(ValueError, match=f"the PNG is cut off: {len(png_file) - 12} bytes without an end chunk"):
        decode_compressed(png_file[:-12])


def test_png_chunk_of_four_gigabytes_is_not_believed() -> None:
    data = encode(gradient(), ".png")
    start = data.index(b"IDAT") - 4
    with pytest.raises(ValueError, match="the PNG is cut off"):
        decode_compressed(data[:start] + b"\xff\xff\xff\xf0" + data[start + 4 :])
    with pytest.raises(ValueError, match="its last chunk ends after"):
        decode_compressed(data[:-12] + b"\xff\xff\xff\xf0" + data[-8:])


def test_bytes_after_the_end_do_no_harm() -> None:
    for ending in (".jpg", ".png"):
        data = encode(gradient(), ending)
        np.testing.assert_array_equal(decode_compressed(data + bytes(512)), decode_compressed(data))


@pytest.mark.parametrize(
    ("data", "format", "message"),
    [
        (b"", "", "0 bytes of compressed image are not a JPEG, PNG, WebP"),
        (b"no picture", "", "10 bytes of compressed image are not a JPEG"),
        (b"\0\0\0\x01\x67", "h264", r"are not a JPEG.* \(its format: h264\)"),
        (b"\xff\xd8\xff\xe0", "", "4 bytes of compressed image are not a whole picture"),
        (b"\xff\xd8\xff\xda\0\x0c", "jpeg", "does not say how large it is"),
        (b"\xff\xd8\xff\xe0\0\x02\0\0\0\0", "jpeg", "no marker at byte 6"),
        (b"BM" + bytes(24), "", "the image is empty"),
        (b"P6" + b" " * 10_000 + b"5", "", "does not say how large it is"),
        (b"P6" + b"#\n " * 10_000 + b"5 5 255", "", "does not say how large it is"),
        (bytes(12) + png(1, 1, 8, b"\0\0"), "16UC1; compressedDepth png", "holds distances.*take the compressed topic"),
    ],
    ids=["nothing", "text", "video", "header only", "no frame", "no marker", "no size", "spaces", "comments", "depth"],
)
def test_no_picture(data: bytes, format: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_compressed(data, format)


def jpeg_of_size(height: int, width: int) -> bytes:
    data = encode(gradient(), ".jpg")
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def webp_of_size(height: int, width: int) -> bytes:
    data = encode(gradient(), ".webp", *LOSSLESS_WEBP)
    (bits,) = struct.unpack_from("<I", data, 21)
    return data[:21] + struct.pack("<I", bits >> 28 << 28 | (height - 1) << 14 | (width - 1)) + data[25:]


@pytest.mark.parametrize(
    "data",
    [
        png(9000, 9000, 1, bytes(9000 * 1126)),
        jpeg_of_size(65000, 65000),
        webp_of_size(16000, 16000),
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 20000, -20000) + bytes(28),
        b"P6 20000 # wide\n20000 255\n" + bytes(10),
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(10),
        b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 256, 4, 1, 20000, 257, 4, 1, 20000),
    ],
    ids=["PNG of 10 kB", "JPEG", "WebP", "BMP", "PPM", "GIF", "TIFF"],
)
def test_giant_picture_is_refused_by_its_header(data: bytes) -> None:
    assert len(data) < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"more than the {MAX_PIXELS} pixels"):
            decode_compressed(data)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def doubled_tiff() -> bytes:
    """A width of 8 and then one of 50,000: decoders take the first or the last."""
    entries = [(256, 3, 1, 8), (256, 3, 1, 50_000), (257, 3, 1, 8)]
    body = b"".join(struct.pack("<HHIHxx", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def test_a_tiff_of_two_widths_is_refused() -> None:
    with pytest.raises(ValueError, match="says twice how large it is"):
        decode_compressed(doubled_tiff())


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_pnm_comment_ends_with_the_line_however_that_ends(end: bytes) -> None:
    image = decode_compressed(b"P6 # 9 9" + end + b"2 1 255\n" + bytes(range(6)))
    assert image.shape == (1, 2, 3)


def with_scans(count: int, size: tuple[int, int] = (24, 40), parameters: tuple[int, int] = PROGRESSIVE) -> bytes:
    """A JPEG of so many scans, the last one again and again; it claims a size."""
    data = encode(gradient(), ".jpg", *parameters)
    frame = next(place for kind in (b"\xff\xc2", b"\xff\xc0") if (place := data.find(kind)) > 0)
    last, scans = data.rindex(b"\xff\xda"), data.count(b"\xff\xda")
    data = data[: frame + 5] + struct.pack(">HH", *size) + data[frame + 9 :]
    # A comment that holds the marker of the end hides no scan behind it, and one that holds that of a scan is none.
    comment = b"\xff\xfe\x00\x06\xff\xd9\xff\xda"
    return data[:last] + comment + data[last:-2] * (count - scans + 1) + b"\xff\xd9"


def one_by_one(count: int) -> bytes:
    """A sequential JPEG whose components have scans of their own, the last one again and again."""
    inks = cmyk_jpeg((1, 2, 3, 4))
    last = inks.rindex(b"\xff\xda")
    return inks[:last] + inks[last:-2] * (count - 3) + b"\xff\xd9"


@pytest.mark.parametrize(
    "data",
    [with_scans(33), with_scans(300), with_scans(32, (8000, 8000)), one_by_one(40)],
    ids=["more than any file", "many", "fewer of a large picture", "sequential, component by component"],
)
def test_a_jpeg_of_many_scans_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"has \d+ scans or more, which would take seconds"):
        decode_compressed(data)


def test_a_jpeg_of_the_usual_scans_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    assert decode_compressed(with_scans(32)).shape == (24, 40, 3)
    # A phone puts a film behind the picture; its bytes are no scans.
    decode_compressed(encode(gradient(), ".jpg") + b"\xff\xda\x00\x02" * 100)
    capfd.readouterr()  # what libjpeg says of the repetitions


def test_scans_behind_that_of_all_components_are_passed_over() -> None:
    """They are not counted, as none is decoded."""
    plain = (cv2.IMWRITE_JPEG_QUALITY, 95)
    many, one = (decode_compressed(with_scans(count, parameters=plain)) for count in (5000, 1))
    np.testing.assert_array_equal(many, one)


def test_a_jpeg_of_nothing_but_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture within 10000 segments"):
        decode_compressed(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 20_000)
