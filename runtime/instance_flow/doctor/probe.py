# SPDX-License-Identifier: Apache-2.0
"""Run by the doctor with the Python that runs the node, which need not be the one of `instance-flow`.

So this file imports the standard library only, and is run as a script. Each fact is a line of its own, flushed before
the next is sought: a module that was built for another numpy can end the process, and the last line then says which.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys

MODULES = ("numpy", "rclpy", "instance_flow", "instance_flow_msgs.msg", "instance_flow_ros.bridge", "cv_bridge")


def emit(key: str, value: object) -> None:
    """Print one fact."""
    print(json.dumps([key, value]), flush=True)


def main() -> None:
    """Say what this Python is, what it can import, and what it finds in it."""
    del sys.path[0]  # The folder of this file, whose modules would hide others of the same names.
    emit("python", platform.python_version())
    emit("executable", sys.executable)
    for name in MODULES:
        emit("importing", name)
        try:
            importlib.import_module(name)
        except Exception as error:
            emit(name, f"{type(error).__name__}: {error}")
        else:
            emit(name, "")
    if "numpy" in sys.modules:
        emit("numpy version", sys.modules["numpy"].__version__)
    if "instance_flow_msgs.msg" in sys.modules:
        emit("messages", _messages(sys.modules["instance_flow_msgs.msg"]))
    if "instance_flow_ros.bridge" in sys.modules and "cv_bridge" in sys.modules:
        bridge = sys.modules["instance_flow_ros.bridge"]
        emit("importing", "cv_bridge")
        emit("own bridge", isinstance(bridge.choose_bridge(), bridge.ImageBridge))
    emit("importing", "")


def _messages(module: object) -> dict[str, dict[str, str]]:
    """Fields and their types, in their order, of the message classes as they were built, by full name."""
    return {
        f"instance_flow_msgs/msg/{name}": kind.get_fields_and_field_types()
        for name, kind in vars(module).items()
        if hasattr(kind, "get_fields_and_field_types")
    }


if __name__ == "__main__":
    main()
