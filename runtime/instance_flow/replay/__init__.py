# SPDX-License-Identifier: Apache-2.0
"""Recordings in place of cameras: runs over a whole source, their files, resuming, folders of bags."""
