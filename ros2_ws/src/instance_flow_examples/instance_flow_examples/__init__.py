# SPDX-License-Identifier: Apache-2.0
"""How to read what an instance-flow node publishes."""
