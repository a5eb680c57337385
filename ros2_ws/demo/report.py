# SPDX-License-Identifier: Apache-2.0
"""What is left of a live run: the bag of tracks, the pictures and the figures; and what the offline run finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from instance_flow_msgs.msg import TrackedInstanceArray
from recorder import DemoError, NodeMessage
from tqdm import tqdm

from instance_flow import Pipeline
from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.bags import BagImages
from instance_flow.formats.messages import to_instance_array, to_tracks
from instance_flow.formats.video import Frame
from instance_flow.network.installation import message_definitions
from instance_flow.replay.outputs import SHEET, VIDEO, sheet_output, video_output
from instance_flow.stream import Stream
from instance_flow_ros.conversions import TYPES

TOPIC = "/instance_flow/instances"
TYPE = "instance_flow_msgs/msg/TrackedInstanceArray"


def write_bag(path: Path, answers: Mapping[int, NodeMessage]) -> None:
    """Write the answers as they came, under the stamps of their images."""
    with BagWriter(path) as bag:
        bag.register(message_definitions())
        for stamp, answer in answers.items():
            bag.write_serialized(TOPIC, TYPE, answer.data, stamp)


def write_pictures(folder: Path, images: BagImages, answers: Mapping[int, NodeMessage]) -> None:
    """Draw the answers' masks over the bag's own images: a video of all images, and a contact sheet."""
    names = class_names(answers)
    with video_output(folder, names, images.rate or 10.0) as video, sheet_output(folder, names) as sheet:
        for image in tqdm(images, desc="drawing", unit="frame", disable=None):
            frame = Frame(image.image, image.stamp, image.frame_id, "")
            if image.stamp in answers:
                tracks = to_tracks(answers[image.stamp].message)
                sheet(frame, tracks)
            else:
                height, width = image.image.shape[:2]
                tracks = to_tracks(TrackedInstanceArray(height=height, width=width))
            video(frame, tracks)


def class_names(answers: Mapping[int, NodeMessage]) -> list[str]:
    """Names by class_id, as far as they were seen."""
    known = {i.class_id: i.class_name for answer in answers.values() for i in answer.message.instances}
    return [known.get(number, "") for number in range(max(known, default=-1) + 1)]


def summarise(sent: Mapping[int, int], answers: Mapping[int, NodeMessage], provider: str, folder: Path) -> str:
    """Put the figures in a table; latency is from the player's publish to the recorder's callback."""
    latencies = [(answer.received - sent[stamp]) / 1e6 for stamp, answer in answers.items()]
    p50, p95 = np.percentile(latencies, (50, 95))
    counts = [len(answer.message.instances) for answer in answers.values()]
    ids = {i.id for answer in answers.values() for i in answer.message.instances}
    rows = {
        "frames sent": str(len(sent)),
        "frames answered": f"{len(answers)} ({len(answers) / len(sent):.0%})",
        "latency p50 / p95": f"{p50:.1f} / {p95:.1f} ms",
        "objects": f"{sum(counts)} in all, up to {max(counts)} at once",
        "ids": str(len(ids)),
        "provider": provider,
        "files": ", ".join(str(folder / name) for name in (VIDEO, SHEET, "tracks.mcap")),
    }
    return "\n".join(f"{name:<18} {value}" for name, value in rows.items())


def compare_with_offline(model: Path, provider: str, images: BagImages, answers: Mapping[int, NodeMessage]) -> str:
    """Run the pipeline offline over the images that were answered; DemoError where it gives other messages."""
    pipeline = Pipeline.load(model, provider=provider)
    stream = Stream(pipeline)
    for image in tqdm(images, desc="comparing", unit="frame", disable=None):
        if image.stamp not in answers:
            continue
        live = answers[image.stamp].message
        offline = to_instance_array(
            TYPES,
            stream.step(image.image, image.stamp, image.encoding),
            live.header,
            pipeline.info.class_names,
        )
        if repr(live) != repr(offline):  # As text, where NaN equals NaN.
            raise DemoError(
                f"frame {live.frame_index}: the live node found ids {[i.id for i in live.instances]}, "
                f"the offline run {[i.id for i in offline.instances]}, or their figures differ"
            )
    return f"compared           the offline run finds the same tracks in all {len(answers)} frames"
