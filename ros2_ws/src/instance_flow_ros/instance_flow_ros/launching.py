# SPDX-License-Identifier: Apache-2.0
"""What the launch files start, in plain data: they only hand it to launch and launch_ros, which are not needed here.

Settings are the arguments of a launch file, by name, all of them text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory

from instance_flow_ros import middleware

Settings = Mapping[str, str]
Argument = tuple[str, str, str]
"""Name, default and description of an argument of a launch file."""

NODE = "instance_flow"
CAMERA = "{camera}"
"""Stands for the name of a camera in the argument ``image``."""

_RESPAWN_DELAY = 2.0
_ANY_NODE = f"/**/{NODE}"
"""Key of the node's parameters in a file, whatever its namespace. launch_ros would write a dictionary under the node's
name or under /**, where the user's own file may win, and take its texts for YAML (classes:=1 a number). A key that
the user's file lacks counts last."""

_PARAMETERS: list[Argument] = [
    ("model", "", "path of the ONNX model"),
    ("size", "", "WIDTHxHEIGHT of the network's input, multiples of 32, such as 640x384; larger finds smaller objects"),
    ("conf", "", "least score of an object that is published, up to 1"),
    ("classes", "", "names of the classes that are published, separated by commas"),
    ("provider", "", "what the model runs on: auto, cpu, cuda or tensorrt"),
    ("compressed", "", "whether the images are compressed (appends /compressed to image): true or false"),
    ("image_transport", "", "raw or compressed: compressed:=false or true by the parameter's name"),
]
"""Arguments that stand for a parameter of the node; empty = as the parameter file says."""
_PARAMETER_OF = {"size": "input_size", "conf": "min_score", "compressed": "image_transport"}
"""The parameter of an argument, where it has another name."""


def arguments(image: str) -> list[Argument]:
    """Give the arguments that all launch files have. image: default of the topic of images."""
    return [
        ("image", image, "topic of the images"),
        ("depth", "", "topic of their depth images, for positions in metres; {camera} as in image; empty = none"),
        ("camera_info", "", "topic of the calibration; empty = camera_info beside image, as image_transport has it"),
        ("namespace", "", "namespace of all that is started, such as the camera's name"),
        ("params_file", str(_config("instance_flow.yaml")), "file of the node's parameters; arguments win over it"),
        *((name, default, f"{words}; empty = as params_file says") for name, default, words in _PARAMETERS),
        ("respawn", "false", f"start a node again {_RESPAWN_DELAY:g} s after it has ended by itself: true or false"),
        ("log_level", "info", "of the node's own messages: debug, info, warn, error or fatal"),
        ("rviz", "false", "show overlay and label image in RViz: true or false"),
    ]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Settings of Fast DDS and of glibc for processes that carry images, without those that ``given`` has already.

    The node makes them for itself (middleware.prepare); a launch file makes them for all that it starts, as a camera's
    driver, which needs them as much.
    """
    profiles = dict.fromkeys(middleware.PROFILE_VARIABLES, str(middleware.profile_path()))
    memory = {
        "MALLOC_MMAP_THRESHOLD_": str(middleware.LARGEST_BUFFER),
        "MALLOC_TRIM_THRESHOLD_": str(middleware.KEPT_HEAP),
    }
    chosen = not given.keys().isdisjoint(profiles)
    wanted = memory if chosen else profiles | memory
    return {name: value for name, value in wanted.items() if name not in given}


def one_camera(settings: Settings) -> list[dict[str, Any]]:
    """Give the keyword arguments of launch_ros.actions.Node for all that is to be started for one camera."""
    node = _node(settings, settings["namespace"], *_inputs(settings, lambda topic: topic))
    return [node, *_views(settings, {"": _join(settings["namespace"], NODE)})]


def several_cameras(settings: Settings) -> list[dict[str, Any]]:
    """As one_camera, for each camera of the argument ``cameras``: a process of its own, or one process for all.

    ValueError: for no camera, or two of one name.
    """
    cameras = [name.strip() for name in settings["cameras"].split(",") if name.strip()]
    if not cameras or len(set(cameras)) != len(cameras):
        raise ValueError(f"cameras is {settings['cameras']!r}; expected different names, as in cameras:=front,rear")
    root = settings["namespace"]
    inputs = {
        camera: _inputs(settings, lambda topic, name=camera: _join(root, topic.replace(CAMERA, name)))  # type: ignore[misc]
        for camera in cameras
    }
    if len({topics["image"] for topics, _ in inputs.values()}) != len(inputs):
        raise ValueError(f"image is {settings['image']!r}; write {CAMERA} where the name of the camera belongs")
    if _truth(settings, "one_process"):
        topics = {f"{camera}/{name}": topic for camera, (own, _) in inputs.items() for name, topic in own.items()}
        nodes = [_node(settings, root, topics, {"cameras": cameras} | inputs[cameras[0]][1])]
        outputs = {camera: _join(root, NODE, camera) for camera in cameras}
    else:
        nodes = [_node(settings, _join(root, camera), *inputs[camera]) for camera in cameras]
        outputs = {camera: _join(root, camera, NODE) for camera in cameras}
    return [*nodes, *_views(settings, outputs)]


def write_views(outputs: Mapping[str, str]) -> Path:
    """Write RViz's configuration for several cameras to a temporary file: the shipped one's displays for each of them.

    outputs: by name of a camera, "" if there is only one, the name under which its topics are, as /front/instance_flow.
    """
    configuration = yaml.safe_load(_config("instance_flow.rviz").read_text(encoding="utf-8"))
    manager = configuration["Visualization Manager"]
    manager["Displays"] = [
        _display(display, camera, output) for camera, output in outputs.items() for display in manager["Displays"]
    ]
    return _write(configuration, ".rviz")


def _node(settings: Settings, namespace: str, topics: Mapping[str, str], extra: dict[str, Any]) -> dict[str, Any]:
    given = _given(settings) | extra
    logger = _join(namespace, NODE).strip("/").replace("/", ".")
    return {
        "package": "instance_flow_ros",
        "executable": "instance_flow_node",
        "name": NODE,
        "namespace": namespace,
        "parameters": [settings["params_file"], *([_parameter_file(given)] if given else [])],
        "remappings": list(topics.items()),
        "ros_arguments": ["--log-level", f"{logger}:={settings['log_level']}"],
        "respawn": _truth(settings, "respawn"),
        "respawn_delay": _RESPAWN_DELAY,
        "output": "screen",
    }


def _inputs(settings: Settings, topic: Callable[[str], str]) -> tuple[dict[str, str], dict[str, Any]]:
    """The topics that a camera's inputs are remapped to, and the parameters that go with them.

    topic: gives the full name of what an argument names.
    """
    image, depth = settings["image"], settings["depth"]
    if not depth:
        return {"image": topic(image)}, {}
    suffix = "/compressedDepth"
    kind, name = ("compressed", f"depth{suffix}") if depth.endswith(suffix) else ("raw", "depth")
    info = settings["camera_info"] or "/".join([*image.split("/")[:-1], "camera_info"])
    return {"image": topic(image), name: topic(depth), "camera_info": topic(info)}, {"depth": kind}


def _given(settings: Settings) -> dict[str, Any]:
    """The node's parameters that arguments set."""
    given: dict[str, Any] = {}
    for name, _, _ in _PARAMETERS:
        if not settings[name]:
            continue
        parameter, value = _PARAMETER_OF.get(name, name), _value(settings, name)
        if given.setdefault(parameter, value) != value:
            raise ValueError(f"{name} is {settings[name]!r}, but compressed is {settings['compressed']!r}; give one")
    return given


def _value(settings: Settings, name: str) -> str | float:
    if name == "compressed":
        return "compressed" if _truth(settings, name) else "raw"
    if name != "conf":
        return settings[name]
    try:
        return float(settings[name])
    except ValueError:
        raise ValueError(f"conf is {settings[name]!r}; expected a number, as in conf:=0.3") from None


def _parameter_file(parameters: dict[str, Any]) -> str:
    return str(_write({_ANY_NODE: {"ros__parameters": parameters}}, ".yaml"))


def _write(content: Any, suffix: str) -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="instance_flow_", suffix=suffix, delete=False) as file:
        yaml.safe_dump(content, file, sort_keys=False)
    return Path(file.name)


def _views(settings: Settings, outputs: Mapping[str, str]) -> list[dict[str, Any]]:
    if not _truth(settings, "rviz"):
        return []
    return [{"package": "rviz2", "executable": "rviz2", "arguments": ["-d", str(write_views(outputs))]}]


def _display(display: Mapping[str, Any], camera: str, output: str) -> dict[str, Any]:
    topic = display["Topic"]
    value = topic["Value"].replace(f"/{NODE}", output, 1)
    return {**display, "Name": f"{display['Name']} {camera}".strip(), "Topic": {**topic, "Value": value}}


def _join(*parts: str) -> str:
    """Give the full name made of parts; one that begins with / is full by itself."""
    name = ""
    for part in parts:
        name = part.rstrip("/") if part.startswith("/") else f"{name}/{part}".rstrip("/")
    return name


def _truth(settings: Settings, name: str) -> bool:
    value = settings[name].lower()
    if value not in ("true", "false"):
        raise ValueError(f"{name} is {settings[name]!r}; expected true or false")
    return value == "true"


def _config(name: str) -> Path:
    return Path(get_package_share_directory("instance_flow_ros")) / "config" / name
