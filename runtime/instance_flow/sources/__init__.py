# SPDX-License-Identifier: Apache-2.0
"""What a run reads: files and folders found by name, and streams of cameras, networks and standard input."""
