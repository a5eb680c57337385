# SPDX-License-Identifier: Apache-2.0
"""The examples for a planner in processes of their own, fed with messages made of tracks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from instance_flow_msgs.msg import ClassTable, Instance3D, TrackedInstanceArray
from node_process import program
from numpy.typing import NDArray
from probe import to_header
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2

from instance_flow.formats.messages import to_instance_array
from instance_flow.structures import Tracks
from instance_flow_examples.follow import OPTICAL, UPRIGHT, Level, goal
from instance_flow_examples.obstacles import MOST_POINTS, obstacle_points
from instance_flow_ros.conversions import TYPES

CLASSES = ("person", "car")
PERSON, CAR = range(2)
CAMERA, ODOM = "camera_optical_frame", "odom"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass
class Thing:
    """An object of one pixel, at a place with a box around it; metres, m/s and radians about z."""

    id: int
    kind: int = PERSON
    at: Sequence[float] = (0.0, 0.0, 4.0)
    velocity: Sequence[float] = (0.0, 0.0, 0.0)
    deviation: float = 0.1
    extent: Sequence[float] = (1.0, 0.6, 0.4)
    yaw: float = 0.0
    state: int = Instance3D.MEASURED
    frame: int = field(default=0, repr=False)


def message_of(*things: Thing, frame: str = CAMERA, index: int = 0) -> TrackedInstanceArray:
    """What the node says of these things."""
    n, ids = len(things), np.array([thing.id for thing in things], np.int64)
    known = np.array([thing.state == Instance3D.MEASURED for thing in things], bool)

    def column(values: Sequence[Any], *shape: int) -> NDArray[np.float32]:
        array = np.array(values, np.float32).reshape(n, *shape)
        array[~known] = np.nan
        return array

    covariances = [np.diag([0.01] * 3 + [thing.deviation**2] * 3) for thing in things]
    tracks = Tracks(
        frame_index=index,
        label_map=np.pad(ids[None].astype(np.int32), ((0, 1), (0, 1))),
        ids=ids,
        class_ids=np.array([thing.kind for thing in things], np.int64),
        scores=np.ones(n, np.float32),
        semantic_scores=np.ones(n, np.float32),
        center_scores=np.ones(n, np.float32),
        centers=np.zeros((n, 2), np.float32),
        boxes=np.array([(i, 0, 1, 1) for i in range(n)], np.float32).reshape(n, 4),
        areas=np.ones(n, np.int64),
        velocities=np.zeros((n, 2), np.float32),
        states=np.ones(n, np.int64),
        ages=np.ones(n, np.int64),
        age_seconds=np.ones(n),
        reference_frames=np.zeros(n, np.int64),
        distances=np.zeros(n, np.float32),
        velocity_covariances=np.zeros((n, 2, 2), np.float32),
        spatial_states=np.array([thing.state for thing in things], np.int64),
        points=np.full(n, 100),
        positions=column([thing.at for thing in things], 3),
        spatial_velocities=column([thing.velocity for thing in things], 3),
        spatial_covariances=column(covariances, 6, 6),
        box_centers=column([thing.at for thing in things], 3),
        extents=column([thing.extent for thing in things], 3),
        rotations=column([Rotation.from_euler("z", thing.yaw).as_matrix() for thing in things], 3, 3),
    )
    return to_instance_array(TYPES, tracks, to_header(10**9 * (index + 1)), CLASSES, spatial_frame=frame)


class Script:
    """An example in a process of its own, and a node that feeds it and hears it."""

    def __init__(self, log: Path, name: str, namespace: str, message_type: Any, topic: str, parameters: Any) -> None:
        self._log = log
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("feeder", namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.heard: list[Any] = []
        self.node.create_subscription(message_type, topic, self.heard.append, qos_profile_sensor_data)
        table = self.node.create_publisher(ClassTable, "instance_flow/class_table", LATCHED)
        table.publish(ClassTable(model="m", class_names=list(CLASSES)))
        self.instances = self.node.create_publisher(TrackedInstanceArray, "instance_flow/instances", 10)
        command = [str(program(name, "instance_flow_examples")), "--ros-args", "-r", f"__ns:={namespace}"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={value}"]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        self.until(lambda: self.instances.get_subscription_count(), "a subscription")
        self.until(lambda: self.node.count_publishers(topic), "a publisher")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = monotonic() + 30
        while not condition():
            assert self.process.poll() is None, self.log()
            assert monotonic() < deadline, f"waited in vain for {what}; heard {self.heard}; log:\n{self.log()}"
            self._executor.spin_once(timeout_sec=0.02)

    def log(self) -> str:
        return self._log.read_text()

    def answer(self, message: TrackedInstanceArray) -> Any:
        """Send a message until it is answered, since discovery may not be over, and give the answer."""
        for _ in range(100):
            heard = len(self.heard)
            self.instances.publish(message)
            deadline = monotonic() + 0.5
            while monotonic() < deadline:
                self._executor.spin_once(timeout_sec=0.02)
                for answer in self.heard[heard:]:
                    if answer.header.stamp == message.header.stamp:
                        return answer
        raise AssertionError(f"no answer; log:\n{self.log()}")

    def until_logged(self, message: TrackedInstanceArray, words: str) -> None:
        """Send a message until the log has some words."""
        timer = self.node.create_timer(0.05, lambda: self.instances.publish(message))
        self.until(lambda: words in self.log(), repr(words))
        self.node.destroy_timer(timer)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()


NAMESPACES = count()
SCRIPTS = {"obstacles.py": (PointCloud2, "obstacles"), "follow.py": (PoseStamped, "goal_update")}


@pytest.fixture
def start_script(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start_one(name: str, **parameters: object) -> Script:
        log = tmp_path / f"{len(scripts)}.log"
        scripts.append(Script(log, name, f"/planner_{next(NAMESPACES)}", *SCRIPTS[name], parameters))
        return scripts[-1]

    yield start_one
    for script in scripts:
        script.close()


def points_of(cloud: PointCloud2) -> NDArray[np.float32]:
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
    ]
    assert (cloud.height, cloud.point_step, cloud.row_step) == (1, 12, 12 * cloud.width)
    return np.frombuffer(cloud.data.tobytes(), "<f4").reshape(cloud.width, 3)


def spans(points: NDArray[Any]) -> list[list[float]]:
    """Least and greatest x, y, z."""
    ends = np.array([points.min(0), points.max(0)], np.float64)
    return ends.round(3).tolist()  # type: ignore[no-any-return]


STILL = Thing(1, at=(2, 0, 4))
BOX = [[1.5, -0.3, 3.8], [2.5, 0.3, 4.2]]
MOVED = [[1.5, -0.3, 3.8], [4.5, 0.3, 4.2]]
HIDDEN = Thing(2, state=Instance3D.TOO_FEW_POINTS)
CASES: dict[str, tuple[Thing, str, float, Any]] = {
    "stands": (STILL, "", 1.0, BOX),
    "moves": (Thing(1, at=(2, 0, 4), velocity=(2, 0, 0)), "", 1.0, MOVED),
    "moves for less time": (Thing(1, at=(2, 0, 4), velocity=(8, 0, 0)), "", 0.25, MOVED),
    "is not moved on": (Thing(1, at=(2, 0, 4), velocity=(2, 0, 0)), "", 0.0, BOX),
    "velocity uncertain": (Thing(1, at=(2, 0, 4), velocity=(2, 0, 0), deviation=0.6), "", 1.0, BOX),
    "velocity unknown": (Thing(1, at=(2, 0, 4), velocity=(np.nan,) * 3, deviation=np.nan), "", 1.0, BOX),
    "turned": (Thing(1, at=(2, 0, 4), yaw=np.pi / 2), "", 1.0, [[1.7, -0.5, 3.8], [2.3, 0.5, 4.2]]),
    "of the class": (STILL, "person", 1.0, BOX),
    "of another class": (STILL, "car", 1.0, None),
    "no place": (HIDDEN, "", 1.0, None),
    "flat": (Thing(1, extent=(1, 1, 0)), "", 1.0, [[-0.5, -0.5, 4], [0.5, 0.5, 4]]),
    "a point": (Thing(1, extent=(0, 0, 0)), "", 1.0, [[0, 0, 4], [0, 0, 4]]),
}


@pytest.mark.parametrize(("thing", "name", "seconds", "expected"), CASES.values(), ids=CASES)
def test_points_are_on_the_box_and_on_its_way(thing: Thing, name: str, seconds: float, expected: Any) -> None:
    points = obstacle_points(message_of(thing), [name] if name else [], 0.05, seconds, 0.5)
    assert (spans(points) if len(points) else None) == expected


@pytest.mark.parametrize("turn", [0.0, 0.3, 1.0])
def test_a_costmap_gets_the_whole_footprint_of_the_box_and_of_its_way(turn: float) -> None:
    """Looked at from above, every cell of the swept rectangle has a point."""
    thing = Thing(1, at=(0, 0, 1), velocity=(1, 0, 0), yaw=turn)
    points = obstacle_points(message_of(thing, frame=ODOM), [], 0.05, 1.0, 0.5)
    cells = set(map(tuple, np.floor(points[:, :2] / 0.1).astype(int).tolist()))
    own = Rotation.from_euler("z", turn).as_matrix()[:2, :2]
    inside = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 40), np.linspace(-0.2, 0.2, 40)), -1).reshape(-1, 2) @ own.T
    for way in np.linspace(0, 1, 30):
        assert set(map(tuple, np.floor((inside + np.array([way, 0])) / 0.1).astype(int).tolist())) <= cells


@pytest.mark.parametrize("extent", [(20, 20, 20), (1000, 0.1, 0), (1e6, 1e6, 1e6)], ids=str)
def test_a_huge_box_has_a_bounded_number_of_points(extent: Sequence[float]) -> None:
    thing = Thing(1, extent=extent, velocity=(50, 0, 0))
    assert len(obstacle_points(message_of(thing), [], 0.05, 60, 0.5)) < 3 * MOST_POINTS


def test_obstacles_are_a_cloud_in_the_frame_and_of_the_time_of_the_message(start_script: Callable[..., Script]) -> None:
    script = start_script("obstacles.py", classes="person,persn", seconds=1, resolution=0.1)
    moving = Thing(1, at=(2, 0, 4), velocity=(2, 0, 0))
    cloud = script.answer(message := message_of(moving, HIDDEN, Thing(3, CAR), frame=ODOM, index=3))
    assert (cloud.header.frame_id, cloud.header.stamp) == (ODOM, message.header.stamp)
    assert spans(points_of(cloud)) == MOVED
    assert points_of(script.answer(message_of(index=4))).shape == (0, 3)
    script.until(lambda: "model m has no class 'persn'" in script.log(), "the wrong class in the log")
    for index in (5, 6):
        relative = script.answer(message_of(moving, index=index))
        assert (relative.header.frame_id, spans(points_of(relative))) == (CAMERA, BOX)
    script.until(lambda: "velocities are relative to the camera" in script.log(), "why nothing is moved on")
    assert script.log().count("velocities are relative") == 1


LEVELS = {"optical": (OPTICAL, (0, 0, 1), (0, -1, 0)), "z up": (UPRIGHT, (1, 0, 0), (0, 0, 1))}


@pytest.mark.parametrize(("level", "ahead", "up"), LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("bearing", [0, 20, -90, 179], ids="{} degrees".format)
def test_goal_is_on_the_line_of_sight_and_faces_the_object(
    level: Level, ahead: Sequence[float], up: Sequence[float], bearing: float
) -> None:
    sight = Rotation.from_rotvec(np.radians(bearing) * np.array(up)).apply(ahead)
    camera = np.array([3.0, -2.0, 1.0])
    pose = goal(camera + 5 * sight + 0.7 * np.array(up), camera, level, 1.5)
    turn = Rotation.from_quat([getattr(pose.orientation, name) for name in "xyzw"])
    at = np.array([pose.position.x, pose.position.y, pose.position.z])
    np.testing.assert_allclose(at, camera + 3.5 * sight + 0.7 * np.array(up), atol=1e-9)
    np.testing.assert_allclose(turn.apply([1, 0, 0]), sight, atol=1e-9)
    np.testing.assert_allclose(turn.apply([0, 0, 1]), up, atol=1e-9)


def z_of(script: Script, index: int, *things: Thing) -> float:
    return float(script.answer(message_of(*things, index=index)).pose.position.z)


def test_the_nearest_of_a_class_is_followed_and_found_again(start_script: Callable[..., Script]) -> None:
    script = start_script("follow.py", class_name="person", distance=1)
    frame = count()
    script.until_logged(message_of(Thing(5, CAR), index=next(frame)), "no person with a place in metres is seen yet")
    far, near = Thing(1, at=(0, 0, 6)), Thing(2, at=(0, 0, 3))
    assert z_of(script, next(frame), far, near, Thing(5, CAR, at=(0, 0, 1))) == pytest.approx(2)
    near.at = (0, 0, 8)
    assert z_of(script, next(frame), far, near) == pytest.approx(7), "kept, though it is not the nearest any more"
    heard = len(script.heard)
    script.until_logged(message_of(far, index=next(frame)), "object 2 is not seen; waiting for it")
    for things in ((HIDDEN, far), (far,), (), (HIDDEN,)):
        script.instances.publish(message_of(*things, index=next(frame)))
    near.kind = CAR  # The votes on its class have changed.
    assert z_of(script, next(frame), far, near) == pytest.approx(7)
    assert len(script.heard) == heard + 1, "a goal was published while the object was not seen"
    assert script.log().count("no goal") == 2
    assert script.log().count("following person 2") == 1
    assert script.log().count("following car 2") == 1
    script.until_logged(message_of(HIDDEN, index=next(frame)), "object 2 is seen, but its place in metres is not known")
    assert z_of(script, 0, Thing(1, at=(0, 0, 4))) == pytest.approx(3), "ids began anew"


def test_one_id_is_followed_and_another_frame_needs_tf(start_script: Callable[..., Script]) -> None:
    script = start_script("follow.py", id=7)
    script.until_logged(message_of(Thing(1)), "object 7 is not seen")
    pose = script.answer(message := message_of(Thing(1), Thing(7, CAR, at=(1, 0.5, 1)), index=1))
    assert (pose.header.frame_id, pose.header.stamp) == (CAMERA, message.header.stamp)
    assert [pose.pose.position.x, pose.pose.position.y, pose.pose.position.z] == pytest.approx([1, 0.5, 1])
    script.until_logged(message_of(Thing(7), frame=ODOM, index=2), "'odom'")


REFUSED = {
    "nothing to follow": ("follow.py", [], "set either the parameter id or class_name"),
    "two to follow": ("follow.py", ["id:=1", "class_name:=car"], "set either the parameter id or class_name"),
    "a distance behind it": ("follow.py", ["id:=1", "distance:=-1"], "distance is -1; expected a number from 0"),
    "an id that is a word": ("follow.py", ["id:=one"], "the parameter id is 'one'; expected a number"),
    "a class that is no text": ("follow.py", ["class_name:=yes"], "the parameter class_name is True; expected a text"),
    "seconds that are no number": ("obstacles.py", ["seconds:=.nan"], "the parameter seconds is nan; expected"),
    "no resolution": ("obstacles.py", ["resolution:=0"], "the parameter resolution is 0; expected a number from 0.005"),
    "classes as a list": ("obstacles.py", ["classes:=[a, b]"], "the parameter classes is ['a', 'b']; expected a text"),
}


@pytest.mark.parametrize(("name", "parameters", "words"), REFUSED.values(), ids=REFUSED)
def test_wrong_parameter_is_refused_in_one_sentence(name: str, parameters: list[str], words: str) -> None:
    command = [str(program(name, "instance_flow_examples")), "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
