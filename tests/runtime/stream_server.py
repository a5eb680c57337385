# SPDX-License-Identifier: Apache-2.0
"""Run as a process: cameras and faults of the network, by HTTP on a free port of this machine, which it prints.

Every path is one: /camera never ends, /short ends after 5 pictures, /once serves one connection and then 404,
/silent sends nothing, /stalls stops after 5 pictures, /garbage and /broken send what is no video, /page a page; the
files of the folder that is given are served under their names.
"""

from __future__ import annotations

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import cv2
import numpy as np

RATE = 20.0
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else None


def picture(number: int) -> bytes:
    """A red object on grey, moving to the right and back, JPEG."""
    image = np.full((96, 128, 3), 90, np.uint8)
    left = 10 + abs(number * 4 % 120 - 60)
    image[30:58, left : left + 36] = (0, 0, 255)
    return cv2.imencode(".jpg", image)[1].tobytes()


class Handler(BaseHTTPRequestHandler):
    served = 0

    def do_GET(self) -> None:
        path = self.path
        if FOLDER is not None and (FOLDER / path[1:]).is_file():
            body = (FOLDER / path[1:]).read_bytes()
            self.begin("video/mp4", len(body))
            self.wfile.write(body)
        elif path == "/silent":
            time.sleep(60)
        elif path == "/garbage":
            self.begin("multipart/x-mixed-replace; boundary=frame")
            self.wfile.write(np.random.default_rng(0).bytes(200_000))
        elif path == "/broken":
            self.begin("multipart/x-mixed-replace; boundary=frame")
            for _ in range(20):
                self.part(picture(0)[:40])
        elif path == "/page":
            self.begin("text/html")
            self.wfile.write(b"<html>log in first</html>")
        elif path == "/once" and Handler.served:
            self.send_error(404)
        elif path in ("/camera", "/short", "/once", "/stalls"):
            Handler.served += path == "/once"
            self.begin("multipart/x-mixed-replace; boundary=frame")
            for number in count() if path == "/camera" else range(5):
                self.part(picture(number))
                time.sleep(1 / RATE)
            if path == "/stalls":
                time.sleep(60)
        else:
            self.send_error(404)

    def begin(self, kind: str, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def part(self, jpeg: bytes) -> None:
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        self.wfile.write(head.encode() + jpeg + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes is no error."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    parent = os.getppid()
    server.timeout = 1.0
    while os.getppid() == parent:  # ends with the tests, however they end
        server.handle_request()
