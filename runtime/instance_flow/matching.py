# SPDX-License-Identifier: Apache-2.0
"""See ``instance_flow.assembly.matching``; this name is kept for those who call it from outside."""

from instance_flow.assembly.matching import instance_flows, match_instances

__all__ = ["instance_flows", "match_instances"]
