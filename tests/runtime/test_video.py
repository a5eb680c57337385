# SPDX-License-Identifier: Apache-2.0
"""Frames out of real videos, pictures and bags, and videos written and read again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from full_disk import files_of_at_most
from numpy.typing import NDArray

from instance_flow.formats import picture_files
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.video import PLAYBACK_RATE, open_source
from instance_flow.formats.video_writer import VideoWriter
from instance_flow.structures import InstanceFlowError, SourceError


def shades(count: int, height: int = 32, width: int = 48) -> list[NDArray[np.uint8]]:
    """Frames of one colour each, (height, width, 3): red rises, green falls, blue stays."""
    steps = np.linspace(40, 200, count).astype(np.uint8)
    return [np.full((height, width, 3), (step, 240 - step, 90), np.uint8) for step in steps]


def write_video(path: Path, frames: list[NDArray[np.uint8]], rate: float = 25.0) -> Path:
    with VideoWriter(path, rate) as video:
        for frame in frames:
            video.write(frame)
    return path


def write_picture(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.mark.parametrize("rate", [5.0, 25.0, 29.97, 123.456], ids=str)
def test_a_video_comes_back(tmp_path: Path, rate: float) -> None:
    frames = shades(8)
    source = open_source(write_video(tmp_path / "clip.mp4", frames, rate))
    assert (source.name, source.length) == ("clip", 8)
    assert source.rate == pytest.approx(rate, abs=0.01)
    for _ in range(2):  # as often as wanted
        read = list(source)
        np.testing.assert_allclose([f.image.mean((0, 1)) for f in read], [f[0, 0] for f in frames], atol=4)
        stamps = [f.stamp for f in read if f.stamp is not None]
        np.testing.assert_allclose(stamps, np.arange(8) / rate * 1e9, atol=1e-3 * 1e9 / rate)
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(("height", "width"), [(33, 48), (32, 49), (33, 49)], ids=["height", "width", "both"])
def test_odd_sides_are_made_even_by_one_more_line(tmp_path: Path, height: int, width: int) -> None:
    (read,) = open_source(write_video(tmp_path / "odd.mp4", shades(1, height, width)))
    assert read.image.shape == (height + height % 2, width + width % 2, 3)
    np.testing.assert_allclose(read.image, np.broadcast_to(shades(1)[0][0, 0], read.image.shape), atol=4)


@pytest.mark.parametrize(("asked", "written"), [(0.1, 1.0), (1e9, 240.0)], ids=["too slow", "too fast"])
def test_rates_are_kept_within_what_players_take(tmp_path: Path, asked: float, written: float) -> None:
    assert open_source(write_video(tmp_path / "clip.mp4", shades(2), asked)).rate == pytest.approx(written)


def test_without_frames_there_is_no_video(tmp_path: Path) -> None:
    write_video(tmp_path / "none.mp4", [])
    assert list(tmp_path.iterdir()) == []


def write_and_fail(path: Path, error: BaseException) -> None:
    with VideoWriter(path, 10) as video:
        video.write(shades(1)[0])
        raise error


def test_an_old_video_outlives_a_failure(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", shades(3))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(path, KeyboardInterrupt())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_all_frames_of_a_video_have_one_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a frame of 48 x 30 does not fit a video of 48 x 32"):
        write_video(tmp_path / "clip.mp4", [*shades(1), *shades(1, height=30)])


def test_a_folder_of_pictures_in_natural_order(tmp_path: Path) -> None:
    frames = shades(3)
    for name, frame in zip(("9.png", "10.PNG", "frame 2.bmp"), frames, strict=True):
        write_picture(tmp_path / "clip" / name.lower(), frame).rename(tmp_path / "clip" / name)
    (tmp_path / "clip" / "._9.png").write_bytes(b"what some file systems leave")
    (tmp_path / "clip" / "notes.txt").write_text("no picture")
    source = open_source(tmp_path / "clip")
    assert (source.name, source.length, source.rate) == ("clip", 3, PLAYBACK_RATE)
    read = list(source)
    np.testing.assert_array_equal([frame.image for frame in read], frames)
    assert [frame.name for frame in read] == ["9.png", "10.PNG", "frame 2.bmp"]
    assert {frame.stamp for frame in read} == {None}


def test_one_picture(tmp_path: Path) -> None:
    source = open_source(write_picture(tmp_path / "one.png", shades(1)[0]))
    (read,) = source
    assert (source.name, source.length, read.name) == ("one", 1, "one.png")
    np.testing.assert_array_equal(read.image, shades(1)[0])


def write_pages(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    pictures = [frame[..., ::-1] for frame in frames]
    if path.suffix == ".tiff":
        cv2.imwritemulti(str(path), pictures)
    else:
        animation = cv2.Animation()
        animation.frames, animation.durations = pictures, [40] * len(pictures)
        cv2.imwriteanimation(str(path), animation)
    return path


@pytest.mark.parametrize("ending", [".tiff", ".webp", ".png"])
def test_all_pages_of_a_picture_are_read(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "_BLOCK", 2 * 32 * 48)  # pages come in several blocks, the last of one
    frames = shades(5)
    path = write_pages(tmp_path / f"seq{ending}", frames)
    source = open_source(path)
    read = list(source)
    assert source.length == 5
    np.testing.assert_allclose([f.image.mean((0, 1)) for f in read], [f[0, 0] for f in frames], atol=2)
    assert [(f.name, f.number) for f in read] == [(f"seq{ending}#{n}", n) for n in range(5)]
    times = [None] * 5 if ending == ".tiff" else [n * 40_000_000 for n in range(5)]
    assert [f.stamp for f in read] == times
    assert source.rate == (PLAYBACK_RATE if ending == ".tiff" else 25.0)
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / path.name)
    write_picture(folder / "a.png", frames[0])
    mixed = open_source(folder)
    assert [(f.number, f.stamp) for f in mixed] == [(n, None) for n in range(6)]
    assert mixed.length == 6


def test_pages_that_are_damaged_are_refused_one_by_one(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "seq.png", shades(5, 64, 64))
    data = bytearray(path.read_bytes())
    fourth = [at.start() for at in re.finditer(b"fcTL", data)][3]
    data[fourth + 8 : fourth + 12] = b"\0\0\1\0"  # wider than the picture that it is a part of
    path.write_bytes(data)
    refused: list[tuple[int, str]] = []
    read = list(open_source(path).frames(lambda _camera, number, reason: refused.append((number, reason))))
    assert read
    assert [f.number for f in read] + [number for number, _ in refused] == list(range(5))
    assert refused
    assert all("seq.png: cannot be read as a picture: " in reason for _, reason in refused)


def test_a_folder_says_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("1.jpg", "2.jpg", "2.png", "3.png", "3_mask.png", "4_mask.png"):
        write_picture(tmp_path / name, shades(1)[0])
    for name in ("a.heic", "b.HEIC", "README"):
        (tmp_path / name).write_text("")
    assert [f.name for f in open_source(tmp_path)] == ["1.jpg", "2.jpg", "3.png", "4_mask.png"]
    (said,) = caplog.messages
    assert "4 pictures are read; left out are 2 .heic, 1 without an ending, 2 masks of pictures beside" in said


def test_a_container_that_counts_milliseconds_is_played_at_its_real_rate(tmp_path: Path) -> None:
    """As browsers record: no rate, which is taken for 1000 frames per second, and a length reckoned from that."""
    path = tmp_path / "screen.mkv"
    writer = cv2.VideoWriter(
        *(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 1000.0, (48, 32)),
        [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1],
    )
    for number, frame in enumerate(shades(12)):
        writer.set(cv2.VIDEOWRITER_PROP_PTS, 40 * number)
        writer.write(cv2.imencode(".jpg", frame)[1])
    writer.release()
    source = open_source(path)
    assert (source.rate, source.length) == (25.0, None)
    assert [f.stamp for f in source] == [40_000_000 * number for number in range(12)]


@pytest.mark.parametrize(("ending", "code"), [(".mjpeg", "MJPG"), (".m1v", "PIM1"), (".m2v", "MPG2")])
def test_a_stream_without_a_container_has_no_times(tmp_path: Path, ending: str, code: str) -> None:
    path = tmp_path / f"raw{ending}"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), 25.0, (48, 32))
    for frame in shades(6):
        writer.write(frame)
    writer.release()
    assert [f.stamp for f in open_source(path)] == [None] * 6


@pytest.mark.parametrize("name", ["drive.mcap", "drive.db3", "drive"])
def test_a_bag(tmp_path: Path, name: str) -> None:
    pytest.importorskip("rosbags")
    with BagWriter(tmp_path / name) as bag:
        for number, frame in enumerate(shades(3)):
            bag.write_image("/camera", frame, 10**18 + number * 50_000_000, frame_id="optical")
    for topic in (None, "/camera"):
        source = open_source(tmp_path / name, topic)
        assert (source.name, source.length, source.rate) == ("drive", 3, 20.0)
        read = list(source)
        np.testing.assert_array_equal([frame.image for frame in read], shades(3))
        assert [frame.stamp for frame in read] == [10**18 + number * 50_000_000 for number in range(3)]
        assert {frame.frame_id for frame in read} == {"optical"}


def make_text(path: Path) -> Path:
    path.write_text("plain text")
    return path


def make_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def make_folder(path: Path) -> Path:
    (path / "clip").mkdir(parents=True)
    return path


def make_unfinished_video(path: Path) -> Path:
    """A recorder that died before it wrote the index."""
    write_video(path, shades(4))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    return path


def make_cut_off_video(path: Path) -> Path:
    write_video(path, shades(4))
    path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.mp4", lambda path: path, "no such file or folder"),
        ("text.mp4", make_text, "cannot be read as a video; expected a video file, a picture, a folder"),
        ("text.txt", make_text, "cannot be read as a video"),
        ("empty.mp4", make_empty, "cannot be read as a video"),
        ("cut.mp4", make_cut_off_video, "cannot be read as a video"),
        ("dead.mp4", make_unfinished_video, r"was not finished: an MP4 file without its index \(moov\)"),
        ("text.png", make_text, "cannot be read as a picture: 10 bytes of compressed image"),
        ("folders", make_folder, "holds no pictures .* and is not a bag folder; it holds 1 folders, so name one"),
        ("text.mcap", make_text, "cannot be read as a ROS 2 bag"),
    ],
    ids=[
        "nothing there",
        "text as video",
        "text",
        "empty video",
        "video cut off",
        "video without its index",
        "text as picture",
        "folders",
        "bag",
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path / name)
    with pytest.raises(SourceError, match=message) as caught:
        list(open_source(path))
    assert str(path) in str(caught.value)


def test_a_topic_belongs_to_a_bag(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", shades(1))
    with pytest.raises(ValueError, match="is not a bag, so it has no topic /camera"):
        open_source(path, "/camera")


NOT_UTF_8 = os.fsdecode(b"clip \xff.mp4")


@pytest.mark.parametrize(
    "use",
    [lambda path: VideoWriter(path, 10), lambda path: path.touch() or open_source(path)],
    ids=["written", "read"],
)
def test_a_name_on_which_opencv_would_crash_is_refused(tmp_path: Path, use: Callable[[Path], Any]) -> None:
    with pytest.raises(SourceError, match="this name is not UTF-8"):
        use(tmp_path / NOT_UTF_8)


@pytest.mark.parametrize("missing", [1.0, 0.5, 0.0], ids=["all", "half of the frames", "the index at the end"])
def test_a_full_disk_leaves_no_video(tmp_path: Path, missing: float) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(8)]
    size = write_video(tmp_path / "whole.mp4", noise).stat().st_size
    (tmp_path / "clip.mp4").write_text("the one before")
    full = pytest.raises(InstanceFlowError, match=r"clip\.mp4: .*; is the disk full")
    with files_of_at_most(int((size - 200) * (1 - missing))), full:
        write_video(tmp_path / "clip.mp4", noise)
    assert (tmp_path / "clip.mp4").read_text() == "the one before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mp4", "whole.mp4"]


def test_a_name_with_colons_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_video(Path("2026-01-26T20:57:04Z.mp4"), shades(3))
    assert len(list(open_source(path))) == 3
