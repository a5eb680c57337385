# SPDX-License-Identifier: Apache-2.0
"""Real bags, written and read in both storages, as files and folders; and what is said of bags that are no good."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from instance_flow.formats import bag_files
from instance_flow.formats.bag_messages import BagMessages
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.bags import COMPRESSED, RAW, BagImages, image_topics, is_bag, typestore
from instance_flow.formats.image_encodings import decode_compressed
from instance_flow.structures import SourceError

pytest.importorskip("rosbags")

START = 1_700_000_000_123_456_789
STEP = 40_000_000
TARGETS = [("one.mcap", "mcap"), ("one.db3", "sqlite3"), ("folder", "mcap"), ("folder", "sqlite3")]
IDS = ["mcap file", "db3 file", "mcap folder", "sqlite3 folder"]

TRACK_DEFINITIONS = {
    "made_up_msgs/msg/Track": "uint32 id\nfloat32 score\nuint32[] runs\n",
    "made_up_msgs/msg/TrackArray": "std_msgs/Header header\nmade_up_msgs/Track[] tracks\n",
}


def pictures(count: int = 4, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    """(count, height, width, 3) of noise."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write_images(path: Path, storage: str = "mcap", topics: tuple[str, ...] = ("/camera/image",)) -> Path:
    with BagWriter(path, storage) as bag:
        for number, image in enumerate(pictures()):
            for topic in topics:
                bag.write_image(topic, image, START + number * STEP, frame_id="optical", received=number + 1)
    return path


def write_and_fail(path: Path, storage: str, error: BaseException) -> None:
    with BagWriter(path, storage) as bag:
        bag.write_image("/new", pictures()[0], START)
        raise error


@pytest.mark.parametrize(("name", "storage"), TARGETS, ids=IDS)
def test_raw_images_come_back_as_they_were(tmp_path: Path, name: str, storage: str) -> None:
    path = write_images(tmp_path / name, storage)
    source = BagImages(path)

    assert is_bag(path)
    assert (source.topic, len(source), source.rate) == ("/camera/image", 4, 25.0)
    for _ in range(2):  # as often as wanted
        read = list(source)
        np.testing.assert_array_equal(np.stack([message.image for message in read]), pictures())
        assert [message.stamp for message in read] == [START + number * STEP for number in range(4)]
        assert [message.received for message in read] == [1, 2, 3, 4]
        assert {message.frame_id for message in read} == {"optical"}
    assert [entry.name for entry in tmp_path.iterdir()] == [name], "nothing else is left behind"


@pytest.mark.parametrize(("name", "storage"), TARGETS, ids=IDS)
def test_compressed_images(tmp_path: Path, name: str, storage: str) -> None:
    image = np.zeros((24, 32, 3), np.uint8)
    image[...] = np.linspace(20, 220, 32, dtype=np.uint8)[:, None]
    image[..., 0] = 200
    with BagWriter(tmp_path / name, storage) as bag:
        bag.write_jpeg("/camera/image/compressed", image, START, frame_id="optical", quality=95)
    (read,) = BagImages(tmp_path / name)
    np.testing.assert_allclose(read.image.astype(int), image, atol=6)
    assert (read.stamp, read.received, read.frame_id) == (START, START, "optical")


@pytest.mark.parametrize("format", ["bayer_rggb8; jpeg compressed ", "mono8; png compressed ", "png"])
def test_the_format_of_a_compressed_image_counts(tmp_path: Path, format: str) -> None:
    """A Bayer pattern is compressed as a grey picture: only the format tells. The live node reads it, too."""
    _, data = cv2.imencode(".png", pictures(1)[0, ..., 0])
    with BagWriter(tmp_path / "one.mcap") as bag:
        message = bag.typestore.types[COMPRESSED](bag.header(START, ""), format, data.reshape(-1))
        bag.write_message("/camera/compressed", message, START)
    (read,) = BagImages(tmp_path / "one.mcap")
    np.testing.assert_array_equal(read.image, decode_compressed(data, format))
    assert read.encoding == format


