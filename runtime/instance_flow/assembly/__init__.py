# SPDX-License-Identifier: Apache-2.0
"""From the network's maps of one frame to its objects, and whose identity each of them keeps."""
