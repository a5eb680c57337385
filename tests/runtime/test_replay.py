# SPDX-License-Identifier: Apache-2.0
"""Bags run into folders: several cameras, the bag of the node's messages, frames that break the stream or are bad."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import files_of_at_most
from numpy.typing import NDArray
from red_thing import START, STEP, frames, lines_of, write_source

from instance_flow import Pipeline
from instance_flow.commands.cli import main
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.bags import RAW, BagImages
from instance_flow.formats.messages import to_label_pixels, to_tracks
from instance_flow.formats.rle import decode
from instance_flow.formats.stamps import to_nanoseconds
from instance_flow.formats.video import open_source
from instance_flow.replay.journal import FOLDER
from instance_flow.stream import Stream
from instance_flow.structures import Tracks, unknown_in_space

pytest.importorskip("rosbags")

QUICK = ["--no-video", "--no-report", "--json"]


def run(source: Path, model: Path, out: Path, *options: str) -> int:
    return main(["run", str(source), "--model", str(model), "--out", str(out), *QUICK, *options])


def messages_of(path: Path) -> list[tuple[str, int, Any]]:
    """topic, time and message of all that is in a bag, read with the library alone by what the bag says of types."""
    from rosbags.highlevel import AnyReader

    with AnyReader([path]) as reader:
        return [(c.topic, time, reader.deserialize(data, c.msgtype)) for c, time, data in reader.messages()]


def identical(a: Tracks, b: Tracks) -> bool:
    """In all that a message holds: not the model's names, nor covariances and places."""
    missing = {"names", *unknown_in_space(0)}
    arrays = {name: value for name, value in vars(a).items() if name not in missing}
    return all(np.array_equal(value, vars(b)[name], equal_nan=True) for name, value in arrays.items())


@pytest.mark.parametrize(
    ("form", "name"), [("mcap", "tracks.mcap"), ("db3", "tracks.db3"), ("folder", "tracks")], ids=str
)
def test_the_bag_of_tracks_is_what_the_node_would_have_sent(tmp_path: Path, model: Path, form: str, name: str) -> None:
    source, out = write_source(tmp_path / "clip.mcap", frames()), tmp_path / "out"
    for _ in range(2):  # the second run takes the place of the first one
        assert run(source, model, out, "--bag", form, "--label-images") == 0
    pipeline = Pipeline.load(model, "cpu")
    said = messages_of(out / name)

    (topic, time, table), *rest = said
    assert (topic, time, table.class_names) == ("/instance_flow/class_table", 10**18, ["red"])
    found = [(time, message) for topic, time, message in rest if topic == "/instance_flow/instances"]
    labels = [(time, message) for topic, time, message in rest if topic == "/instance_flow/label_image"]
    assert [time for time, _ in found] == [time for time, _ in labels] == [10**18 + k * STEP for k in range(6)]
    for image, (_, message), (_, label) in zip(BagImages(source), found, labels, strict=True):
        tracks = pipeline.step(image.image, image.stamp)
        assert identical(to_tracks(message), tracks)
        assert (to_nanoseconds(message.header.stamp), message.header.frame_id) == (image.stamp, "optical")
        assert repr(label.header) == repr(message.header)
        pixels = label.data.view(np.uint16).reshape(label.height, label.width)
        np.testing.assert_array_equal(pixels, to_label_pixels(tracks.label_map))
    assert len(rest) == 12


def test_the_class_table_is_kept_for_those_who_come_later(tmp_path: Path, model: Path) -> None:
    from rosbags.interfaces import QosDurability
    from rosbags.rosbag2 import Reader

    assert run(write_source(tmp_path / "clip.mcap", frames(2)), model, tmp_path / "out") == 0
    with Reader(tmp_path / "out" / "tracks.mcap") as reader:
        extras: dict[str, Any] = {connection.topic: connection.ext for connection in reader.connections}
        kept = {topic: extra.offered_qos_profiles for topic, extra in extras.items()}
    assert [qos.durability for qos in kept["/instance_flow/class_table"]] == [QosDurability.TRANSIENT_LOCAL]
    assert kept["/instance_flow/instances"] == []


