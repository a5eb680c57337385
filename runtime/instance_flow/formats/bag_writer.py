# SPDX-License-Identifier: Apache-2.0
"""New ROS 2 bags without ROS. It needs rosbags, as ``bags`` does."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from instance_flow.formats.atomic import replacing
from instance_flow.formats.bag_files import STORAGE, URI_CHARACTERS
from instance_flow.formats.bags import COMPRESSED, RAW, typestore
from instance_flow.formats.depth_messages import FARTHEST, Depth, compress
from instance_flow.structures import Image, InstanceFlowError, SourceError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos


CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TRANSFORMS = "tf2_msgs/msg/TFMessage"

_PIXELS = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "mono8": (np.uint8, 1),
    "mono16": (np.uint16, 1),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
}

Stamp = int | tuple[int, int]
"""Nanoseconds, or seconds and nanoseconds as they are to stand in a header."""


class Calibration(Protocol):
    """Matrix K, and the coefficients of a model of distortion; ``spatial.camera.CameraModel`` is one."""

    @property
    def matrix(self) -> NDArray[Any]: ...

    @property
    def distortion(self) -> NDArray[Any] | tuple[float, ...]: ...

    @property
    def distortion_model(self) -> str: ...


class BagWriter:
    """Write a bag that appears under its name only when it is whole; use it as a context manager.

    path: ``name.mcap`` or ``name.db3`` makes that one file and replaces an old one; any other name makes a bag folder
        with metadata.yaml, and one that is there already is a SourceError.
    storage: "mcap" or "sqlite3" for a folder; a file's name says it.
    overwrite: a folder takes the place of one that was written here before, too (``is_written``).
    Raises InstanceFlowError and OSError where it cannot be written. Leaving with an exception leaves nothing behind.
    """

    def __init__(self, path: Path | str, storage: str = "mcap", overwrite: bool = False) -> None:
        self.path = Path(path)
        self._single = self.path.suffix in STORAGE
        self._storage = STORAGE.get(self.path.suffix, storage)
        if self._storage not in STORAGE.values():
            raise ValueError(f"storage is {storage!r}; expected one of {', '.join(STORAGE.values())}")
        replaceable = self.path.is_file() if self._single else overwrite and is_written(self.path)
        if self.path.exists() and not replaceable:
            raise SourceError(f"{self.path} exists already; remove it or choose another name for the new bag")
        self._connections: dict[tuple[str, str], Connection] = {}
        self.typestore = typestore()

    def __enter__(self) -> BagWriter:
        from rosbags.rosbag2 import StoragePlugin, Writer

        with _naming_the_bag(self.path), ExitStack() as stack:
            whole = stack.enter_context(replacing(self.path))
            folder = whole.with_name("bag") if self._single else whole
            if self._storage == "sqlite3" and any(character in str(folder) for character in URI_CHARACTERS):
                folder = self._under_a_plain_name(folder, stack)
            if self._single:
                stack.callback(_move, folder / f"bag{self.path.suffix}", whole)
            writer = Writer(folder, version=9, storage_plugin=StoragePlugin[self._storage.upper()])
            self._writer = stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def _under_a_plain_name(self, folder: Path, stack: ExitStack) -> Path:
        """The same folder by a path that SQLite does not take for part of an address."""
        if any(character in folder.name for character in URI_CHARACTERS):
            raise SourceError(
                f"{self.path}: a bag folder of SQLite files cannot have any of {' '.join(URI_CHARACTERS)} in its name; "
                "choose another one, or the storage mcap"
            )
        link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="instance-flow-bag-"))) / "here"
        link.symlink_to(folder.parent.resolve())
        return link / folder.name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _naming_the_bag(self.path):
            self._stack.__exit__(kind, error, trace)

    def register(self, definitions: Mapping[str, str]) -> None:
        """Make message types known: full names (``instance_flow_msgs/msg/TrackedInstance``) and texts of .msg files."""
        from rosbags.typesys import get_types_from_msg

        types: dict[str, Any] = {}
        for name, text in definitions.items():
            types.update(get_types_from_msg(text, name))
        self.typestore.register(types)

    def write_serialized(
        self, topic: str, message_type: str, data: bytes, received: int, *, latched: bool = False
    ) -> None:
        """Write the CDR bytes of a message whose type is a standard one or was registered.

        latched: players offer the topic to those who come later, too (transient local); the topic's first message says.
        """
        key = (topic, message_type)
        with _naming_the_bag(self.path):
            if key not in self._connections:
                if message_type not in self.typestore.fielddefs:
                    raise ValueError(f"message type {message_type} is not known; register its definition first")
                self._connections[key] = self._writer.add_connection(
                    *key, typestore=self.typestore, offered_qos_profiles=_latched_qos() if latched else ()
                )
            self._writer.write(self._connections[key], received, data)

    def write_message(self, topic: str, message: Any, received: int, *, latched: bool = False) -> None:
        """Write a message built from ``typestore.types``; latched as in ``write_serialized``."""
        message_type = message.__msgtype__
        data = bytes(self.typestore.serialize_cdr(message, message_type))
        self.write_serialized(topic, message_type, data, received, latched=latched)

    def write_image(
        self,
        topic: str,
        image: NDArray[Any],
        stamp: Stamp,
        *,
        frame_id: str = "",
        encoding: str = "rgb8",
        received: int | None = None,
    ) -> None:
        """Write pixels as they are: (H, W, 3) uint8 for rgb8 and bgr8, (H, W) uint8 for mono8, uint16 for mono16
        and 16UC1, float32 for 32FC1.

        received: the bag's own time of the message, ``stamp`` unless given.
        """
        dtype, channels = _PIXELS.get(encoding, (None, 0))
        if dtype is None:
            raise ValueError(f"encoding is {encoding!r}; expected one of {', '.join(_PIXELS)}")
        if (
            image.dtype != dtype
            or image.shape[2:] != ((channels,) if channels > 1 else ())
            or image.ndim < 2
            or not image.size
        ):
            raise ValueError(f"{encoding} does not hold an array of shape {image.shape} and type {image.dtype}")
        pixels = np.ascontiguousarray(image)
        height, width = pixels.shape[:2]
        message = self.typestore.types[RAW](
            header=self.header(stamp, frame_id),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels.nbytes // height,
            data=pixels.reshape(-1).view(np.uint8),
        )
        self.write_message(topic, message, _nanoseconds(stamp) if received is None else received)

    def write_jpeg(
        self,
        topic: str,
        image: Image,
        stamp: int,
        *,
        frame_id: str = "",
        quality: int = 90,
        received: int | None = None,
    ) -> None:
        """Write (H, W, 3) uint8 RGB as a CompressedImage of the given JPEG quality, 0 to 100."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        message = self.typestore.types[COMPRESSED](
            header=self.header(stamp, frame_id), format="rgb8; jpeg compressed bgr8", data=data.reshape(-1)
        )
        self.write_message(topic, message, stamp if received is None else received)

    def depth(self, topic: str, depth: Depth, stamp: Stamp, frame_id: str = "") -> None:
        """Write (H, W) uint16 millimetres as 16UC1, float32 metres as 32FC1."""
        self.write_image(topic, depth, stamp, frame_id=frame_id, encoding=_depth_encoding(depth))

    def compressed_depth(
        self, topic: str, depth: Depth, stamp: Stamp, frame_id: str = "", farthest: float = FARTHEST
    ) -> None:
        """Write (H, W) uint16 millimetres or float32 metres as compressed_depth_image_transport does: ``compress``."""
        encoding = _depth_encoding(depth)
        message = self.typestore.types[COMPRESSED](
            header=self.header(stamp, frame_id),
            format=f"{encoding}; compressedDepth png",
            data=np.frombuffer(compress(depth, farthest), np.uint8),
        )
        self.write_message(topic, message, _nanoseconds(stamp))

    def camera_info(
        self, topic: str, camera: Calibration, size: tuple[int, int], stamp: Stamp, frame_id: str = ""
    ) -> None:
        """Write K, D and distortion model of a camera for images of (height, width). R is none, P is K."""
        matrix = np.asarray(camera.matrix, np.float64).reshape(3, 3)
        message = self.typestore.types[CAMERA_INFO](
            header=self.header(stamp, frame_id),
            height=size[0],
            width=size[1],
            distortion_model=camera.distortion_model,
            d=np.asarray(camera.distortion, np.float64),
            k=matrix.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([matrix, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=self.typestore.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
        )
        self.write_message(topic, message, _nanoseconds(stamp))

    def transforms(self, topic: str, transforms: Iterable[tuple[str, str, NDArray[Any]]], stamp: Stamp) -> None:
        """Write a tf2_msgs/TFMessage: of each transform its frame, its child frame, and the (4, 4) matrix from child to
        frame. A topic ``/tf_static`` is latched, as tf2 expects of it."""
        types = self.typestore.types
        message = types[TRANSFORMS](
            [
                types["geometry_msgs/msg/TransformStamped"](
                    header=self.header(stamp, frame),
                    child_frame_id=child,
                    transform=types["geometry_msgs/msg/Transform"](
                        translation=types["geometry_msgs/msg/Vector3"](*map(float, matrix[:3, 3])),
                        rotation=types["geometry_msgs/msg/Quaternion"](*_quaternion(matrix[:3, :3])),
                    ),
                )
                for frame, child, matrix in transforms
            ]
        )
        self.write_message(topic, message, _nanoseconds(stamp), latched=topic.endswith("/tf_static"))

    def header(self, stamp: Stamp, frame_id: str) -> Any:
        """Give a std_msgs/Header."""
        types = self.typestore.types
        seconds, nanoseconds = divmod(stamp, 10**9) if isinstance(stamp, int) else stamp
        time = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def is_written(folder: Path) -> bool:
    """Whether a folder is a bag as ``BagWriter`` leaves it: its file has its name. `ros2 bag record` adds a number."""
    files = (folder / f"{folder.name}{ending}" for ending in STORAGE)
    return (folder / "metadata.yaml").is_file() and any(file.is_file() for file in files)


@contextmanager
def _naming_the_bag(path: Path) -> Iterator[None]:
    """Name the bag that SQLite could not write; its error is not an OSError."""
    try:
        yield
    except sqlite3.Error as error:
        raise InstanceFlowError(f"{path}: cannot be written ({error}); is the disk full?") from error


def _move(file: Path, target: Path) -> None:
    if file.exists():
        file.replace(target)


def _depth_encoding(depth: NDArray[Any]) -> str:
    encoding = {np.dtype(np.uint16): "16UC1", np.dtype(np.float32): "32FC1"}.get(depth.dtype)
    if encoding is None or depth.ndim != 2 or not depth.size:
        raise ValueError(f"depth of shape {depth.shape} and type {depth.dtype}; expected (H, W) uint16 or float32")
    return encoding


def _quaternion(rotation: NDArray[Any]) -> tuple[float, float, float, float]:
    """x, y, z, w of a (3, 3) rotation."""
    turn = cv2.Rodrigues(np.asarray(rotation, np.float64))[0].ravel()
    angle = float(np.linalg.norm(turn))
    # sinc(x) is sin(pi x) / (pi x), and 1 where nothing is turned.
    x, y, z = turn / 2 * np.sinc(angle / (2 * np.pi))
    return float(x), float(y), float(z), float(np.cos(angle / 2))


def _nanoseconds(stamp: Stamp) -> int:
    return stamp if isinstance(stamp, int) else stamp[0] * 10**9 + stamp[1]


def _latched_qos() -> list[Qos]:
    """QoS of a topic whose last message is kept for those who come later."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    never = QosTime(2147483647, 4294967295)
    kept = QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL
    return [Qos(*kept, never, never, QosLiveliness.AUTOMATIC, never, False)]
