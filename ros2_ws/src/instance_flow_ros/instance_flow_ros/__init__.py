# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 side of instance-flow: a node around :class:`instance_flow.Pipeline`."""
