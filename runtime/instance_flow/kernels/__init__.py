# SPDX-License-Identifier: Apache-2.0
"""What compiled kernels need: one form of input, and a place for what was compiled."""
