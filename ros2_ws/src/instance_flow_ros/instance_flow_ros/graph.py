# SPDX-License-Identifier: Apache-2.0
"""Why no images come: what the graph of ROS says of the topic."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.subscription import Subscription


def why_nothing_comes(node: Node, subscription: Subscription, kind: type) -> str:
    """Say in one sentence why a subscription hears nothing: nobody publishes, or another type, or another QoS."""
    topic = subscription.topic_name
    expected = _type_name(kind)
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"no images on {topic}: nobody publishes there"
    others = sorted({info.topic_type for info in publishers} - {expected})
    if others:
        return f"no images on {topic}: its publishers send {', '.join(others)}, but the node expects {expected}"
    for info in publishers:
        verdict, reason = qos_check_compatible(info.qos_profile, subscription.qos_profile)
        if verdict == QoSCompatibility.ERROR:
            publisher = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            return (
                f"no images on {topic}: the QoS of {publisher} does not fit the node's ({reason.strip(' ;')}); "
                f"change the publisher, or qos_overrides.{topic}.subscription of this node"
            )
    return f"no images on {topic}: it has {len(publishers)} publishers, but they are silent"


def _type_name(kind: Any) -> str:
    package, _, folder = kind.__module__.partition(".")
    return f"{package}/{folder.split('.')[0]}/{kind.__name__}"
