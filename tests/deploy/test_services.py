# SPDX-License-Identifier: Apache-2.0
"""The unit of systemd, its settings, the kernel's settings and the compose files, checked without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
INSTALLED = "/opt/instance-flow"
UNIT = DEPLOY / "instance-flow.service"
CONFIG = ROOT / "ros2_ws/src/instance_flow_ros/config"
COMPOSE = ["compose.yaml", "compose.cuda.yaml", "compose.jetpack.yaml"]

# What the Compose Specification calls the settings that are used here.
SERVICE_KEYS = {
    *(
        "build",
        "cap_drop",
        "command",
        "deploy",
        "devices",
        "environment",
        "group_add",
        "image",
        "ipc",
        "logging",
        "mem_limit",
    ),
    *("network_mode", "read_only", "restart", "runtime", "security_opt", "tmpfs", "user", "volumes"),
}
BUILD_KEYS = {"args", "context", "dockerfile_inline"}


def settings(path: Path) -> dict[str, str]:
    """NAME=VALUE lines of a file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in lines)  # type: ignore[arg-type]


def services(name: str) -> dict[str, Any]:
    """Services of a compose file."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())["services"]
    return loaded


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")


@needs_systemd
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(INSTALLED, str(ROOT)))
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (result.stderr, result.returncode) == ("", 0)


@needs_systemd
def test_systemd_finds_the_unit_hardened() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", str(UNIT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_unit_keeps_what_the_node_needs() -> None:
    """Each of these would end the node or blind it: the GPU, compiled kernels, shared memory, finding peers."""
    unit = UNIT.read_text()
    assert not re.search(
        r"^(PrivateDevices|ProtectClock|MemoryDenyWriteExecute|PrivateNetwork|DeviceAllow)=", unit, re.M
    )
    assert "AF_NETLINK" in unit
    assert re.search(r"^User=(?!root)\w+$", unit, re.M)
    assert "Restart=on-failure" in unit


def test_unit_and_settings_name_what_there_is() -> None:
    unit, environment = UNIT.read_text(), settings(DEPLOY / "instance-flow.env")
    assert set(re.findall(r"\$\{(\w+)\}", unit)) <= environment.keys()
    (program,) = re.findall(rf"^ExecStart={INSTALLED}/(\S+)", unit, re.M)
    assert (ROOT / program).is_file()
    share = f"{INSTALLED}/ros2_ws/install/instance_flow_ros/share/instance_flow_ros/config/"
    names = re.findall(rf"{share}(\S+)", (DEPLOY / "instance-flow.env").read_text())
    assert len(names) == 2
    assert all((CONFIG / name).is_file() for name in names)


@pytest.mark.parametrize("profiles", ["fastdds_images.xml", "fastdds_images_udp.xml"])
def test_kernel_gives_the_buffers_that_the_profiles_ask_for(profiles: str) -> None:
    asked = re.findall(r"<(send|receive)BufferSize>(\d+)<", (CONFIG / profiles).read_text())
    granted = settings(DEPLOY / "60-instance-flow.conf")
    assert dict(asked) == {"send": granted["net.core.wmem_max"], "receive": granted["net.core.rmem_max"]}


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_file_has_only_settings_that_exist(name: str) -> None:
    accepted = set(re.findall(r"^ARG (\w+)=", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for service in services(name).values():
        assert service.keys() <= SERVICE_KEYS
        build = service.get("build", {})
        assert build.keys() <= BUILD_KEYS
        assert build.get("args", {}).keys() <= accepted


@pytest.mark.parametrize("name", COMPOSE[1:])
def test_compose_file_adds_to_a_service_that_there_is(name: str) -> None:
    assert services(name).keys() <= services(COMPOSE[0]).keys()


def test_camera_and_node_can_share_memory() -> None:
    """Same user, same /dev/shm, same network, and the driver with our profiles."""
    both = services(COMPOSE[0])
    for service in both.values():
        assert (service["ipc"], service["network_mode"], service["user"]) == ("host", "host", "1000:1000")
        assert service["cap_drop"] == ["ALL"]
    source, target, _ = both["camera"]["volumes"][0].split(":")
    assert (DEPLOY / source).resolve() == CONFIG / "fastdds_images.xml"
    assert both["camera"]["environment"]["FASTRTPS_DEFAULT_PROFILES_FILE"] == target


def test_gpu_is_reserved() -> None:
    node = services("compose.cuda.yaml")["instance-flow"]
    (device,) = node["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert node["command"][-1] == "provider:=cuda"


def test_volume_keeps_what_the_image_writes() -> None:
    home = re.search(r"HOME=(\S+)", (ROOT / "Dockerfile").read_text())
    assert home
    assert services(COMPOSE[0])["instance-flow"]["volumes"] == [f"state:{home[1]}"]
