# SPDX-License-Identifier: Apache-2.0
import os

# Threads of OpenMP that spin while they wait make a step ten times slower where another process shares the cores. It is
# read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
