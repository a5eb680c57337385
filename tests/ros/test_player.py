# SPDX-License-Identifier: Apache-2.0
"""`instance-flow play` in a process of its own, real bags, and a subscriber here that notes what comes and when."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from instance_flow.commands import cli
from instance_flow.formats.bag_writer import BagWriter
from instance_flow_ros.player import _message_class, _qos, _step

FRAMES, STEP = 8, 0.1
PLAY = [sys.executable, "-m", "instance_flow", "play"]
LATE = 0.25
"""Seconds that a message may come late here, where the machine does other things, too; another rate differs by more."""


class Listener:
    """Hears topics in this process: (topic, message, time by time.monotonic()) in the order of their arrival."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: list[tuple[str, Any, float]] = []

    def listen(self, kind: Any, topic: str, qos: QoSProfile | int = 100) -> None:
        self.node.create_subscription(kind, topic, lambda one: self.heard.append((topic, one, monotonic())), qos)

    def on(self, topic: str) -> list[tuple[Any, float]]:
        return [(message, when) for name, message, when in self.heard if name == topic]

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        deadline = monotonic() + seconds
        while not condition():
            assert monotonic() < deadline, f"waited in vain; heard {len(self.heard)} messages"
            self.executor.spin_once(timeout_sec=0.05)


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.executor.shutdown()
    one.node.destroy_node()
    one.context.try_shutdown()


def record(path: Path, storage: str = "mcap") -> Path:
    """Pictures of one grey value each, 0.1 s apart, a text with each, and one message of an unknown type."""
    with BagWriter(path, storage) as bag:
        bag.register({"made_up_msgs/msg/Secret": "uint32 number\n"})
        secret, text = (bag.typestore.types[name] for name in ("made_up_msgs/msg/Secret", "std_msgs/msg/String"))
        for number in range(FRAMES):
            stamp = 10**18 + round(number * STEP * 1e9)
            bag.write_message("/text", text(data=str(number)), stamp - 1, latched=True)
            bag.write_image("/camera/image_raw", np.full((4, 6, 3), number, np.uint8), stamp, frame_id="optical")
            bag.write_jpeg("/camera/image_raw/compressed", np.full((4, 6, 3), number, np.uint8), stamp)
        bag.write_message("/secret", secret(number=1), 10**18)
    return path