@pytest.mark.parametrize(
    ("encoding", "image", "expected"),
    [
        ("bgr8", pictures(1)[0], pictures(1)[0, ..., ::-1]),
        ("mono8", pictures(1)[0, ..., 0], pictures(1)[0, ..., :1]),
        ("mono16", pictures(1)[0, ..., 0].astype(np.uint16) * 257, pictures(1)[0, ..., :1]),
        ("rgb8", pictures(1)[0][::2, ::-1], pictures(1)[0][::2, ::-1]),
    ],
    ids=["bgr8", "mono8", "mono16", "a view that is not contiguous"],
)
def test_encodings_that_can_be_written(
    tmp_path: Path, encoding: str, image: NDArray[Any], expected: NDArray[np.uint8]
) -> None:
    with BagWriter(tmp_path / "one.mcap") as bag:
        bag.write_image("/image", image, START, encoding=encoding)
    (read,) = BagImages(tmp_path / "one.mcap")
    np.testing.assert_array_equal(read.image, np.broadcast_to(expected, read.image.shape))


def test_images_of_a_camera_with_row_padding_and_foreign_byte_order(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "one.mcap") as bag:
        types = bag.typestore.types
        header = types["std_msgs/msg/Header"](
            stamp=types["builtin_interfaces/msg/Time"](sec=-1, nanosec=5), frame_id=""
        )
        data = np.frombuffer(b"\x00\x00\xff\xff??\x80\x80\x01\x01??", np.uint8)
        message = types[RAW](header, 2, 2, "mono16", 1, 6, data)
        bag.write_message("/image", message, 7)
    (read,) = BagImages(tmp_path / "one.mcap")
    assert read.image[..., 0].tolist() == [[0, 255], [128, 1]]
    assert (read.stamp, read.time) == (None, (-1, 5))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_folder_without_metadata_is_read_in_the_order_of_time(tmp_path: Path, storage: str) -> None:
    """What a recorder leaves behind that was killed after its bag was split."""
    folder = tmp_path / "split"
    folder.mkdir()
    for part, first in (("split_10", 2), ("split_9", 0)):
        with BagWriter(tmp_path / "part", storage) as bag:
            for number in range(first, first + 2):
                bag.write_image("/image", pictures()[number], START + number * STEP)
        (file,) = (tmp_path / "part").glob("part.*")
        file.rename(folder / f"{part}{file.suffix}")
        (tmp_path / "part" / "metadata.yaml").unlink()
        (tmp_path / "part").rmdir()
    source = BagImages(folder)
    assert (len(source), source.rate) == (4, 25.0)
    np.testing.assert_array_equal(np.stack([message.image for message in source]), pictures())


def test_topics(tmp_path: Path) -> None:
    path = write_images(tmp_path / "two.mcap", topics=("/right", "/left"))
    assert image_topics(path) == {"/left": 4, "/right": 4}
    assert BagImages(path, "/right").topic == "/right"


SECOND = 10**9


