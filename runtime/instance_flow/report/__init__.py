# SPDX-License-Identifier: Apache-2.0
"""The page about a run, and its numbers."""
