# SPDX-License-Identifier: Apache-2.0
"""Files, messages and streams of bytes, read and written: pictures, videos, bags, masks, ground truth and results."""
