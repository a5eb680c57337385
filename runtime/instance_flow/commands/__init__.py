# SPDX-License-Identifier: Apache-2.0
"""The parts of the command ``instance-flow`` that are more than a few lines: their options, and what they do."""
