# SPDX-License-Identifier: Apache-2.0
"""The tracks of a bag's images as a bag of their own, with the messages that the live node would have sent: played
beside the recording, it replaces the node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from instance_flow.formats.bag_writer import BagWriter
from instance_flow.formats.messages import (
    MASK_BUDGET,
    PACKAGE,
    MessageTypes,
    to_class_table,
    to_instance_array,
    to_label_pixels,
)
from instance_flow.formats.video import Frame
from instance_flow.network.installation import message_definitions
from instance_flow.replay.outputs import Add
from instance_flow.structures import LabelMap, ModelInfo, Tracks

NODE = "/instance_flow"
FORMS = {"mcap": "tracks.mcap", "db3": "tracks.db3", "folder": "tracks"}
"""Names of the bag by its form: a single file, or a folder of an .mcap file and its metadata.yaml."""

_LABEL_ENCODING = "16UC1"
_TYPES = {
    PACKAGE: (
        "TrackedInstanceArray",
        "TrackedInstance",
        "Instance3D",
        "RunLengthMask",
        "ClassTable",
        "Box2D",
        "Vector2D",
    ),
    "geometry_msgs": ("Point", "Vector3", "Quaternion", "Pose"),
}


@contextmanager
def tracks_bag_output(
    path: Path,
    info: ModelInfo,
    camera: str = "",
    *,
    label_images: bool = False,
    mask_budget: int = MASK_BUDGET,
    spatial_frame: str = "",
) -> Iterator[Add]:
    """A bag of the topics ``/instance_flow/instances`` and ``/instance_flow/class_table``.

    A message has the header of its image, and the bag's own time of that image. The class table is the first message,
    with the first image's times.

    path: ends in .mcap or .db3, or names a folder.
    camera: its name where there are several; its topic is ``/instance_flow/<camera>/instances`` then.
    label_images: write the topic ``label_image``, too.   mask_budget, spatial_frame: as in ``to_instance_array``.
    """
    prefix = f"{NODE}/{camera}" if camera else NODE
    with BagWriter(path, overwrite=True) as bag:
        bag.register(message_definitions())
        types, begun = _message_types(bag), False

        def add(frame: Frame, tracks: Tracks) -> None:
            nonlocal begun
            header, received = bag.header(frame.time, frame.frame_id), frame.received or 0
            if not begun:
                table = to_class_table(types, info, bag.header(frame.time, ""))
                bag.write_message(f"{NODE}/class_table", table, received, latched=True)
                begun = True
            message = to_instance_array(types, tracks, header, info.class_names, mask_budget, spatial_frame)
            bag.write_message(f"{prefix}/instances", message, received)
            if label_images:
                _write_labels(bag, f"{prefix}/label_image", tracks.label_map, frame)

        yield add


def _message_types(bag: BagWriter) -> MessageTypes:
    types = {name: bag.typestore.types[f"{package}/msg/{name}"] for package, names in _TYPES.items() for name in names}
    return MessageTypes(**types, uint32s=lambda runs: np.asarray(runs, np.uint32))


def _write_labels(bag: BagWriter, topic: str, label_map: LabelMap, frame: Frame) -> None:
    pixels = to_label_pixels(label_map)
    bag.write_image(
        topic, pixels, frame.time, frame_id=frame.frame_id, encoding=_LABEL_ENCODING, received=frame.received or 0
    )
