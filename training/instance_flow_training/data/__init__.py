# SPDX-License-Identifier: Apache-2.0
"""Data sets as they come, in one form. No torch."""
