# SPDX-License-Identifier: Apache-2.0
"""Why a subscription receives nothing, by the ROS graph."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo


def why_silent(node: Node, subscription: Subscription, kind: type, what: str = "images") -> str:
    """Say in one sentence why a subscription receives nothing: no publisher, another type, or another QoS.

    what: name of what is expected on the topic.
    """
    topic = subscription.topic_name
    expected = _type_name(kind)
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"no {what} on {topic}: it has no publisher"
    others = sorted({info.topic_type for info in publishers} - {expected})
    if others:
        return f"no {what} on {topic}: its publishers send {', '.join(others)}, but the node expects {expected}"
    for info in publishers:
        if reason := qos_problem(info.qos_profile, subscription.qos_profile):
            return (
                f"no {what} on {topic}: the QoS of {node_of(info)} does not fit the node's ({reason}); "
                f"change the publisher, or qos_overrides.{topic}.subscription of this node"
            )
    return f"no {what} on {topic}: it has {len(publishers)} publishers, but they are silent"


def qos_problem(offered: QoSProfile, asked: QoSProfile) -> str:
    """Why the QoS of a publisher and of a subscription are incompatible; empty where they fit."""
    verdict, reason = qos_check_compatible(offered, asked)
    return reason.removeprefix("ERROR: ").strip(" ;") if verdict == QoSCompatibility.ERROR else ""


def node_of(endpoint: TopicEndpointInfo) -> str:
    """Give the full name of the node that a publisher or subscription belongs to."""
    return full_name(endpoint.node_name, endpoint.node_namespace)


def full_name(name: str, namespace: str) -> str:
    """Give the full name of a node."""
    return f"{namespace.rstrip('/')}/{name}"


def _type_name(kind: Any) -> str:
    package, _, folder = kind.__module__.partition(".")
    return f"{package}/{folder.split('.')[0]}/{kind.__name__}"