def test_a_mask_budget_drops_masks_and_says_so(tmp_path: Path, model: Path) -> None:
    assert run(write_source(tmp_path / "clip.mcap", frames(2)), model, tmp_path / "out", "--mask-budget", "8") == 0
    (_, _, message) = messages_of(tmp_path / "out" / "tracks.mcap")[-1]
    assert [(instance.has_mask, instance.mask.runs.tolist()) for instance in message.instances] == [(False, [])]


def test_several_topics_are_cameras_of_their_own(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raw and compressed, the second camera half a step later and one frame less."""
    path, out = tmp_path / "two.db3", tmp_path / "out"
    with BagWriter(path) as bag:
        for k, image in enumerate(frames()):
            bag.write_image("/front/image_raw", image, START + k * STEP)
            if k < 5:
                mirrored = image[:, ::-1]
                bag.write_jpeg("/rear/image_raw/compressed", mirrored, START + k * STEP + STEP // 2, quality=98)
        bag.write_message("/clock", bag.typestore.types["builtin_interfaces/msg/Time"](1, 2), START)
    assert run(path, model, out, "--all-topics") == 0

    report = json.loads(capsys.readouterr().out)
    assert {name: camera["frames"] for name, camera in report["cameras"].items()} == {"front": 6, "rear": 5}
    assert sorted(entry.name for entry in out.iterdir()) == ["front", "rear"]
    for name, count, step in (("front", 6, 8), ("rear", 5, -8)):
        (result,) = json.loads((out / name / "results.json").read_text())
        assert len(result["segmentations"]) == count
        centers = [np.argwhere(decode(mask)).mean(axis=0)[1] for mask in result["segmentations"]]
        np.testing.assert_allclose(np.diff(centers), step, atol=1)
        topics = {topic for topic, _, _ in messages_of(out / name / "tracks.mcap")}
        assert topics == {"/instance_flow/class_table", f"/instance_flow/{name}/instances"}
    alone = tmp_path / "alone"
    assert run(path, model, alone, "--topic", "/front/image_raw") == 0
    for name in ("results.json", "tracks.jsonl"):
        assert (alone / name).read_bytes() == (out / "front" / name).read_bytes(), "cameras know nothing of each other"


def test_several_topics_and_none_chosen(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BagWriter(tmp_path / "two.mcap") as bag:
        for topic in ("/right", "/left"):
            bag.write_image(topic, frames(1)[0], START)
    assert run(tmp_path / "two.mcap", model, tmp_path / "out") == 2
    assert "choose one or more, or all of them: /left (1 images), /right (1 images)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_camera_without_one_usable_image(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report is JSON all the same, and names the files that there are. A camera may be called like anything."""
    with BagWriter(tmp_path / "two.mcap") as bag:
        for k, image in enumerate(frames(2)):
            bag.write_image("/journal/image_raw", image, START + k * STEP)
            nothing = bag.typestore.types[RAW](bag.header(START, ""), 1, 1, "sparkling", 0, 1, image.reshape(-1)[:1])
            bag.write_message("/rear/image_raw", nothing, START + k * STEP)
    assert run(tmp_path / "two.mcap", model, tmp_path / "out", "--all-topics") == 0

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    cameras = json.loads(capsys.readouterr().out, parse_constant=refuse)["cameras"]
    assert {name: camera["frames"] for name, camera in cameras.items()} == {"journal": 2, "rear": 0}
    for name, camera in cameras.items():
        there = {str(path) for path in (tmp_path / "out" / name).iterdir()}
        assert there == set(camera["files"])


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("tracks.mcap", "."),
        ("tracks", "."),
        ("tracks/tracks.mcap", "."),
        ("overlay.mp4", "."),
        ("pictures", "pictures"),
        ("folder", "folder"),
    ],
    ids=["file", "bag folder", "file of a bag folder", "video", "pictures into their folder", "bag into its folder"],
)
def test_a_run_does_not_touch_what_it_reads(
    tmp_path: Path, model: Path, name: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / name
    if name in ("tracks", "tracks/tracks.mcap", "folder"):
        with BagWriter(tmp_path / Path(name).parts[0]) as bag:
            bag.write_image("/camera", frames(1)[0], START)
    else:
        write_source(source, frames(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(source, model, tmp_path / out) == 2
    assert "would write over its source" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_recording_beside_the_files_of_a_run_stays(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the name that our bag folder would have, but `ros2 bag record` made it."""
    source, recorded = write_source(tmp_path / "clip.mcap", frames(2)), tmp_path / "out" / "tracks"
    recorded.mkdir(parents=True)
    for name in ("metadata.yaml", "tracks_0.mcap"):
        (recorded / name).write_text("a recording")
    assert run(source, model, tmp_path / "out") == 0
    assert "removed" not in json.loads(capsys.readouterr().out)
    assert run(source, model, tmp_path / "out", "--bag", "folder") == 2
    assert f"{recorded} exists already; remove it or choose another name" in capsys.readouterr().err
    assert sorted(path.name for path in recorded.iterdir()) == ["metadata.yaml", "tracks_0.mcap"]


def write_bag(path: Path, images: Sequence[NDArray[np.uint8]], stamps: Sequence[int], encoding: str = "rgb8") -> Path:
    with BagWriter(path) as bag:
        for k, (image, stamp) in enumerate(zip(images, stamps, strict=True)):
            bag.write_image("/camera", image, stamp, encoding=encoding, received=10**18 + k * STEP)
    return path


def test_a_loop_begins_with_other_tracks(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stamps run backwards: ids begin at 1 again, which in results.json and in the figures is another object."""
    out = tmp_path / "out"
    source = write_bag(tmp_path / "loop.mcap", [*frames(3), *frames(3)], [START + k % 3 * STEP for k in range(6)])
    assert run(source, model, out) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["ids"]) == (6, 2)
    (said,) = report["breaks"]
    assert "frame 3: the image stamps ran back by 0.200 s" in said
    shown = [[mask is not None for mask in r["segmentations"]] for r in json.loads((out / "results.json").read_text())]
    assert shown == [[True] * 3 + [False] * 3, [False] * 3 + [True] * 3]
    table = lines_of(out / "tracks.jsonl")
    assert [(line["number"], line["frame"]) for line in table] == [(k, k % 3) for k in range(6)]
    assert [track["id"] for line in table for track in line["tracks"]] == [1] * 6
    found = [message for topic, _, message in messages_of(out / "tracks.mcap") if topic.endswith("instances")]
    assert [message.frame_index for message in found] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("options", "reason"),
    [([], "9.900 s passed between two images (max_gap is 2 s)"), (["--max-gap", "0"], ""), (["--max-gap", "10"], "")],
    ids=["too long", "no gap is", "not for this limit"],
)
def test_gaps(tmp_path: Path, model: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = [START, START + STEP, START + 100 * STEP, START + 101 * STEP]
    assert run(write_bag(tmp_path / "gap.mcap", frames(4), stamps), model, tmp_path / "out", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert [reason in said for said in report.get("breaks", [])] == ([True] if reason else [])


def test_frames_of_another_size(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """results.json has one size, so it has no frames of other sizes; every other file continues."""
    images = frames(6)
    images[2:4] = [image[:64] for image in images[2:4]]
    source, out = write_bag(tmp_path / "sizes.mcap", images, [START + k * STEP for k in range(6)]), tmp_path / "out"
    command = ["run", str(source), "--model", str(model), "--out", str(out), "--json", "--panels"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["ids"], len(report["breaks"])) == (6, 3, 2)
    shown = [[mask is not None for mask in r["segmentations"]] for r in json.loads((out / "results.json").read_text())]
    assert shown == [[True] * 2 + [False] * 4, [False] * 4 + [True] * 2]
    for name in ("overlay.mp4", "panels.mp4"):
        assert len(list(open_source(out / name))) == 6
    found = [message for topic, _, message in messages_of(out / "tracks.mcap") if topic.endswith("instances")]
    assert [(message.height, len(message.instances)) for message in found] == [(96, 1)] * 2 + [(64, 1)] * 2 + [
        (96, 1)
    ] * 2


def write_bad_images(path: Path) -> Path:
    """Of 8 messages, number 2 cannot be decoded, 4 is cut off and the last one is not even a message."""
    with BagWriter(path) as bag:
        types = bag.typestore.types
        for k, image in enumerate(frames(8)):
            message: Any = types["sensor_msgs/msg/Image"](
                bag.header(START + k * STEP, ""), 96, 128, "rgb8", 0, 384, image.reshape(-1)
            )
            if k == 2:
                message.encoding = "sparkling"
            if k == 4:
                message.data = message.data[:1000]
            data = bytes(bag.typestore.serialize_cdr(message, message.__msgtype__))
            bag.write_serialized("/camera", message.__msgtype__, data[:30] if k == 7 else data, START + k * STEP)
    return path


@pytest.mark.parametrize("name", ["bad.mcap", "bad.db3"], ids=["mcap", "sqlite3"])
def test_images_that_cannot_be_used_are_left_out(
    tmp_path: Path, model: Path, name: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by the node: the others have the tracks that they would have without."""
    source, out = write_bad_images(tmp_path / name), tmp_path / "out"
    command = ["run", str(source), "--model", str(model), "--out", str(out), "--json", "--no-video"]
    assert main(command) == 0

    report = json.loads(capsys.readouterr().out)
    assert (report["frames"], report["refused"]) == (5, 3)
    assert [said.split("image ")[1][0] for said in report["refusals"]] == ["3", "5", "8"]
    assert "sparkling" in report["refusals"][0]
    assert len([record for record in caplog.records if "left out" in record.message]) == 1, "said once"
    assert "3 frames could not be used" in (out / "report.html").read_text()
    (result,) = json.loads((out / "results.json").read_text())
    assert [mask is not None for mask in result["segmentations"]] == [True, True, False, True, False, True, True, False]
    assert [line["number"] for line in lines_of(out / "tracks.jsonl")] == [0, 1, 3, 5, 6]
    stream = Stream(Pipeline.load(model, "cpu"))
    found = [message for topic, _, message in messages_of(out / "tracks.mcap") if topic.endswith("instances")]
    for k, message in zip((0, 1, 3, 5, 6), found, strict=True):
        assert identical(to_tracks(message), stream.step(frames(8)[k], START + k * STEP, "rgb8"))


@pytest.mark.parametrize(
    ("time", "problem"),
    [((0, 0), "never set"), ((-5, 7), "before 1970"), ((1, 4_000_000_000), "has 4000000000 nanoseconds")],
    ids=["zero", "negative", "no such nanosecond"],
)
def test_a_stamp_that_says_nothing_is_copied_all_the_same(
    tmp_path: Path, model: Path, time: tuple[int, int], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    with BagWriter(tmp_path / "odd.mcap") as bag:
        for k, image in enumerate(frames(3)):
            bag.write_image("/camera", image, time, received=10**18 + k * STEP)
    assert run(tmp_path / "odd.mcap", model, tmp_path / "out", "--label-images") == 0
    said = [message for _, _, message in messages_of(tmp_path / "out" / "tracks.mcap")]
    assert len(said) == 7
    assert {(message.header.stamp.sec, message.header.stamp.nanosec) for message in said} == {time}
    found = [message for message in said if message.__msgtype__.endswith("TrackedInstanceArray")]
    assert all(np.isnan(message.instances[0].velocity.x) for message in found)
    assert len([record for record in caplog.records if problem in record.message]) == 1, "said once"


@pytest.mark.parametrize("form", ["mcap", "db3", "folder"])
@pytest.mark.parametrize("size", [100, 1000, 9000], ids=str)
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, model: Path, form: str, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_source(tmp_path / "clip.mcap", frames()), tmp_path / "out"
    assert run(source, model, out, "--bag", form) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    with files_of_at_most(size):
        assert run(source, model, out, "--bag", form) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("instance-flow: error: ")
    for path, content in before.items():
        assert path.read_bytes() == content
    assert not [path for path in out.rglob("*") if path.is_file() and path not in before and path.parent.name != FOLDER]
    assert run(source, model, out, "--bag", form) == 0, "once there is room again"


@pytest.mark.parametrize("name", ["clip.mcap", "clip.db3"])
def test_a_recording_that_was_cut_off(
    tmp_path: Path, model: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / name, frames(4))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    assert run(source, model, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert f"{source}: cannot be read as a ROS 2 bag" in said
    assert said.count("\n") == 1
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert not [path for path in left if path.name != FOLDER]


def test_a_folder_that_cannot_be_made(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """/proc takes no new folder from anyone, root included."""
    source = write_source(tmp_path / "clip.mcap", frames(2))
    assert run(source, model, Path("/proc/instance-flow/out")) == 2
    said = capsys.readouterr().err
    assert said.startswith("instance-flow: error: ")
    assert "/proc/instance-flow" in said
    assert said.count("\n") == 1
