# SPDX-License-Identifier: Apache-2.0
"""Bags with depth: tracks in metres, what belongs to an image by stamp and place in the bag, and what goes wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from red_thing import HEIGHT, START, STEP, WIDTH, frames, lines_of

from instance_flow.commands.cli import main
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.rle import encode
from instance_flow.formats.video import open_source
from instance_flow.formats.ytvis import Annotation, Category, GroundTruth, Video, write_ground_truth
from instance_flow.replay import session
from instance_flow.replay.depth import DepthSource
from instance_flow.replay.settings import DepthSettings
from instance_flow.spatial.camera import CameraModel
from instance_flow.structures import SourceError

pytest.importorskip("rosbags")

COUNT = 8
IMAGE, DEPTH, INFO = "/camera/image_raw", "/camera/depth/image_raw", "/camera/camera_info"
FOCAL, SIZE = 100.0, (HEIGHT, WIDTH)
CAMERA = CameraModel(np.array([[FOCAL, 0, 63.5], [0, FOCAL, 47.5], [0, 0, 1]]))
NEAR, WALL = 2.0, 5.0
SPEED = 8 / FOCAL * NEAR * 1e9 / STEP
"""Metres per second of the red square, to the right."""
MS = 10**6

Write = Callable[[BagWriter, int, int], None]


def image(bag: BagWriter, k: int, stamp: int, topic: str = IMAGE) -> None:
    bag.write_image(topic, frames(COUNT)[k], stamp, frame_id="optical")


def millimetres(k: int) -> NDArray[np.uint16]:
    red = frames(COUNT)[k][..., 0] > 200
    return np.where(red, NEAR * 1000, WALL * 1000).astype(np.uint16)


def depth(bag: BagWriter, k: int, stamp: int, late: int = 0, off: int = 0, topic: str = DEPTH) -> None:
    """late: nanoseconds in the bag.   off: nanoseconds of its stamp."""
    bag.write_image(topic, millimetres(k), stamp + off, frame_id="optical", encoding="16UC1", received=stamp + late)


def metres(bag: BagWriter, k: int, stamp: int) -> None:
    bag.depth(DEPTH, (millimetres(k) / 1000).astype(np.float32), stamp, "optical")


def packed(bag: BagWriter, k: int, stamp: int) -> None:
    bag.compressed_depth(f"{DEPTH}/compressedDepth", millimetres(k), stamp, "optical")


def info(bag: BagWriter, _: int, stamp: int, topic: str = INFO, camera: CameraModel = CAMERA) -> None:
    bag.camera_info(topic, camera, SIZE, stamp, "optical")


def at(number: int, write: Write) -> Write:
    """The same for one image only."""
    return lambda bag, k, stamp: write(bag, k, stamp) if k == number else None


def but(number: int, write: Write) -> Write:
    return lambda bag, k, stamp: write(bag, k, stamp) if k != number else None


def shifted(late: int = 0, off: int = 0) -> Write:
    return lambda bag, k, stamp: depth(bag, k, stamp, late, off)


def bag_of(path: Path, *writes: Write, count: int = COUNT) -> Path:
    """What is written for each image, in that order; received times decide in which order it is read."""
    with BagWriter(path) as bag:
        for k in range(count):
            for write in writes:
                write(bag, k, START + k * STEP)
    return path


def run(source: Path, model: Path, out: Path, *options: str) -> int:
    return main(["run", str(source), "--model", str(model), "--out", str(out), "--json", "--no-video", *options])


def rows(out: Path) -> list[dict[str, Any]]:
    return [track for line in lines_of(out / "tracks.jsonl") for track in line["tracks"]]


def place(k: int) -> NDArray[np.float64]:
    column, row = 27.5 + 8 * k, 43.5
    return np.array([(column - 63.5) / FOCAL * NEAR, (row - 47.5) / FOCAL * NEAR, NEAR])


@pytest.mark.parametrize(
    "writes",
    [
        pytest.param([info, depth, image], id="depth before its image"),
        pytest.param([image, depth, info], id="depth and calibration after it"),
        pytest.param([info, metres, image], id="metres"),
        pytest.param([packed, info, image], id="compressed depth"),
        pytest.param([at(0, info), image, shifted(late=1500 * MS)], id="one calibration, depth 1.5 s later"),
        pytest.param([image, info, shifted(off=15 * MS)], id="stamps 15 ms apart"),
        pytest.param([image, shifted(off=-15 * MS), at(0, info)], id="stamps of before"),
        pytest.param([image, depth, at(3, info)], id="calibration that comes midway"),
    ],
)
def test_tracks_are_where_they_were_drawn(
    tmp_path: Path, model: Path, writes: list[Write], capsys: pytest.CaptureFixture[str]
) -> None:
    source = bag_of(tmp_path / "clip.mcap", *writes)
    assert run(source, model, tmp_path / "out", "--depth", "--no-report", "--save", "csv") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames_with_depth"] == COUNT
    assert "depth_problem" not in summary
    found = rows(tmp_path / "out")
    assert [row["spatial_state"] for row in found] == ["measured"] * COUNT
    np.testing.assert_allclose([row["position"] for row in found], [place(k) for k in range(COUNT)], atol=0.03)
    np.testing.assert_allclose(found[-1]["spatial_velocity"], (SPEED, 0, 0), atol=0.1)
    assert np.array(found[-1]["covariance"]).shape == (6, 6)
    np.testing.assert_allclose(found[-1]["extent"][:2], 24 / FOCAL * NEAR, rtol=0.25)
    with (tmp_path / "out" / "tracks.csv").open() as file:
        table = list(csv.DictReader(file))
    places = [[float(row[axis]) for axis in "xyz"] for row in table]
    np.testing.assert_allclose(places, [row["position"] for row in found], atol=1e-4)


def test_without_the_option_nothing_is_in_metres(tmp_path: Path, model: Path) -> None:
    source = bag_of(tmp_path / "clip.mcap", info, depth, image)
    assert run(source, model, tmp_path / "out", "--no-report", "--save", "csv") == 0
    assert not {"position", "spatial_state"} & rows(tmp_path / "out")[0].keys()
    assert (tmp_path / "out" / "tracks.csv").read_text().splitlines()[0].endswith(",distance")


def test_the_report_shows_them_from_above(tmp_path: Path, model: Path) -> None:
    source = bag_of(tmp_path / "clip.mcap", info, depth, image)
    for options, there in (["--depth"], True), ([], False):
        assert run(source, model, tmp_path / "out", *options) == 0
        assert ("From above, in metres" in (tmp_path / "out" / "report.html").read_text()) is there


def moved(x: float, y: float = 0.0, z: float = 0.0) -> NDArray[np.float64]:
    transform = np.eye(4)
    transform[:3, 3] = x, y, z
    return transform


def world(late: int = 0, frame: str = "optical") -> Write:
    """The camera moves forward by 0.1 m per frame."""

    def write(bag: BagWriter, k: int, stamp: int) -> None:
        bag.transforms("/tf", [("map", frame, moved(7, 0, 0.1 * k))], stamp + late)

    return write


def test_a_target_frame(tmp_path: Path, model: Path) -> None:
    """Its transforms are recorded after the images; between two stamps they are interpolated."""
    source = bag_of(tmp_path / "clip.mcap", image, depth, info, world(STEP // 2), at(0, world(-STEP // 2)))
    assert run(source, model, tmp_path / "out", "--depth", "--target-frame", "map", "--no-report") == 0
    found = rows(tmp_path / "out")
    expected = [place(k) + np.array([7, 0, 0.1 * max(k - 0.5, 0)]) for k in range(COUNT)]
    np.testing.assert_allclose([row["position"] for row in found], expected, atol=0.04)
    from rosbags.highlevel import AnyReader

    with AnyReader([tmp_path / "out" / "tracks.mcap"]) as reader:
        said: list[Any] = [
            reader.deserialize(data, c.msgtype) for c, _, data in reader.messages() if "instances" in c.topic
        ]
    assert {message.spatial_frame_id for message in said} == {"map"}


def test_depth_of_a_camera_of_its_own(tmp_path: Path, model: Path) -> None:
    """It is 0.1 m to the left of the other, and sees half as many pixels."""
    lens = CameraModel(np.array([[FOCAL / 2, 0, 31.5], [0, FOCAL / 2, 23.5], [0, 0, 1]]))

    def other(bag: BagWriter, k: int, stamp: int) -> None:
        # It sees the red square shifted by the parallax of 0.1 m at its depth.
        shift = round(0.1 / NEAR * FOCAL)
        seen = np.roll(millimetres(k), shift, 1)[::2, ::2]
        bag.depth(DEPTH, np.ascontiguousarray(seen), stamp, "depth_optical")
        bag.camera_info("/camera/depth/camera_info", lens, (48, 64), stamp, "depth_optical")
        if k == 0:
            bag.transforms("/tf_static", [("optical", "depth_optical", moved(-0.1))], stamp)

    source = bag_of(tmp_path / "clip.mcap", image, other, info)
    assert run(source, model, tmp_path / "out", "--depth", "--depth-unregistered", "--no-report") == 0
    found = rows(tmp_path / "out")
    np.testing.assert_allclose([row["position"] for row in found], [place(k) for k in range(COUNT)], atol=0.08)


def damaged(bag: BagWriter, _: int, stamp: int) -> None:
    bag.write_serialized(DEPTH, "sensor_msgs/msg/Image", b"\0\1\0\0rubbish", stamp)


def small(bag: BagWriter, k: int, stamp: int) -> None:
    bag.depth(DEPTH, millimetres(k)[:48], stamp, "optical")


def eight_bits(bag: BagWriter, k: int, stamp: int) -> None:
    bag.write_image(DEPTH, millimetres(k).astype(np.uint8), stamp, encoding="mono8")


def odd(bag: BagWriter, _: int, stamp: int) -> None:
    bag.write_message(DEPTH, bag.header(stamp, "optical"), stamp)


def slowly(write: Write) -> Write:
    """An image in a second."""
    return lambda bag, k, stamp: write(bag, k, START + (stamp - START) * 10)


def bent(bag: BagWriter, _: int, stamp: int) -> None:
    """Of a frame that nobody needs."""
    bag.transforms("/tf", [("optical", "lid", np.full((4, 4), np.nan))], stamp)


def uncalibrated(bag: BagWriter, k: int, stamp: int) -> None:
    info(bag, k, stamp, camera=CameraModel(np.zeros((3, 3))))


@pytest.mark.parametrize(
    ("writes", "options", "with_depth", "words"),
    [
        pytest.param(
            [info, image, shifted(off=300 * MS)], ["--set", "depth_tolerance=0.05"],
            COUNT - 3, "", id="a shift that is whole frames",
        ),
        pytest.param(
            [info, image, shifted(off=50 * MS)], [], 0,
            "no depth image is within depth_tolerance (0.02 s) of an image: the median difference of their stamps is",
            id="stamps that never pair",
        ),
        pytest.param(
            [info, image, at(0, depth), shifted(late=3000 * MS)], [], 1,
            "(median) after its image was answered; a replay looks ahead for 2 s, so record both at the same time",
            id="recorded too late",
        ),
        pytest.param(
            [info, image, but(3, depth)], [], COUNT - 1,
            "1 of 8 images have no depth image within depth_tolerance (0.02 s)", id="one is missing",
        ),
        pytest.param(
            [info, image, but(3, depth), at(3, damaged)], [], COUNT - 1,
            "a message of /camera/depth/image_raw cannot be read: its 11 bytes are no whole", id="one is damaged",
        ),
        pytest.param(
            [info, image, depth, at(3, odd)], [], COUNT,
            f"a message of {DEPTH} cannot be read: it is a std_msgs/msg/Header", id="another type beside",
        ),
        pytest.param(
            [slowly(image), slowly(depth), slowly(at(COUNT - 1, info))], [], COUNT,
            "the calibration on /camera/camera_info begins more than 2 s after the images", id="late calibration",
        ),
        pytest.param(
            [info, image, depth, world(), at(1, bent)], ["--target-frame", "map"], COUNT, "", id="a wrong transform"
        ),
        pytest.param([info, small, image], [], COUNT, "has 128 x 48 pixels and the image 128 x 96", id="cut off"),
        pytest.param(
            [info, eight_bits, image], ["--depth", DEPTH], COUNT, "a depth image of encoding 'mono8'", id="no depth"
        ),
        pytest.param([uncalibrated, depth, image], [], COUNT, "the focal lengths 0 and 0", id="not calibrated"),
        pytest.param(
            [info, depth, image, world()], ["--target-frame", "odom"], COUNT,
            "no transform of the frame 'odom' was received", id="no such frame",
        ),
        pytest.param(
            [info, depth, image, at(0, world())], ["--target-frame", "map"], COUNT,
            "after the newest transform of 'optical'", id="transforms end early",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_depth_changes_nothing_in_pixels(
    tmp_path: Path,
    model: Path,
    writes: list[Write],
    options: list[str],
    with_depth: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = bag_of(tmp_path / "clip.mcap", *writes)
    assert run(source, model, tmp_path / "plain", "--no-report", "--topic", IMAGE) == 0
    capsys.readouterr()
    assert run(source, model, tmp_path / "out", "--no-report", "--topic", IMAGE, "--depth", *options) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["frames_with_depth"] == with_depth
    assert words in summary.get("depth_problem", "")
    assert bool(words) == ("depth_problem" in summary) or not words
    assert (tmp_path / "plain" / "results.json").read_bytes() == (tmp_path / "out" / "results.json").read_bytes()


def to(write: Any, topic: str) -> Write:
    return lambda bag, k, stamp: write(bag, k, stamp, topic=topic)


ALIGNED = "/camera/aligned_depth_to_color/image_raw"


@pytest.mark.parametrize(
    ("writes", "settings", "found"),
    [
        ([image, depth, info], {}, (DEPTH, INFO)),
        ([image, depth, packed, info], {}, (DEPTH, INFO)),
        ([image, packed, info], {}, (f"{DEPTH}/compressedDepth", INFO)),
        ([image, depth, to(depth, ALIGNED), info], {}, (ALIGNED, INFO)),
        ([image, depth, to(depth, "/rear/depth"), info], {}, (DEPTH, INFO)),
        ([image, to(depth, "/labels"), to(depth, "/d/depth"), info], {}, ("/d/depth", INFO)),
        ([image, to(depth, "/range"), info], {"topic": "/range"}, ("/range", INFO)),
        ([image, depth, to(info, "/calibration")], {"camera_info": "/calibration"}, (DEPTH, "/calibration")),
    ],
    ids=["beside", "raw before packed", "packed", "aligned", "nearest", "by name", "named", "named calibration"],
)
def test_topics_are_found(
    tmp_path: Path, writes: list[Write], settings: dict[str, Any], found: tuple[str, str]
) -> None:
    source = bag_of(tmp_path / "clip.mcap", *writes, count=2)
    (topics,) = DepthSource(open_source(source), source, DepthSettings(**settings)).topics
    assert (topics.depth, topics.camera_info) == found


def test_calibrations_of_two_cameras_in_one_place(tmp_path: Path) -> None:
    """That of the depth camera is below its topic then, as the node has it; never that of the images."""
    writes = [image, to(depth, "/camera/depth"), info, world()]
    source = bag_of(tmp_path / "one.mcap", *writes, count=1)
    with pytest.raises(
        SourceError, match=r"beside /camera/depth, is expected on /camera/depth/camera_info, which is not"
    ):
        DepthSource(open_source(source, IMAGE), source, DepthSettings(registered=False))
    source = bag_of(tmp_path / "two.mcap", *writes, to(info, "/camera/depth/camera_info"), count=1)
    (topics,) = DepthSource(open_source(source, IMAGE), source, DepthSettings(registered=False)).topics
    assert (topics.camera_info, topics.depth_info) == (INFO, "/camera/depth/camera_info")


@pytest.mark.parametrize(
    ("writes", "options", "words"),
    [
        ([image, info], ["--depth"], "has no topic that is depth by its name and type; name it by --depth TOPIC"),
        (
            [image, info, depth, to(depth, "/camera/depth/other")],
            ["--depth"],
            "several topics of depth that may belong to /camera/image_raw; choose one by --depth TOPIC, after SOURCE: "
            "/camera/depth/image_raw, /camera/depth/other",
        ),
        ([image, info, depth], ["--depth", "/no"], "topic /no is not in the bag; topics that may be meant: " + DEPTH),
        ([image, info, depth], ["--depth", INFO], f"topic {INFO} holds sensor_msgs/msg/CameraInfo, not depth images"),
        ([image, info, depth], ["--depth", IMAGE], f"topic {IMAGE} is that of the images"),
        (
            [image, depth, to(info, "/calibration")],
            ["--depth"],
            "is expected on /camera/camera_info, which is not in the bag; name its topic by --camera-info TOPIC; "
            "topics of CameraInfo: /calibration",
        ),
        (
            [image, info, depth],
            ["--depth", "--depth-unregistered"],
            "has no transforms (messages on /tf or /tf_static)",
        ),
        ([image, info, depth], ["--depth", "--target-frame", "odom"], "has no transforms"),
        (
            [image, info, depth, world()],
            ["--depth", "--depth-unregistered"],
            "of the depth camera, beside /camera/depth/image_raw, is expected on /camera/depth/camera_info, which",
        ),
        (
            [image, to(image, "/rear/image_raw"), info, to(info, "/rear/camera_info"), depth],
            ["--depth", "--all-topics"],
            "would be the depth of both /camera/image_raw and /rear/image_raw",
        ),
        ([image, info, depth], ["--target-frame", "odom"], "--target-frame is about tracks in metres, so it needs"),
        ([image, info, depth], ["--set", "max_depth=3"], "--set max_depth=3 is about tracks in metres, so it needs"),
        ([image, info, depth], ["--depth", "--set", "max_depth=x"], "setting max_depth needs a number, not 'x'"),
        ([image, info, depth], ["--depth", "--set", "max_depth=-3"], "max_depth is -3.0; it must be a number from"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) and isinstance(value[0], str) else "",
)
def test_what_cannot_be_meant_is_said(
    tmp_path: Path, model: Path, writes: list[Write], options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bag_of(tmp_path / "clip.mcap", *writes, count=2)
    topics = [] if "--all-topics" in options else ["--topic", IMAGE]
    assert run(source, model, tmp_path / "out", *topics, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_depth_is_read_of_bags_alone(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), frames(1)[0])
    assert run(tmp_path / "a.png", model, tmp_path / "out", "--depth") == 2
    assert "--depth reads the depth that is recorded in a bag, but" in capsys.readouterr().err


def test_several_cameras_have_each_their_own(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [to(image, "/rear/image_raw"), to(depth, "/rear/depth/image_raw"), to(info, "/rear/camera_info")]
    source = bag_of(tmp_path / "two.mcap", image, depth, info, *others)
    assert run(source, model, tmp_path / "out", "--all-topics", "--depth", "--no-report") == 0
    cameras = json.loads(capsys.readouterr().out)["cameras"]
    assert {name: camera["depth_topic"] for name, camera in cameras.items()} == {
        "camera": DEPTH,
        "rear": "/rear/depth/image_raw",
    }
    for name in cameras:
        assert {row["spatial_state"] for row in rows(tmp_path / "out" / name)} == {"measured"}


def test_a_stopped_run_goes_on_in_metres(tmp_path: Path, model: Path) -> None:
    source = bag_of(tmp_path / "clip.mcap", image, depth, info, world())
    options = ["--depth", "--target-frame", "map", "--no-report"]
    assert run(source, model, tmp_path / "whole", *options) == 0
    assert run(source, model, tmp_path / "other", "--depth", "--no-report", "--max-frames", "4") == 0
    calls = iter(range(100))
    with pytest.MonkeyPatch.context() as patch:
        real = session.run

        def stopping(*arguments: Any, **named: Any) -> None:
            real(*arguments, **{**named, "stopped": lambda: next(calls) >= 3})

        patch.setattr(session, "run", stopping)
        assert run(source, model, tmp_path / "out", *options) == 0
    assert len(lines_of(tmp_path / "out" / "tracks.jsonl")) == 4
    assert run(source, model, tmp_path / "out", *options) == 0
    for name in ("tracks.jsonl", "results.json", "tracks.mcap"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_depth_of_a_recording_that_loops(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Longer than what is kept of depth, and with each depth behind its image."""
    long, loops = 20, 3
    with BagWriter(tmp_path / "loop.mcap") as bag:
        info(bag, 0, START)
        for k in range(long * loops):
            stamp, received = START + k % long * STEP, START + k * STEP
            bag.write_image(IMAGE, frames(COUNT)[k % COUNT], stamp, frame_id="optical", received=received)
            bag.write_image(DEPTH, millimetres(k % COUNT), stamp, encoding="16UC1", received=received + MS)
    assert run(tmp_path / "loop.mcap", model, tmp_path / "out", "--depth", "--no-report") == 0
    assert json.loads(capsys.readouterr().out)["frames_with_depth"] == long * loops
    assert {row["spatial_state"] for row in rows(tmp_path / "out")} == {"measured"}