def play(*arguments: object) -> subprocess.Popen[str]:
    command = [*PLAY, *map(str, arguments), "--wait", "30"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def end(player: subprocess.Popen[str], listener: Listener) -> tuple[int, str, str]:
    """What the player says in the end, while everything that it sends is heard."""
    listener.until(lambda: player.poll() is not None)
    output, errors = player.communicate(timeout=10)
    return player.returncode, output, errors


@pytest.mark.parametrize(("name", "storage"), [("bag.mcap", "mcap"), ("folder", "sqlite3")])
def test_messages_come_in_order_and_in_time(name: str, storage: str, tmp_path: Path, listener: Listener) -> None:
    bag = record(tmp_path / name, storage)
    listener.listen(String, "/text")
    listener.listen(Image, "/camera/image_raw", qos_profile_sensor_data)
    code, output, errors = end(play(bag), listener)
    assert code == 0, errors
    images, texts = listener.on("/camera/image_raw"), listener.on("/text")
    assert [(image.data[0], image.header.frame_id) for image, _ in images] == [(n, "optical") for n in range(FRAMES)]
    assert [text.data for text, _ in texts] == [str(number) for number in range(FRAMES)]
    assert [one[0] for one in listener.heard] == ["/text", "/camera/image_raw"] * FRAMES
    begun = images[0][1]
    assert all(abs(when - begun - number * STEP) < LATE for number, (_, when) in enumerate(images))
    assert "/camera/image_raw: 8 messages\n" in output
    assert "played 24 messages in 0.7 s" in output
    assert "left out: /secret (made_up_msgs/msg/Secret): the package made_up_msgs is not installed" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "topic", "numbers", "step"),
    [
        pytest.param(["--rate", "2"], "/text", range(FRAMES), STEP / 2, id="twice as fast"),
        pytest.param(["--start", "0.25", "--duration", "0.2"], "/text", (3, 4), STEP, id="start and duration"),
        pytest.param(
            ["--topics", "/text", "--remap", "/text:=/a/words"], "/a/words", range(FRAMES), STEP, id="a remapped topic"
        ),
    ],
)
def test_what_is_asked_for(
    arguments: list[str], topic: str, numbers: range, step: float, tmp_path: Path, listener: Listener
) -> None:
    listener.listen(String, topic)
    player = play(record(tmp_path / "bag.mcap"), *arguments)
    code, output, errors = end(player, listener)
    assert code == 0, errors
    heard = listener.on(topic)
    assert [int(text.data) for text, _ in heard] == list(numbers)
    assert all(abs(when - heard[0][1] - number * step) < LATE for number, (_, when) in enumerate(heard))
    assert f"{topic}: {len(numbers)} messages" in output
    assert ("/camera" in output) == ("--topics" not in arguments)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_loop_goes_on_until_it_is_told_to_end(how: signal.Signals, tmp_path: Path, listener: Listener) -> None:
    listener.listen(String, "/text")
    listener.listen(Clock, "/clock", QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT))
    player = play(record(tmp_path / "bag.mcap"), "--loop", "--rate", "4", "--clock", "100")
    listener.until(lambda: len(listener.on("/text")) > 2 * FRAMES)
    player.send_signal(how)
    code, output, errors = end(player, listener)
    assert (code, "Traceback" in errors) == (128 + how, False)
    texts = listener.on("/text")
    assert [int(text.data) for text, _ in texts] == [number % FRAMES for number in range(len(texts))]
    assert f"/text: {len(texts)} messages" in output
    clock = [message.clock.sec * 10**9 + message.clock.nanosec - 10**18 for message, _ in listener.on("/clock")]
    assert len(clock) > 10
    assert all(-STEP * 1e9 <= time <= FRAMES * STEP * 1e9 for time in clock)


@pytest.mark.parametrize(
    ("count", "seconds", "step"),
    [
        pytest.param(11, 1.0, 0.1, id="ten a second"),
        pytest.param(1, 0.0, 1.0, id="a bag of one message"),
        pytest.param(2, 1e-9, 0.01, id="all at once"),
    ],
)
def test_passes_of_a_loop_are_parted(count: int, seconds: float, step: float) -> None:
    assert _step(count, seconds) == step


@pytest.mark.parametrize(
    ("arguments", "reliable_hears"),
    [([], False), (["--qos", "reliable"], True), (["--qos", "recorded"], True)],
    ids=["sensor", "reliable", "as recorded"],
)
def test_images_have_the_profile_that_is_asked_for(
    arguments: list[str], reliable_hears: bool, tmp_path: Path, listener: Listener
) -> None:
    """A reliable subscriber does not hear a publisher that is not."""
    topic = "/camera/image_raw/compressed"
    listener.listen(CompressedImage, topic, QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE))
    listener.listen(String, "/text")
    code, _, errors = end(play(record(tmp_path / "bag.mcap"), *arguments), listener)
    assert (code, len(listener.on("/text"))) == (0, FRAMES), errors
    assert bool(listener.on(topic)) == reliable_hears


