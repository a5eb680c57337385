# SPDX-License-Identifier: Apache-2.0
"""ROS by ourselves, for the demo, the tests and the benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain_coordinator import domain_id

from instance_flow_ros import middleware


@contextmanager
def own_domain(log_folder: Path) -> Iterator[None]:
    """A domain that no other process uses, on this machine only, with the profiles that we ship.

    It stands in the environment of this process and of those that it starts, so it comes before rclpy.init.
    """
    with domain_id() as domain:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["ROS_LOG_DIR"] = str(log_folder)
        middleware.prepare()
        yield
