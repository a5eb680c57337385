# SPDX-License-Identifier: Apache-2.0
"""A run, watched while it goes on: a window, or a page in a browser."""
