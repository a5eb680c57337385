# SPDX-License-Identifier: Apache-2.0
"""How the kernels go through a label map: by stretches of one label, as neighbours mostly have the same."""

from __future__ import annotations

from numba import njit

from instance_flow.structures import LabelMap


@njit(cache=True, nogil=True)
def stretch_end(labels: LabelMap, y: int, x: int) -> int:
    """End, exclusive, of the run of equal labels in row ``y`` that begins at column ``x``."""
    end = x + 1
    while end < labels.shape[1] and labels[y, end] == labels[y, x]:
        end += 1
    return end
