# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own, started as `ros2 run` would, and stopped as a user would."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix

PACKAGE = "instance_flow_ros"
EXECUTABLE = "instance_flow_node"


def program(executable: str = EXECUTABLE, package: str = PACKAGE) -> Path:
    """Where an executable of a package is installed, as `ros2 run` finds it."""
    return Path(get_package_prefix(package)) / "lib" / package / executable


class NodeProcess:
    """Started on construction.

    log: file for all that the node prints.   parameters, remappings: as -p and -r on the command line.
    """

    def __init__(
        self, log: Path, parameters: Mapping[str, Any] | None = None, remappings: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        command = [str(program()), "--ros-args"]
        for name, value in (parameters or {}).items():
            command += ["-p", f"{name}:={_yaml(value)}"]
        for name, target in (remappings or {}).items():
            command += ["-r", f"{name}:={target}"]
        with log.open("w") as output:
            # In a session of its own a Ctrl-C in the terminal reaches only us; we pass it on in our own time.
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    @property
    def pid(self) -> int:
        """Number of the process, for /proc."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while the node runs."""
        return self._process.poll()

    def log(self) -> str:
        """All that the node has printed so far."""
        return self._log.read_text(errors="replace")

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of it."""
        return "\n".join(self.log().splitlines()[-lines:])

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the node to end by itself, and give its exit code; subprocess.TimeoutExpired where it does not."""
        return self._process.wait(timeout)

    def stop(self, how: signal.Signals = signal.SIGINT, timeout: float = 20.0) -> int:
        """Ask the node to end and give its exit code; it is killed where it takes longer than ``timeout`` seconds."""
        if self.exit_code is None:
            self._process.send_signal(how)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
