# SPDX-License-Identifier: Apache-2.0
"""What is needed on a machine with an NVIDIA GPU, and why it does not work on one without."""
