# SPDX-License-Identifier: Apache-2.0
"""The scripts of bench are run, not installed; their tests import what they import."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
