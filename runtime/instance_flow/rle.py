# SPDX-License-Identifier: Apache-2.0
"""See ``instance_flow.formats.rle``; this name is kept for those who call it from outside."""

from instance_flow.formats.rle import decode, encode

__all__ = ["decode", "encode"]
