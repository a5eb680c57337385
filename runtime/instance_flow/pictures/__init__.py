# SPDX-License-Identifier: Apache-2.0
"""Pictures of tracks, and of the network's maps."""
