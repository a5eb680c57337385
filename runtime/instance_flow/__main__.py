# SPDX-License-Identifier: Apache-2.0
"""``python -m instance_flow``: the command."""

import sys

from instance_flow.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