@pytest.mark.parametrize(
    ("topics", "start", "duration", "expected"),
    [
        pytest.param([], 0.0, None, ["/a 0", "/b 0", "/a 1", "/b 1", "/a 2", "/b 2"], id="all"),
        pytest.param(["/b"], 0.0, None, ["/b 0", "/b 1", "/b 2"], id="one topic"),
        pytest.param([], 1.05, None, ["/b 1", "/a 2", "/b 2"], id="start, counted from the first of all messages"),
        pytest.param(["/b"], 0.75, 0.5, ["/b 1"], id="start and duration"),
        pytest.param(["/a"], 0.0, 1e300, ["/a 0", "/a 1", "/a 2"], id="longer than any bag"),
    ],
)
@pytest.mark.parametrize(("name", "storage"), TARGETS, ids=IDS)
def test_messages_of_any_type(
    tmp_path: Path,
    name: str,
    storage: str,
    topics: list[str],
    start: float,
    duration: float | None,
    expected: list[str],
) -> None:
    """Of two topics a message a second; those of the second one come 0.1 s after those of the first."""
    with BagWriter(tmp_path / name, storage) as bag:
        bag.register(TRACK_DEFINITIONS)
        track, text = (bag.typestore.types[name] for name in ("made_up_msgs/msg/Track", "std_msgs/msg/String"))
        for number in range(3):
            when = START + number * SECOND
            bag.write_message("/a", track(id=number, score=0.5, runs=np.zeros(0, np.uint32)), when - SECOND // 10)
            bag.write_message("/b", text(data=str(number)), when, latched=True)
        types: Any = bag.typestore
    messages = BagMessages(tmp_path / name, topics, start, duration)
    wanted = {("/a", "made_up_msgs/msg/Track"), ("/b", "std_msgs/msg/String")}
    assert messages.offered.keys() == {pair for pair in wanted if not topics or pair[0] in topics}
    if ("/b", "std_msgs/msg/String") in messages.offered:
        assert [one.durability.name for one in messages.offered["/b", "std_msgs/msg/String"]] == ["TRANSIENT_LOCAL"]
    for _ in range(2):  # as often as wanted
        read = [(one.topic, types.deserialize_cdr(one.data, one.message_type)) for one in messages]
        assert [f"{topic} {one.id if topic == '/a' else one.data}" for topic, one in read] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topics": ["/x"]}, "topic /x is not in the bag; its topics: /camera/image"),
        ({"start": 9.0}, "no messages to play from 9 s to its end of the recording, which is 0.0 s long"),
        ({"start": 1e300}, "no messages to play from 1e\\+300 s"),
        ({"start": 1.0, "duration": 1.0}, "from 1 s to 2 s of the recording"),
    ],
    ids=["no topic", "begins after its end", "begins never", "a window without messages"],
)
def test_no_messages(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        BagMessages(write_images(tmp_path / "one.mcap"), **options)


def test_the_only_topic_with_images_in_it_is_taken(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    image = store.types[RAW](store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](1, 2), ""),
                             1, 1, "mono8", 0, 1, np.zeros(1, np.uint8))  # fmt: skip
    with Writer(tmp_path / "bag", version=8) as writer:
        writer.add_connection("/empty", RAW, typestore=store)
        filled = writer.add_connection("/filled", RAW, typestore=store)
        writer.write(filled, 1, store.serialize_cdr(image, RAW))
    assert BagImages(tmp_path / "bag").topic == "/filled"
    with pytest.raises(SourceError, match="topic /empty has no messages"):
        BagImages(tmp_path / "bag", "/empty")


@pytest.mark.parametrize(
    ("stamps", "received", "rate"),
    [([0, 0, 0], [0, 10**8, 2 * 10**8], 10.0), ([5, 5], [7, 7], 0.0), ([5], [7], 0.0)],
    ids=["headers without stamps", "no time at all", "one image"],
)
def test_rate_without_useful_stamps(tmp_path: Path, stamps: list[int], received: list[int], rate: float) -> None:
    with BagWriter(tmp_path / "one.mcap") as bag:
        for stamp, arrival in zip(stamps, received, strict=True):
            bag.write_image("/image", pictures()[0], stamp, received=arrival)
    assert BagImages(tmp_path / "one.mcap").rate == rate


@pytest.mark.parametrize(("name", "storage"), TARGETS, ids=IDS)
def test_own_message_types(tmp_path: Path, name: str, storage: str) -> None:
    """Written from their .msg texts, read with the library alone by what the bag itself says of them."""
    from rosbags.highlevel import AnyReader

    with BagWriter(tmp_path / name, storage) as bag:
        bag.register(TRACK_DEFINITIONS)
        types = bag.typestore.types
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "map")
        track = types["made_up_msgs/msg/Track"](id=7, score=0.5, runs=np.array([3, 4], np.uint32))
        message = types["made_up_msgs/msg/TrackArray"](header=header, tracks=[track])
        bag.write_message("/tracks", message, START)
        data = bytes(bag.typestore.serialize_cdr(message, message.__msgtype__))
        bag.write_serialized("/tracks", "made_up_msgs/msg/TrackArray", data, START + 1)
    with AnyReader([tmp_path / name]) as reader:
        read = [(time, reader.deserialize(raw, connection.msgtype)) for connection, time, raw in reader.messages()]
    assert [time for time, _ in read] == [START, START + 1]
    messages: list[Any] = [message for _, message in read]
    for found in messages:
        assert found.header.frame_id == "map"
        assert (found.tracks[0].id, found.tracks[0].score, found.tracks[0].runs.tolist()) == (7, 0.5, [3, 4])


