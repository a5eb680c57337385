# SPDX-License-Identifier: Apache-2.0
"""Results against ground truth: average precision and the measures of tracking."""

from instance_flow.evaluation.evaluate import evaluate, evaluate_data

__all__ = ["evaluate", "evaluate_data"]
