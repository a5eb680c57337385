# SPDX-License-Identifier: Apache-2.0
"""Over time: which frames are references, and what is known of each identity."""
