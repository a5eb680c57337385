# SPDX-License-Identifier: Apache-2.0
"""The command ``instance-flow play``: a bag to the topics of ROS 2, where there is no `ros2 bag play`."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from instance_flow.commands.values import SIGNALLED, above_zero, add_command, not_negative
from instance_flow.formats.bag_messages import BagMessages
from instance_flow.formats.foreign_text import shown
from instance_flow.replay.run import stop_at_signal
from instance_flow.structures import InstanceFlowError

CLOCK_RATE = 40.0
SENSOR, RELIABLE, RECORDED = "sensor", "reliable", "recorded"
_PATIENCE = 2.0


def add_play(commands: Any) -> None:
    """Add ``play`` to the commands."""
    parser = add_command(
        commands,
        "play",
        "publish a ROS 2 bag on its topics, as 'ros2 bag play' does",
        "instance-flow play BAG --loop --remap /cam0/image:=/camera/image_raw",
    )
    parser.set_defaults(command=play_command)
    parser.add_argument("bag", type=Path, metavar="BAG", help="MCAP file, .db3 file, or bag folder")
    parser.add_argument("--rate", type=above_zero, default=1.0, metavar="FACTOR", help="2 = twice as fast (default: 1)")
    parser.add_argument("--loop", action="store_true", help="play again and again, until Ctrl-C")
    parser.add_argument(
        "--topics", nargs="+", default=[], metavar="TOPIC", help="play only these topics; put BAG before it"
    )
    parser.add_argument("--start", type=not_negative, default=0.0, metavar="SECONDS", help="begin so far into the bag")
    parser.add_argument("--duration", type=above_zero, metavar="SECONDS", help="play so much of the bag, by its time")
    parser.add_argument(
        "--remap", type=_renamed, action="append", default=[], metavar="A:=B", help="publish topic A of the bag on B"
    )
    parser.add_argument(
        "--qos",
        choices=(SENSOR, RELIABLE, RECORDED),
        default=SENSOR,
        help="of images: sensor = best effort, as cameras do; reliable; or as recorded, which all other topics are in "
        "any case (default: %(default)s)",
    )
    parser.add_argument(
        "--clock",
        type=above_zero,
        nargs="?",
        const=CLOCK_RATE,
        metavar="HZ",
        help="publish the bag's time on /clock, too, %(const)g times a second unless given",
    )
    parser.add_argument(
        "--wait",
        type=not_negative,
        default=_PATIENCE,
        metavar="SECONDS",
        help="longest wait for a first subscriber (default: %(default)g)",
    )


def play_command(options: argparse.Namespace) -> int:
    """Play a bag and print how many messages were published on each topic."""
    messages = BagMessages(options.bag, options.topics, options.start, options.duration)
    topics = {topic for topic, _ in messages.offered}
    for topic in dict(options.remap):
        if topic not in topics:
            raise ValueError(
                f"--remap: {shown(topic)} is not among the topics to play: {shown(', '.join(sorted(topics)))}"
            )
    player = _player()
    with stop_at_signal() as stopped:
        played = player.play(
            messages,
            player.Playing(
                rate=options.rate,
                loop=options.loop,
                renamed=dict(options.remap),
                images=options.qos,
                clock=options.clock or 0.0,
                patience=options.wait,
            ),
            stopped,
        )
        for topic, count in played.counts.items():
            print(f"{shown(topic)}: {count} messages")
        late = f"{played.usually_late * 1e3:.1f} ms after their time in the mean, {played.late * 1e3:.1f} ms at most"
        print(f"played {sum(played.counts.values())} messages in {played.seconds:.1f} s, {late}")
        return SIGNALLED + stopped() if stopped() else 0


def _player() -> Any:
    """The part that needs ROS. The runtime imports neither rclpy nor what stands on it, so it is found by its name."""
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        raise InstanceFlowError(
            f"playing a bag needs ROS 2, but rclpy does not import ({_reason(error)}); source the setup.bash of ROS, "
            "or run `make setup`, then source ros2_ws/install/setup.bash; instance-flow run needs none"
        ) from error
    try:
        return importlib.import_module("instance_flow_ros.player")
    except ImportError as error:
        raise InstanceFlowError(
            f"playing a bag needs our ROS workspace, but instance_flow_ros does not import ({_reason(error)}); build "
            "it with `make setup` or `colcon build`, then source ros2_ws/install/setup.bash"
        ) from error


def _reason(error: ImportError) -> str:
    return shown(" ".join(str(error).split()))


def _renamed(text: str) -> tuple[str, str]:
    old, separator, new = text.partition(":=")
    if not (old and separator and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:=B, for example /camera/image_raw:=/image")
    return old, new
