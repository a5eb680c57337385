# SPDX-License-Identifier: Apache-2.0
"""Arrays in the one form that the compiled kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def kernel_input(array: Any, dtype: Any) -> NDArray[Any]:
    """A contiguous, read-only view of an array; a copy only where it is of another dtype or not contiguous.

    Numba compiles a kernel again, which takes a second or more, for every new mixture of arrays that may and may not be
    written to. Frames from a camera are of either kind, so all are made alike.
    """
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view
