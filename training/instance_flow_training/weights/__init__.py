# SPDX-License-Identifier: Apache-2.0
"""Weights: checkpoints, DeepLab's, and what a run begins with."""
