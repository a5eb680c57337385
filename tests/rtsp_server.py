# SPDX-License-Identifier: Apache-2.0
"""An RTSP server that others wrote, in a process of its own, and clips that it can serve."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

_PROGRAM = (
    "import asyncio, sys\nfrom aio_rtsp_toolkit.server import RtspServer\n"
    "async def serve():\n    server = await RtspServer(sys.argv[1], '127.0.0.1', 0).start()\n"
    "    print('port', server._server.sockets[0].getsockname()[1], flush=True)\n    await server.serve_forever()\n"
    "asyncio.run(serve())"
)


@contextmanager
def rtsp_server(folder: Path) -> Iterator[str]:
    """Address under which the clips of a folder are played, as fast as they were taken; skips without the package."""
    pytest.importorskip("aio_rtsp_toolkit")
    command = [sys.executable, "-c", _PROGRAM, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = next(int(line.split()[1]) for line in process.stdout if line.startswith("port"))
        try:
            yield f"rtsp://127.0.0.1:{port}"
        finally:
            process.terminate()


def write_h264(path: Path, images: list[NDArray[np.uint8]], rate: int = 20) -> Path:
    """Pictures of one size as H.264 in any container; skips without PyAV."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=rate, options={"g": "10", "bf": "0"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        video.mux(stream.encode())
    return path
