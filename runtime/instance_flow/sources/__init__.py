# SPDX-License-Identifier: Apache-2.0
"""Sources of a run: files and folders found by name, and streams of cameras, networks and standard input."""
