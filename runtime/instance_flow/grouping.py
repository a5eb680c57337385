# SPDX-License-Identifier: Apache-2.0
"""See ``instance_flow.assembly.grouping``; this name is kept for those who call it from outside."""

from instance_flow.assembly.grouping import find_centers, group_pixels

__all__ = ["find_centers", "group_pixels"]
