# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes, on the machine that it is run on: ``instance-flow bench``."""
