# SPDX-License-Identifier: Apache-2.0
"""Other trackers on the same masks, and the score of each. No torch."""