def test_a_file_is_replaced_and_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = write_images(tmp_path / "one.mcap")
    with pytest.raises(KeyError):
        write_and_fail(path, "mcap", KeyError())
    assert list(image_topics(path)) == ["/camera/image"]
    with BagWriter(path) as bag:
        bag.write_image("/new", pictures()[0], START)
    assert list(image_topics(path)) == ["/new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "storage"), TARGETS, ids=IDS)
def test_nothing_is_left_behind_by_a_failure(tmp_path: Path, name: str, storage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / name, storage, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def keep_only_metadata(path: Path) -> None:
    for file in path.glob("*.mcap"):
        file.unlink()


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("one.mcap", cut, "cannot be read as a ROS 2 bag: File end magic is invalid; .*cut off.*`mcap recover`"),
        ("one.db3", cut, "cannot be read as a ROS 2 bag: .*malformed"),
        ("one.mcap", lambda path: path.write_bytes(b"text"), "as a ROS 2 bag: .*begin as an MCAP or SQLite file"),
        ("one.mcap", lambda path: path.write_bytes(b"#ROSBAG V2.0\n"), "a bag of ROS 1; convert it with `rosbags-conv"),
        ("one.db3", lambda path: path.write_bytes(b"text"), "cannot be read as a ROS 2 bag: .*not a database"),
        ("one.mcap", lambda path: path.write_bytes(b""), "cannot be read as a ROS 2 bag: .*empty"),
        ("one.db3", lambda path: path.write_bytes(b""), "cannot be read as a ROS 2 bag: .*missing tables"),
        ("folder", keep_only_metadata, "metadata.yaml names folder.mcap, which is not there"),
        ("one.mcap", lambda path: path.unlink(), "no such file or folder"),
        ("one.mcap", lambda path: path.rename(path.with_suffix(".bag")), "no such file or folder"),
    ],
    ids=[
        "mcap cut off",
        "db3 cut off",
        "mcap of text",
        "a bag of ROS 1 under another name",
        "db3 of text",
        "empty mcap",
        "empty db3",
        "storage file gone",
        "nothing there",
        "renamed",
    ],
)
def test_what_is_wrong_with_a_bag_is_said(
    tmp_path: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    path = write_images(tmp_path / name)
    damage(path)
    with pytest.raises(SourceError, match=message) as caught:
        BagImages(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one.bag", "one.bag: a bag of ROS 1; convert it with `rosbags-convert"),
        ("folder", "is not a ROS 2 bag; expected an MCAP file, an SQLite file"),
    ],
    ids=["ROS 1", "folder without a bag"],
)
def test_not_a_bag(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"#ROSBAG V2.0") if path.suffix else path.mkdir()
    assert not is_bag(path)
    with pytest.raises(SourceError, match=message):
        image_topics(path)


def test_several_topics_and_none_chosen(tmp_path: Path) -> None:
    path = write_images(tmp_path / "two.mcap", topics=("/right", "/left"))
    with pytest.raises(SourceError, match=r"several topics of images, .*: /left \(4 images\), /right \(4 images\)"):
        BagImages(path)
    with pytest.raises(SourceError, match=r"topic /up is not in the bag; topics of images: /left \(4 images\)"):
        BagImages(path, "/up")


def test_no_topic_of_images(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "clock.mcap") as bag:
        bag.write_message("/clock", bag.typestore.types["builtin_interfaces/msg/Time"](1, 2), 3)
    with pytest.raises(SourceError, match=r"no topic of images; its topics: /clock \(builtin_interfaces/msg/Time\)"):
        BagImages(tmp_path / "clock.mcap")
    with BagWriter(tmp_path / "nothing.mcap"):
        pass
    with pytest.raises(SourceError, match="no topic of images; its topics: none at all"):
        BagImages(tmp_path / "nothing.mcap")


def test_a_topic_of_something_else(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "one.mcap") as bag:
        bag.write_image("/image", pictures()[0], START)
        bag.write_message("/clock", bag.typestore.types["builtin_interfaces/msg/Time"](1, 2), 3)
    with pytest.raises(SourceError, match="topic /clock holds builtin_interfaces/msg/Time, not images"):
        BagImages(tmp_path / "one.mcap", "/clock")


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "one.mcap") as bag:
        bag.write_image("/image", pictures()[0], START)
        types = bag.typestore.types
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "")
        bag.write_message("/image", types[RAW](header, 1, 1, "32FC1", 0, 4, np.zeros(4, np.uint8)), START)
    frames = iter(BagImages(tmp_path / "one.mcap"))
    next(frames)
    with pytest.raises(SourceError, match="image 2 of /image: image encoding '32FC1'"):
        next(frames)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda bag: bag.write_image("/i", np.zeros((2, 2), np.uint8), 0), ValueError, "rgb8 does not hold an array"),
        (lambda bag: bag.write_image("/i", np.zeros((2, 2, 3)), 0), ValueError, "rgb8 does not hold .* float64"),
        (lambda bag: bag.write_image("/i", np.zeros((0, 2, 3), np.uint8), 0), ValueError, "not hold .* .0, 2, 3."),
        (
            lambda bag: bag.write_image("/i", pictures()[0], 0, encoding="hsv"),
            ValueError,
            "'hsv'; expected one of rgb8",
        ),
        (lambda bag: bag.write_serialized("/i", "a_msgs/msg/B", b"", 0), ValueError, "a_msgs/msg/B is not known"),
    ],
    ids=["gray as rgb8", "floats", "no pixels", "unknown encoding", "unknown type"],
)
def test_a_caller_s_mistake(tmp_path: Path, call: Callable[[BagWriter], None], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message), BagWriter(tmp_path / "one.mcap") as bag:
        call(bag)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="exists already; remove it or choose another name"):
        BagWriter(tmp_path)
    with pytest.raises(ValueError, match="storage is 'zip'; expected one of mcap, sqlite3"):
        BagWriter(tmp_path / "new", "zip")


def test_without_rosbags_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_images(tmp_path / "one.mcap")
    for name in [name for name in sys.modules if name.split(".")[0] == "rosbags"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rosbags", None)
    for call in (lambda: BagImages(path), lambda: BagWriter(tmp_path / "new")):
        with pytest.raises(SourceError, match=r'pip install "instance-flow\[bags\]"'):
            call()


def split(path: Path, parts: int = 3) -> Path:
    """A recording in several files, as ``ros2 bag record -b`` leaves it; 4 images in each."""
    path.mkdir()
    for part in range(parts):
        with BagWriter(path / f"rec_{part}.mcap", "mcap") as bag:
            for number, image in enumerate(pictures()):
                stamp = START + (4 * part + number) * STEP
                bag.write_image("/camera/image", image, stamp, received=4 * part + number + 1)
    return path


def torn(path: Path) -> Path:
    """Power went while the last file was written."""
    cut(split(path) / "rec_2.mcap")
    return path


def ring(path: Path) -> Path:
    """A recorder that keeps the latest files; metadata.yaml still names the oldest."""
    split(path)
    listed = "".join(f"\n    - rec_{part}.mcap" for part in range(3))
    (path / "metadata.yaml").write_text(METADATA.format(files=listed, count=12))
    (path / "rec_0.mcap").unlink()
    return path


METADATA = """rosbag2_bagfile_information:
  version: 9
  storage_identifier: mcap
  relative_file_paths: {files}
  topics_with_message_count:
    - topic_metadata: {{name: /camera/image, type: sensor_msgs/msg/Image, serialization_format: cdr}}
      message_count: {count}
"""


def counted_wrongly(path: Path) -> Path:
    """A converter wrote a metadata.yaml that promises more than there is, with a QoS that no reader knows."""
    split(path, 1)
    (path / "metadata.yaml").write_text(METADATA.format(files="[rec_0.mcap]", count=99))
    return path


def with_text(text: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (write_images(path) / "metadata.yaml").write_text(text)
        return path

    return make


def packed(path: Path) -> Path:
    """File compression, the packed file alone."""
    from instance_flow.formats.bag_files import _zstd

    whole = write_images(path.with_suffix(".mcap"))
    path = path.with_name("rec.mcap.zstd")
    path.write_bytes(_zstd().compress(whole.read_bytes()))
    return path


def misnamed(storage: str, name: str) -> Callable[[Path], Path]:
    """The form is told by what a file holds."""

    def make(path: Path) -> Path:
        whole = write_images(path.with_suffix({"mcap": ".mcap", "sqlite3": ".db3"}[storage]), storage)
        return whole.rename(path.with_name(name))

    return make


def packed_under_another_name(path: Path) -> Path:
    return packed(path).rename(path.with_name("rec.bin"))


def packed_messages(path: Path) -> Path:
    """Message compression without a metadata.yaml that would say so."""
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer

    from instance_flow.formats.bag_files import _zstd

    whole = write_images(path.with_suffix(".mcap"))
    with Reader(whole) as reader, Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        for connection in reader.connections:
            made = writer.add_connection(connection.topic, connection.msgtype, typestore=typestore())
            for _, received, data in reader.messages([connection]):
                writer.write(made, received, _zstd().compress(data))
    (path / "metadata.yaml").unlink()
    return path


def with_log(path: Path) -> Path:
    """The recorder died with half of the images in SQLite's write-ahead log."""
    whole = write_images(path.with_suffix(".db3"), "sqlite3")
    path.mkdir()
    live = path.parent / "live.db3"
    shutil.copyfile(whole, live)
    writing = sqlite3.connect(live)
    with closing(writing):
        rows = writing.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp").fetchall()
        writing.execute("DELETE FROM messages WHERE timestamp > 2")
        writing.commit()
        writing.execute("PRAGMA journal_mode=WAL")
        writing.execute("PRAGMA wal_autocheckpoint=0")
        late = [row for row in rows if row[1] > 2]
        writing.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", late)
        writing.commit()
        shutil.copyfile(live, path / "rec_0.db3")
        shutil.copyfile(f"{live}-wal", path / "rec_0.db3-wal")
    return path


def odd_name(path: Path) -> Path:
    """Characters that have a meaning in the address by which SQLite opens a file."""
    return write_images(_made(path.with_name("a#b?c%20d")) / "rec.db3", "sqlite3")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def beside_json(path: Path) -> Path:
    """A topic of JSON beside the images, and no profile, as Foxglove records."""
    return _with_mcap_writer(path, index=True, order=range(4))


def without_index(path: Path) -> Path:
    """rosbag2's preset "fastwrite", two images out of order."""
    return _with_mcap_writer(path, index=False, order=(0, 2, 1, 3))


def _with_mcap_writer(path: Path, *, index: bool, order: Iterable[int], compression: str = "NONE") -> Path:
    from mcap.writer import CompressionType, IndexType, Writer
    from rosbags.rosbag2 import Reader

    with Reader(write_images(path.with_suffix(".mcap"))) as reader:
        [connection] = reader.connections
        messages = list(reader.messages())
        definition = connection.msgdef.data.encode()
    path = path.with_name("other.mcap")
    with path.open("wb") as file:
        kinds: dict[str, Any] = {} if index else {"index_types": IndexType.NONE, "use_chunking": False}
        writer = Writer(file, compression=CompressionType[compression], **kinds)
        writer.start()
        image = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", definition)
        camera = writer.register_channel("/camera/image", "cdr", image)
        note = writer.register_channel("/note", "json", writer.register_schema("Note", "jsonschema", b"{}"))
        for number in order:
            _, received, data = messages[number]
            writer.add_message(camera, received, data, received)
            writer.add_message(note, received, b"{}", received)
        writer.finish()
    return path


RECOVERED: dict[str, tuple[Callable[[Path], Path], int, str]] = {  # images, what is logged
    "the last file torn": (torn, 8, "rec_2.mcap: "),
    "the oldest file deleted": (ring, 8, "rec_0.mcap of the recording is missing"),
    "metadata promises more": (counted_wrongly, 4, "says 99 messages on /camera/image, the files hold 4"),
    "metadata is no YAML": (with_text("a: ["), 4, "metadata.yaml: cannot be read"),
    "metadata of something else": (with_text("a: 1"), 4, "metadata.yaml: cannot be read"),
    "a packed file": (packed, 4, ""),
    "a packed file without its ending": (packed_under_another_name, 4, ""),
    "MCAP under SQLite's ending": (misnamed("mcap", "rec.db3"), 4, ""),
    "SQLite without an ending": (misnamed("sqlite3", "rec"), 4, ""),
    "packed messages": (packed_messages, 4, ""),
    "a write-ahead log": (with_log, 4, "rec_0.db3: was not closed; it is read with rec_0.db3-wal"),
    "a name of special characters": (odd_name, 4, ""),
    "JSON beside the images": (beside_json, 4, ""),
    "no index, out of order": (without_index, 4, ""),
}


@pytest.mark.parametrize(("make", "count", "logged"), RECOVERED.values(), ids=RECOVERED)
def test_recordings_that_are_not_as_they_should_be_are_read(
    tmp_path: Path, make: Callable[[Path], Path], count: int, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All that is there, in order; what is missing is named."""
    path = make(tmp_path / "rec")
    source = BagImages(path)
    assert len(source) == count
    received = [image.received for image in source]
    assert len(received) == count
    assert received == sorted(received)
    warnings = [message for message in caplog.messages if logged and logged in message]
    assert len(warnings) == bool(logged), caplog.messages
    messages = list(BagMessages(path))
    assert [(one.topic, one.message_type, one.received) for one in messages] == [
        ("/camera/image", RAW, when) for when in received
    ]
    last: Any = typestore().deserialize_cdr(messages[-1].data, RAW)
    assert last.width == 16
    if not logged:
        assert not caplog.messages


def packed_chunk(path: Path) -> Path:
    """rosbag2's preset "zstd_fast"."""
    return _with_mcap_writer(path, index=True, order=range(4), compression="ZSTD")


@pytest.mark.parametrize("make", [packed_chunk, packed_messages], ids=["chunk", "messages"])
def test_what_unpacks_to_more_than_allowed_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "rec")
    assert len(list(BagImages(path))) == 4
    monkeypatch.setattr(bag_files, "MAX_UNPACKED", 500)
    with pytest.raises(SourceError, match="tmp_path.*INSTANCE_FLOW_MAX_UNPACKED_MB".replace("tmp_path", str(tmp_path))):
        list(BagImages(path))


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_no_more_of_a_chunk_is_unpacked_than_it_says_that_it_holds(kind: str) -> None:
    """A bomb: 100 MB of zeros that call themselves 1000 bytes."""
    import lz4.frame

    compress, unpack = {
        "zstd": (bag_files._zstd().compress, bag_files.unpack_zstd),
        "lz4": (lz4.frame.compress, bag_files._unpack_lz4),
    }[kind]
    bomb = compress(bytes(100_000_000))
    assert len(unpack(bomb, 1000)) == 1001
    assert len(unpack(compress(bytes(1000)), 1000)) == 1000


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        pytest.param(lambda zstd: zstd.compress(b"image" * 99)[:-3], "they are cut off", id="cut off"),
        pytest.param(lambda zstd: zstd.compress(b"image" * 99)[:9] + b"?" * 30, "cannot be unpacked", id="damaged"),
    ],
)
def test_a_packed_message_that_cannot_be_unpacked(packed: Callable[[Any], bytes], reason: str) -> None:
    from instance_flow.formats.bag_files import _zstd, unpack_message

    data = packed(_zstd())
    assert len(data) < 100_000
    with pytest.raises(ValueError, match=reason):
        unpack_message(data)