def test_as_a_slower_machine(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bag_of(tmp_path / "clip.mcap", image, depth, info)
    assert run(source, model, tmp_path / "out", "--depth", "--as-live", "5") == 0
    summary = json.loads(capsys.readouterr().out)
    assert 0 < summary["frames"] == summary["frames_with_depth"] < COUNT
    assert {row["spatial_state"] for row in rows(tmp_path / "out")} == {"measured"}


def test_images_whose_depth_never_comes_are_not_all_held(tmp_path: Path) -> None:
    """However fast they come; and all of them come out, in order."""
    with BagWriter(tmp_path / "fast.mcap") as bag:
        picture = np.zeros((2, 2, 3), np.uint8)
        info(bag, 0, START)
        bag.depth(DEPTH, np.ones((2, 2), np.uint16), START)
        for k in range(300):
            bag.write_image(IMAGE, picture, START + (k + 1) * MS)
    source = DepthSource(open_source(tmp_path / "fast.mcap", IMAGE), None, DepthSettings())
    read: list[int] = []
    images: Any = source._source.images
    real = images.messages

    def counting(beside: Any) -> Any:
        for one in real(beside):
            read.append(one.number)
            yield one

    images.messages = counting
    ahead = [len([n for n in read if n >= 0]) - frame.number for frame in source.frames(lambda *_: None)]
    assert len(ahead) == 300
    assert max(ahead) <= 66


def test_a_caller_gets_the_same_error(tmp_path: Path) -> None:
    source = bag_of(tmp_path / "clip.mcap", image, info, count=1)
    with pytest.raises(SourceError, match="no topic that is depth"):
        DepthSource(open_source(source), source, DepthSettings())


def test_bags_are_measured_in_metres(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In processes of their own; one file of evaluate-bags, or of a single run."""
    bags, out = tmp_path / "bags", tmp_path / "out"
    bags.mkdir()
    masks = [encode((picture[..., 0] > 200).astype(np.uint8)) for picture in frames(COUNT)]
    names = ("a", "b")
    videos = [
        Video(k, HEIGHT, WIDTH, COUNT, tuple(f"{name}/{n}.jpg" for n in range(COUNT)))
        for k, name in enumerate(names, 1)
    ]
    annotations = tuple(Annotation(video.id, video.id, 1, masks) for video in videos)
    write_ground_truth(tmp_path / "truth.json", GroundTruth(tuple(videos), (Category(1, "red"),), annotations, ""))
    moving = {"position": [0, 0, 0], "velocity": [SPEED, 0, 0]}
    for name, error in zip(names, (0.1, 0.3), strict=True):
        bag_of(bags / f"{name}.mcap", image, depth, info)
        rows = [
            {"stamp": START + k * STEP, "pose": np.eye(4).tolist(), "objects": [
                {"camera": moving, "world": moving, "surface": (place(k) + np.array([0, 0, error])).tolist()}
            ]}
            for k in range(COUNT)
        ]  # fmt: skip
        lens = {"matrix": CAMERA.matrix.tolist(), "distortion": []}
        names_of = {"camera": "optical", "world": "map"}
        (tmp_path / f"{name}.json").write_text(json.dumps({"frame_ids": names_of, "camera": lens, "frames": rows}))
    command = ["evaluate-bags", str(tmp_path / "truth.json"), str(bags), "--model", str(model), "--out", str(out)]
    truth = ["--spatial-truth", str(tmp_path)]
    assert main([*command, *truth]) == 2
    assert "--spatial-truth measures tracks in metres, so it needs --depth" in capsys.readouterr().err
    assert main([*command, "--depth", "--spatial-truth", str(bags)]) == 2
    assert "a.json: there is no such file, but --spatial-truth needs one of each bag" in capsys.readouterr().err

    (bags / "a.json").write_text("[]")
    (bags / "b.json").write_text("[]")
    assert main([*command, "--depth", "--spatial-truth", str(bags)]) == 2
    assert "a.json: is not the truth of a scene with depth" in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())

    assert main([*command, "--depth", "--jobs", "2", *truth]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines if line[:1] == ["position"]] == [["position", "16", "of", "16"]]
    found = json.loads((out / "evaluation.json").read_text())["in_metres"]
    np.testing.assert_allclose((found["position_median"], found["position_p90"]), (0.2, 0.3), atol=0.02)
    assert found["velocity_median"] < 0.2

    results = out / "a" / "results.json"
    assert (
        main(["evaluate", str(tmp_path / "truth.json"), str(results), "--spatial-truth", str(tmp_path / "a.json")]) == 0
    )
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("position")]
    assert line.split()[:4] == ["position", "8", "of", "8"]
    assert float(line.split()[4]) == pytest.approx(0.1, abs=0.02)
