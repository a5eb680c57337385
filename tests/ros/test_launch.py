# SPDX-License-Identifier: Apache-2.0
"""The launch files: read with a stand-in for launch, and what they start is started for real."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import launch_stand_in
import pytest
import rclpy
import yaml
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from instance_flow_ros import healthcheck, launching, middleware

SHARE = Path(get_package_share_directory("instance_flow_ros"))
ONE, SEVERAL = (SHARE / "launch" / name for name in ("instance_flow.launch.py", "cameras.launch.py"))
PARAMETERS = str(SHARE / "config" / "instance_flow.yaml")
OUTPUTS = ("class_table", "instances", "label_image", "overlay")


@pytest.mark.parametrize("file", [pytest.param(ONE, id="one camera"), pytest.param(SEVERAL, id="several")])
def test_every_argument_is_described(file: Path) -> None:
    arguments = launch_stand_in.read(file).arguments
    assert all(argument.description for argument in arguments.values())
    common = {"model", "size", "conf", "classes", "provider", "compressed", "image", "namespace", "params_file"}
    assert common | {"respawn", "log_level", "rviz"} <= arguments.keys()


@pytest.mark.parametrize(
    ("arguments", "namespace", "image", "logger"),
    [
        pytest.param({}, "", "/camera/image_raw", "instance_flow:=info", id="as it comes"),
        pytest.param({"image": "/front/rgb"}, "", "/front/rgb", "instance_flow:=info", id="another topic"),
        pytest.param({"namespace": "a/b"}, "a/b", "/camera/image_raw", "a.b.instance_flow:=info", id="namespace"),
        pytest.param({"log_level": "debug"}, "", "/camera/image_raw", "instance_flow:=debug", id="log level"),
    ],
)
def test_one_camera(arguments: dict[str, str], namespace: str, image: str, logger: str) -> None:
    (node,) = launch_stand_in.read(ONE, **arguments).nodes
    assert (node.name, node.namespace, node.remappings) == ("instance_flow", namespace, {"image": image})
    assert node.ros_arguments == ["--log-level", logger]
    assert node.parameters == [PARAMETERS]
    assert not node.respawn


RAW_DEPTH, COMPRESSED_DEPTH = "/camera/aligned/image_raw", "/camera/aligned/image_raw/compressedDepth"


@pytest.mark.parametrize(
    ("arguments", "remappings", "transport"),
    [
        pytest.param(
            {"depth": RAW_DEPTH},
            {"depth": RAW_DEPTH, "camera_info": "/camera/camera_info"},
            "raw",
            id="beside the image",
        ),
        pytest.param(
            {"depth": COMPRESSED_DEPTH, "camera_info": "/info"},
            {"depth/compressedDepth": COMPRESSED_DEPTH, "camera_info": "/info"},
            "compressed",
            id="compressed, with its own calibration",
        ),
    ],
)
def test_depth_of_one_camera(arguments: dict[str, str], remappings: dict[str, str], transport: str) -> None:
    (node,) = launch_stand_in.read(ONE, **arguments).nodes
    assert node.remappings == {"image": "/camera/image_raw"} | remappings
    assert given(node) == {"depth": transport}


@pytest.mark.parametrize("one_process", ["true", "false"])
def test_depth_of_several_cameras(one_process: str) -> None:
    nodes = launch_stand_in.read(SEVERAL, depth="{camera}/depth", one_process=one_process, namespace="robot").nodes
    for camera in ("front", "rear"):
        prefix = f"{camera}/" if one_process == "true" else ""
        node = nodes[0] if one_process == "true" or camera == "front" else nodes[1]
        topics = {f"{prefix}depth": f"/robot/{camera}/depth", f"{prefix}camera_info": f"/robot/{camera}/camera_info"}
        assert topics.items() <= node.remappings.items()
        assert (given(node) or {})["depth"] == "raw"


@pytest.mark.parametrize("file", [pytest.param(ONE, id="one camera"), pytest.param(SEVERAL, id="several")])
@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"model": "/m: 1.onnx"}, {"model": "/m: 1.onnx"}, id="a path that YAML would split"),
        pytest.param({"size": "640x384"}, {"input_size": "640x384"}, id="size"),
        pytest.param({"conf": "0"}, {"min_score": 0.0}, id="conf, a whole number"),
        pytest.param({"classes": "1"}, {"classes": "1"}, id="a class that YAML takes for a number"),
        pytest.param({"provider": "cuda"}, {"provider": "cuda"}, id="provider"),
        pytest.param({"compressed": "True"}, {"image_transport": "compressed"}, id="compressed"),
        pytest.param({"compressed": "false"}, {"image_transport": "raw"}, id="not compressed"),
        pytest.param({"image_transport": "raw"}, {"image_transport": "raw"}, id="transport by the parameter's name"),
        pytest.param(
            {"compressed": "true", "image_transport": "compressed", "conf": "0.3", "classes": "person,car"},
            {"image_transport": "compressed", "min_score": 0.3, "classes": "person,car"},
            id="several",
        ),
    ],
)
def test_arguments_that_set_parameters(
    file: Path, arguments: dict[str, str], parameters: dict[str, object] | None
) -> None:
    for node in launch_stand_in.read(file, params_file="/my.yaml", respawn="True", **arguments).nodes:
        assert node.respawn
        assert node.parameters[0] == "/my.yaml"
        assert given(node) == parameters


def given(node: launch_stand_in.Node) -> dict[str, object] | None:
    """The parameters that arguments set; None where they set none."""
    files = node.parameters[1:]
    assert len(files) < 2
    return yaml.safe_load(Path(files[0]).read_text())["/**/instance_flow"]["ros__parameters"] if files else None


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(["/**"], id="all nodes"),
        pytest.param(["/robot/instance_flow"], id="this node"),
        pytest.param(["/robot/instance_flow", "/**"], id="this node, then all"),
        pytest.param(["/**", "/robot/instance_flow"], id="all nodes, then this one"),
    ],
)
def test_arguments_win_over_the_parameter_file(
    keys: list[str], tmp_path: Path, blobs_model: Path, onlooker: Node
) -> None:
    """Asked of a real node, whose parameter file says something else for all these."""
    wrong = {"ros__parameters": {"min_score": 0.9, "classes": "nobody", "max_gap": 7.0}}
    file = tmp_path / "my.yaml"
    file.write_text("".join(yaml.safe_dump({one: wrong}) for one in keys))
    (node,) = launch_stand_in.read(
        ONE, namespace="robot", params_file=str(file), model=str(blobs_model), conf="0.25", classes="red"
    ).nodes
    process = subprocess.Popen(node.command)
    try:
        client = onlooker.create_client(GetParameters, "/robot/instance_flow/get_parameters")
        future, deadline = None, monotonic() + 60
        while (future is None or not future.done()) and monotonic() < deadline:
            if future is None and client.service_is_ready():
                future = client.call_async(GetParameters.Request(names=["min_score", "classes", "max_gap"]))
            onlooker.executor.spin_once(timeout_sec=0.1)  # type: ignore[union-attr]
        assert future is not None
        score, classes, gap = future.result().values
    finally:
        process.terminate()
        process.wait(30)
    assert (score.double_value, classes.string_value) == (0.25, "red")
    assert gap.double_value == 7.0, "what no argument sets is as the file says"


@pytest.mark.parametrize(
    ("arguments", "nodes"),
    [
        pytest.param(
            {},
            {"/front": {"image": "/front/image_raw"}, "/rear": {"image": "/rear/image_raw"}},
            id="a namespace each",
        ),
        pytest.param(
            {"cameras": "a, b", "namespace": "robot", "image": "{camera}/color/image"},
            {"/robot/a": {"image": "/robot/a/color/image"}, "/robot/b": {"image": "/robot/b/color/image"}},
            id="in a namespace",
        ),
        pytest.param(
            {"namespace": "robot", "image": "/drivers/{camera}"},
            {"/robot/front": {"image": "/drivers/front"}, "/robot/rear": {"image": "/drivers/rear"}},
            id="topic by its full name",
        ),
        pytest.param(
            {"one_process": "true"},
            {"": {"front/image": "/front/image_raw", "rear/image": "/rear/image_raw"}},
            id="one process",
        ),
        pytest.param(
            {"one_process": "true", "namespace": "robot"},
            {"robot": {"front/image": "/robot/front/image_raw", "rear/image": "/robot/rear/image_raw"}},
            id="one process in a namespace",
        ),
    ],
)
def test_several_cameras(arguments: dict[str, str], nodes: dict[str, dict[str, str]]) -> None:
    started = launch_stand_in.read(SEVERAL, **arguments).nodes
    assert {node.namespace: node.remappings for node in started} == nodes
    cameras = {"cameras": ["front", "rear"]} if "one_process" in arguments else None
    assert all(node.parameters[0] == PARAMETERS and given(node) == cameras for node in started)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"cameras": " "}, "expected different names", id="no camera"),
        pytest.param({"cameras": "a,a"}, "expected different names", id="a name twice"),
        pytest.param({"image": "/image_raw"}, "write {camera} where", id="one topic for all"),
        pytest.param({"one_process": "yes"}, "expected true or false", id="neither true nor false"),
        pytest.param({"respawn": "1"}, "expected true or false", id="respawn 1"),
        pytest.param({"compressed": "yes"}, "compressed is 'yes'; expected true or false", id="compressed yes"),
        pytest.param({"conf": "high"}, "conf is 'high'; expected a number", id="conf in words"),
        pytest.param(
            {"compressed": "true", "image_transport": "raw"},
            "image_transport is 'raw', but compressed is 'true'; give one",
            id="compressed and raw",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        launch_stand_in.read(SEVERAL, **arguments)


PROFILES = dict.fromkeys(
    ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"), str(middleware.profile_path())
)
MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}


@pytest.mark.parametrize(
    ("given", "added"),
    [
        pytest.param({}, PROFILES | MEMORY, id="nothing"),
        pytest.param({"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}, MEMORY, id="profiles"),
        pytest.param(
            {"MALLOC_TRIM_THRESHOLD_": "1"}, PROFILES | {"MALLOC_MMAP_THRESHOLD_": "33554432"}, id="a malloc setting"
        ),
    ],
)
def test_what_the_user_has_set_stays(
    given: dict[str, str], added: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*PROFILES, *MEMORY):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert launch_stand_in.read(ONE).environment == launch_stand_in.read(SEVERAL).environment == added


@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [
        pytest.param({}, ["/front/instance_flow", "/rear/instance_flow"], id="a namespace each"),
        pytest.param({"one_process": "true"}, ["/instance_flow/front", "/instance_flow/rear"], id="one process"),
    ],
)
def test_rviz_shows_every_camera(arguments: dict[str, str], outputs: list[str]) -> None:
    rviz = launch_stand_in.read(SEVERAL, rviz="true", **arguments).nodes[-1]
    assert (rviz.package, rviz.arguments[0]) == ("rviz2", "-d")
    displays = yaml.safe_load(Path(rviz.arguments[1]).read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"]: display["Name"] for display in displays}
    assert list(shown) == [f"{output}/{topic}" for output in outputs for topic in ("overlay", "label_image", "markers")]
    assert len(set(shown.values())) == len(shown)


def test_rviz_of_one_camera_is_as_shipped() -> None:
    written = yaml.safe_load(launching.write_views({"": "/instance_flow"}).read_text())
    assert written == yaml.safe_load((SHARE / "config" / "instance_flow.rviz").read_text())


@pytest.fixture
def onlooker() -> Iterator[Node]:
    """A node in this process that looks at the graph."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("onlooker", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize(
    ("file", "arguments", "nodes"),
    [
        pytest.param(
            ONE,
            {"namespace": "robot", "image": "/one/image"},
            {"/robot/instance_flow": ({"/one/image"}, {f"/robot/instance_flow/{topic}" for topic in OUTPUTS})},
            id="one camera",
        ),
        pytest.param(
            SEVERAL,
            {"image_transport": "compressed"},
            {
                f"/{camera}/instance_flow": (
                    {f"/{camera}/image_raw/compressed"},
                    {f"/{camera}/instance_flow/{topic}" for topic in OUTPUTS},
                )
                for camera in ("front", "rear")
            },
            id="a process each",
        ),
        pytest.param(
            SEVERAL,
            {"one_process": "true", "namespace": "all"},
            {
                "/all/instance_flow": (
                    {"/all/front/image_raw", "/all/rear/image_raw"},
                    {"/all/instance_flow/class_table"}
                    | {f"/all/instance_flow/{camera}/{topic}" for camera in ("front", "rear") for topic in OUTPUTS[1:]},
                )
            },
            id="one process",
        ),
    ],
)
def test_real_nodes_have_the_topics(
    file: Path,
    arguments: dict[str, str],
    nodes: dict[str, tuple[set[str], set[str]]],
    blobs_model: Path,
    onlooker: Node,
) -> None:
    """What the launch file would start is started, and is asked what it subscribes to and publishes."""
    commands = [node.command for node in launch_stand_in.read(file, model=str(blobs_model), **arguments).nodes]
    processes = [subprocess.Popen(command) for command in commands]
    try:
        for name, topics in nodes.items():
            assert _until(onlooker, name, topics) == topics
            assert healthcheck.ask(name, timeout=30)[0] == healthcheck.HEALTHY
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(30) for process in processes]
    assert codes == [0] * len(nodes)


def _until(onlooker: Node, name: str, topics: tuple[set[str], set[str]]) -> tuple[set[str], set[str]]:
    """What a node subscribes to and publishes, as soon as that is what is wanted, or after a minute."""
    namespace, _, base = name.rpartition("/")
    deadline = monotonic() + 60
    heard: set[str] = set()
    told: set[str] = set()
    while (heard, told) != topics and monotonic() < deadline:
        onlooker.executor.spin_once(timeout_sec=0.1)  # type: ignore[union-attr]
        if (base, namespace) not in onlooker.get_node_names_and_namespaces():
            continue
        heard = {topic for topic, _ in onlooker.get_subscriber_names_and_types_by_node(base, namespace)}
        told = {topic for topic, _ in onlooker.get_publisher_names_and_types_by_node(base, namespace)}
        heard, told = heard - _OF_EVERY_NODE, {topic for topic in told - _OF_EVERY_NODE if "transition" not in topic}
    return heard, told


_OF_EVERY_NODE = {"/diagnostics", "/parameter_events", "/rosout", "/clock"}
