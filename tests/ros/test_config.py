# SPDX-License-Identifier: Apache-2.0
"""The files beside the node say what the node does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from ament_index_python.packages import get_package_share_directory
from instance_flow_msgs.msg import TrackedInstanceArray

from instance_flow import AssemblyConfig
from instance_flow.declare import declared, requirement
from instance_flow.network.execution import ExecutionConfig
from instance_flow.spatial.measure import SpatialConfig
from instance_flow_ros import detections, middleware
from instance_flow_ros.diagnostics import StampGaps
from instance_flow_ros.parameters import NodeConfig, StreamConfig

Start = Callable[..., Any]
SHARE = Path(get_package_share_directory("instance_flow_ros"))
CONFIG = SHARE / "config"
POLICY = Path(__file__).parents[2] / "deploy" / "sros2_policy.xml"


def test_parameter_file_has_every_parameter_with_its_default() -> None:
    written = yaml.safe_load((CONFIG / "instance_flow.yaml").read_text())["/**"]["ros__parameters"]
    defaults = {
        field.name: field.default
        for config in (NodeConfig, ExecutionConfig, AssemblyConfig, StreamConfig, SpatialConfig)
        for field in fields(config)
    }
    assert written == {
        name: list(default) if isinstance(default, tuple) else default for name, default in defaults.items()
    }


SOURCE = Path(__file__).parents[2] / "ros2_ws/src/instance_flow_ros/config/instance_flow.yaml"
DECLARED = [
    pytest.param(spec, kind in (NodeConfig, ExecutionConfig), id=spec.name)
    for kind in (NodeConfig, ExecutionConfig, AssemblyConfig, StreamConfig, SpatialConfig)
    for spec in declared(kind)
]


@pytest.mark.parametrize(("spec", "fixed"), DECLARED)
def test_parameter_file_says_what_the_parameter_is_declared_with(spec: Field[Any], fixed: bool) -> None:
    """More may follow in the file."""
    found = re.search(rf"((?: +#.*\n)+) +{spec.name}:", SOURCE.read_text())
    assert found is not None
    comment = " ".join(line.strip(" #") for line in found[1].splitlines())
    sentences = [spec.metadata["description"]]
    if "range" in spec.metadata or "choices" in spec.metadata:
        sentences.append(requirement(spec))
    if fixed:
        sentences.append("Set while unconfigured")
    assert comment.lower().startswith(" ".join(f"{text}." for text in sentences).lower())


def test_shared_memory_holds_the_largest_usual_image() -> None:
    profiles = ElementTree.parse(middleware.profile_path())
    assert int(profiles.findtext(".//segment_size", "0")) > 1920 * 1080 * 3


@pytest.mark.parametrize("name", ["fastdds_images.xml", "fastdds_images_udp.xml"])
def test_profiles_use_the_transports_that_they_describe(name: str) -> None:
    root = ElementTree.parse(CONFIG / name).getroot()
    described = [element.text for element in root.iterfind(".//transport_descriptor/transport_id")]
    used = [element.text for element in root.iterfind(".//userTransports/transport_id")]
    assert used == described
    assert root.findtext(".//useBuiltinTransports") == "false"
    assert ("SHM" in [element.text for element in root.iterfind(".//type")]) == (name == "fastdds_images.xml")


def shown_by_rviz() -> set[str]:
    """Topics in RViz's configuration."""
    displays = yaml.safe_load((CONFIG / "instance_flow.rviz").read_text())["Visualization Manager"]["Displays"]
    return {display["Topic"]["Value"] for display in displays}


def foxglove() -> dict[str, Any]:
    """Foxglove's layout."""
    layout: dict[str, Any] = json.loads((CONFIG / "instance_flow_foxglove.json").read_text())
    return layout


def shown_by_foxglove() -> set[str]:
    """Topics in Foxglove's layout."""
    return set(re.findall(r'"(/[a-z_/]+)', json.dumps(foxglove())))


def test_foxglove_lays_out_every_panel_once() -> None:
    layout = foxglove()
    laid_out = re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"]))
    assert sorted(laid_out) == sorted(layout["configById"])


def test_foxglove_plots_a_field_that_there_is() -> None:
    (path,) = foxglove()["configById"]["Plot!speed"]["paths"]
    assert path["value"].endswith(".instances[:].velocity.x")
    assert "instances" in TrackedInstanceArray.get_fields_and_field_types()


