# SPDX-License-Identifier: Apache-2.0
"""The whole way, live: a recording is played to the real node, and the node's answers are drawn and kept."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import rclpy
from node_process import NodeProcess
from own_domain import own_domain
from recorder import DemoError, NodeMessage, Recorder
from report import compare_with_offline, summarise, write_bag, write_pictures
from tqdm import tqdm

from instance_flow.formats.bags import BagImages
from instance_flow.network.installation import bundled_model_path
from instance_flow.structures import InstanceFlowError

HERE = Path(__file__).resolve().parent
_LONGEST_START = 600.0
"""Seconds; TensorRT builds its engine in minutes."""
_SILENCE = 15.0
"""Seconds without an answer after which the node is given up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0, or 1 where it did not come to its end."""
    options = parse(arguments)
    try:
        run(options)
    except (DemoError, InstanceFlowError, OSError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bag", type=Path, default=HERE / "demo.mcap", help="recording with one topic of images")
    parser.add_argument("--model", type=Path, help="model file (default: the bundled one)")
    parser.add_argument("--provider", default="auto", help="auto, cpu, cuda or tensorrt (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results (default: out/demo)")
    parser.add_argument(
        "--compare", action="store_true", help="also run offline, and check that the tracks are the same"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Play, record, and write what came of it."""
    model = options.model or bundled_model_path()
    images = BagImages(options.bag)
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        prepare_ros(stack, options.out)
        process = start_node(stack, options, model, images.topic)
        recorder = Recorder(process)
        with tqdm(desc="starting the node", bar_format="{desc}: {elapsed}", disable=None) as clock:
            recorder.wait_until_active(_LONGEST_START, clock.refresh)
        print("the node is active", flush=True)
        sent = play(stack, recorder, options, len(images))
        if (code := process.stop()) != 0:
            raise DemoError(f"the node ended with exit code {code}\n{process.log_tail()}")
    write_bag(options.out / "tracks.mcap", recorder.answers)
    write_pictures(options.out, images, recorder.answers)
    print(summarise(sent, recorder.answers, recorder.provider, options.out))
    if options.compare:
        print(compare_with_offline(model, recorder.provider, images, recorder.answers))


def prepare_ros(stack: ExitStack, out: Path) -> None:
    """Keep to ourselves."""
    stack.enter_context(own_domain(out / "ros_log"))
    rclpy.init()
    stack.callback(rclpy.try_shutdown)


def start_node(stack: ExitStack, options: argparse.Namespace, model: Path, topic: str) -> NodeProcess:
    """Start the node for a topic of images, compressed or not."""
    base, compressed = topic.removesuffix("/compressed"), topic.endswith("/compressed")
    parameters = {
        "model": model.resolve(),
        "provider": options.provider,
        "image_transport": "compressed" if compressed else "raw",
    }
    process = NodeProcess(options.out / "node.log", parameters, {"image": base})
    stack.callback(process.stop)
    return process


def play(stack: ExitStack, recorder: Recorder, options: argparse.Namespace, total: int) -> dict[int, int]:
    """Play the bag and record until its last image is answered; gives stamp -> when it was sent."""
    file = options.out / "sent.json"
    file.unlink(missing_ok=True)
    player = subprocess.Popen(
        [sys.executable, str(HERE / "player.py"), str(options.bag), str(file)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    stack.callback(end_player, player)
    with tqdm(desc="playing", total=total, unit="frame", disable=None) as bar:
        heard: dict[int, NodeMessage] = {}

        def has_progress() -> bool:
            bar.update(len(recorder.answers) - bar.n)
            return len(recorder.answers) != len(heard) or file.exists() or player.poll() is not None

        while not file.exists():
            heard = dict(recorder.answers)
            if not recorder.spin(has_progress, _SILENCE):
                raise DemoError(f"the node did not answer for {_SILENCE:.0f} s")
            if player.poll() is not None:
                raise DemoError("the player ended before the recording was played; what it said stands above")
        sent = {int(stamp): time for stamp, time in json.loads(file.read_text()).items()}
        if not recorder.spin(lambda: max(sent) in recorder.answers, _SILENCE):
            raise DemoError(f"the node did not answer to the last image within {_SILENCE:.0f} s")
        bar.update(len(recorder.answers) - bar.n)
    return sent


def end_player(player: subprocess.Popen[bytes]) -> None:
    """Let the player go, which may wait for the end of its input or still be playing."""
    if player.stdin is not None:
        player.stdin.close()
    player.terminate()
    try:
        player.wait(10)
    except subprocess.TimeoutExpired:
        player.kill()
        player.wait()


if __name__ == "__main__":
    sys.exit(main())
