# SPDX-License-Identifier: Apache-2.0
"""In metres: where objects are in a depth image, and the filter that tells how they move (docs/spatial.md)."""