@pytest.fixture(scope="module")
def graph(start_for_all: Start, blobs_model: Path) -> dict[str, set[str]]:
    """What the real node subscribes to, publishes and serves, as if it were in the namespace /."""
    remappings = {"image": "/camera/image_raw", "depth": "/camera/depth", "camera_info": "/camera/camera_info"}
    probe = start_for_all(model=blobs_model, remappings=remappings, depth="raw")
    probe.until(lambda: probe.state() == "active", "state active")
    where = ("instance_flow", probe.node.get_namespace())
    names = {
        "subscribe": lambda: probe.node.get_subscriber_names_and_types_by_node(*where),
        "publish": lambda: probe.node.get_publisher_names_and_types_by_node(*where),
        "reply": lambda: probe.node.get_service_names_and_types_by_node(*where),
    }
    probe.until(
        lambda: set(remappings.values()) <= set(dict(names["subscribe"]())), "its subscriptions to be known here"
    )
    return {
        kind: {name.removeprefix(probe.node.get_namespace()) for name, _ in listed()} for kind, listed in names.items()
    }


@pytest.mark.parametrize("shown", [shown_by_rviz, shown_by_foxglove], ids=["rviz", "foxglove"])
def test_views_show_topics_of_the_node(shown: Callable[[], set[str]], graph: dict[str, set[str]]) -> None:
    topics = shown()
    assert {"/instance_flow/overlay", "/instance_flow/label_image", "/instance_flow/markers"} <= topics
    assert topics <= graph["publish"]


# What the node needs only at times: with image_transport or depth compressed, with use_sim_time, where vision_msgs is
# installed.
AT_TIMES = {"/camera/image_raw/compressed", "/camera/depth/compressedDepth", "/clock"} | (
    set() if detections.AVAILABLE else {"/instance_flow/detections", "/instance_flow/detections_3d"}
)


@pytest.mark.parametrize("rule", ["subscribe", "publish", "reply"])
def test_policy_allows_what_the_node_does_and_no_more(rule: str, graph: dict[str, set[str]]) -> None:
    (profile,) = ElementTree.parse(POLICY).iterfind(".//profile[@node='instance_flow']")
    allowed = {
        (name.text or "").replace("~", "/instance_flow")
        for group in profile
        if group.get(rule) == "ALLOW"
        for name in group
    }
    assert allowed - AT_TIMES == graph[rule]


def test_policy_is_of_the_form_that_sros2_reads() -> None:
    policy = ElementTree.parse(POLICY).getroot()
    assert (policy.tag, policy.get("version")) == ("policy", "0.2.0")
    rules = {"topics": {"publish", "subscribe"}, "services": {"reply", "request"}}
    for profile in policy.iterfind("./enclaves/enclave/profiles/profile"):
        assert profile.attrib.keys() == {"ns", "node"}
        for group in profile:
            assert group.attrib.keys() <= rules[group.tag]
            assert set(group.attrib.values()) == {"ALLOW"}
            assert {name.tag for name in group} == {group.tag[:-1]}


LOSSES: dict[str, tuple[list[int], int]] = {  # stamps in ms, images missing
    "steady": (list(range(0, 2000, 33)), 0),
    "with jitter": ([33 * k + (k * 7) % 11 for k in range(60)], 0),
    "a third is missing": ([33 * k for k in range(90) if k < 15 or k % 3], 25),
    "two of three are missing": ([33 * k for k in range(90) if k < 15 or k % 3 == 0], 50),
    "a pause of the camera": ([*range(0, 990, 33), *range(9000, 9990, 33)], 0),
    "too few to know": ([0, 33, 67, 500], 0),
    "a clock that runs back": ([*range(0, 990, 33), *range(500, 990, 33)], 0),
}


@pytest.mark.parametrize(("stamps", "missing"), LOSSES.values(), ids=LOSSES)
def test_images_missing_by_their_stamps(stamps: list[int], missing: int) -> None:
    gaps = StampGaps()
    assert abs(sum(gaps.add(stamp * 10**6) for stamp in stamps) - missing) <= 2
    assert gaps.add(None) == 0


def test_what_yaml_gives_is_taken_as_it_is_meant(start: Callable[..., Any], blobs_model: Path) -> None:
    """A whole number for a number, an empty list for the default; a QoS that no subscription takes is named."""
    probe = start(
        model=blobs_model, provider="cpu", max_gap=3, cameras=[], **{"qos_overrides./other.subscription.depth": 3}
    )
    probe.until_active()
    probe.until_logged("parameter qos_overrides./other.subscription.depth has no effect")
