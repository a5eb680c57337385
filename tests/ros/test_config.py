# SPDX-License-Identifier: Apache-2.0
"""The files beside the node say what the node does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import yaml
from ament_index_python.packages import get_package_share_directory

from instance_flow import AssemblyConfig
from instance_flow_ros import middleware
from instance_flow_ros.parameters import NodeConfig

SHARE = Path(get_package_share_directory("instance_flow_ros"))


def test_parameter_file_has_every_parameter_with_its_default() -> None:
    written = yaml.safe_load((SHARE / "config" / "instance_flow.yaml").read_text())["/**"]["ros__parameters"]
    assert written == {field.name: field.default for config in (NodeConfig, AssemblyConfig) for field in fields(config)}


def test_shared_memory_holds_the_largest_usual_image() -> None:
    profiles = ElementTree.parse(middleware.profile_path())
    assert int(profiles.findtext(".//segment_size", "0")) > 1920 * 1080 * 3