def test_latched_topics_are_latched_again(tmp_path: Path, listener: Listener) -> None:
    """Who comes while the loop is at another message hears the last one at once."""
    listener.listen(String, "/text")
    player = play(record(tmp_path / "bag.mcap"), "--topics", "/text", "--rate", "0.05", "--loop")
    listener.until(lambda: listener.on("/text"))
    listener.listen(String, "/text", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    listener.until(lambda: [text.data for text, _ in listener.on("/text")].count("0") == 2)
    player.send_signal(signal.SIGINT)
    end(player, listener)


NEVER = QosTime(2147483647, 4294967295)


def offered(reliability: str, durability: str, depth: int) -> Qos:
    kinds = QosHistory.UNKNOWN, depth, QosReliability[reliability], QosDurability[durability]
    return Qos(*kinds, NEVER, NEVER, QosLiveliness.AUTOMATIC, NEVER, False)


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        pytest.param([], ("RELIABLE", "VOLATILE", 10), id="nothing recorded"),
        pytest.param([offered("UNKNOWN", "UNKNOWN", 0)], ("RELIABLE", "VOLATILE", 10), id="unknown"),
        pytest.param([offered("BEST_EFFORT", "VOLATILE", 5)], ("BEST_EFFORT", "VOLATILE", 5), id="best effort"),
        pytest.param(
            [offered("BEST_EFFORT", "VOLATILE", 1), offered("RELIABLE", "VOLATILE", 1)],
            ("RELIABLE", "VOLATILE", 2),
            id="two publishers, one of them reliable",
        ),
        pytest.param(
            [offered("RELIABLE", "TRANSIENT_LOCAL", 1)] * 30, ("RELIABLE", "TRANSIENT_LOCAL", 30), id="30 of tf_static"
        ),
        pytest.param([offered("RELIABLE", "VOLATILE", 2**31)], ("RELIABLE", "VOLATILE", 1000), id="endless"),
        pytest.param([offered("RELIABLE", "VOLATILE", -5)], ("RELIABLE", "VOLATILE", 10), id="negative"),
    ],
)
def test_recorded_profiles(profiles: list[Qos], expected: tuple[str, str, int]) -> None:
    qos = _qos("std_msgs/msg/String", profiles, "sensor")
    assert (qos.reliability.name, qos.durability.name, qos.depth) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["none.mcap"], "none.mcap: no such file or folder", id="no bag"),
        pytest.param(["text.mcap"], "cannot be read as a ROS 2 bag", id="no bag but a text"),
        pytest.param(["old.bag"], "a bag of ROS 1; convert it with `rosbags-convert --src old.bag", id="ROS 1"),
        pytest.param(["bag.mcap", "--topics", "/x"], "topic /x is not in the bag; its topics: /camera", id="no topic"),
        pytest.param(["bag.mcap", "--start", "9"], "which is 0.7 s long", id="begins after its end"),
        pytest.param(["bag.mcap", "--start", "1e12"], "no messages to play from 1e+12 s", id="begins never"),
        pytest.param(["bag.mcap", "--remap", "/x:=/y"], "--remap: /x is not among the topics", id="remap of nothing"),
        pytest.param(["bag.mcap", "--remap", "/text:=/a b"], "'/a b' is not a topic's name", id="remap to no name"),
        pytest.param(
            ["bag.mcap", "--topics", "/secret"],
            "nothing can be played: /secret (made_up_msgs/msg/Secret): the package",
            id="unknown type alone",
        ),
    ],
)
def test_what_cannot_be_played_is_told(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record(tmp_path / "bag.mcap")
    (tmp_path / "text.mcap").write_text("this is not a bag, but longer than the head of one")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["play", *arguments]) == 2
    said = capsys.readouterr()
    assert (said.out, words in said.err.splitlines()[-1]) == ("", True), said.err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("this/msg/Poem", "the package this is not installed"),
        ("std_msgs/msg/Poem", "the package std_msgs here has no such message"),
        ("std_msgs/srv/Empty", "this is not a type of messages"),
        ("../x/msg/Y", "this is not a type of messages"),
    ],
)
def test_types_that_cannot_be_had(kind: str, words: str) -> None:
    """No module is imported for its name's sake: `import this` would print a poem."""
    with pytest.raises(LookupError, match=words):
        _message_class(kind)
    assert "this" not in sys.modules
