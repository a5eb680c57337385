# SPDX-License-Identifier: Apache-2.0
"""Synthetic worlds, and worlds of real cut-outs, with exact truth. No torch."""
