# SPDX-License-Identifier: Apache-2.0
"""Pictures of what was found, and of what the network said."""
