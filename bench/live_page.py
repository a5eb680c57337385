# SPDX-License-Identifier: Apache-2.0
"""Latency of the live page: from a camera's picture to the same picture, with its tracks drawn, at a client.

    python bench/live_page.py VIDEO [--rate 10] [--frames 100] [--options "--size 448x256"]

The camera is an HTTP stream of the video, 640x360, which this script serves; the number of each picture stands as black
and white squares in its lowest rows and is read again from what the page sends.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from time import monotonic, sleep

import cv2
import numpy as np

from instance_flow.structures import Image

WIDTH, HEIGHT, BITS, SQUARE, WARM_UP = 640, 360, 16, 16, 20


def with_number(image: Image, number: int) -> Image:
    """A copy that says its number."""
    marked = image.copy()
    for bit in range(BITS):
        marked[-SQUARE:, bit * SQUARE : (bit + 1) * SQUARE] = 255 * (number >> bit & 1)
    return marked


def number_of(image: Image) -> int:
    """What ``with_number`` wrote."""
    row = image[image.shape[0] - SQUARE // 2, SQUARE // 2 : BITS * SQUARE : SQUARE].mean(-1)
    return sum(int(value > 127) << bit for bit, value in enumerate(row))


def camera(video: Path, rate: float, sent: dict[int, float]) -> ThreadingHTTPServer:
    """A server of an endless stream, which notes when it sent which picture."""
    capture = cv2.VideoCapture(str(video))
    pictures = [np.asarray(cv2.resize(capture.read()[1], (WIDTH, HEIGHT)), np.uint8) for _ in range(60)]

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            due = monotonic()
            for number in count():
                # To and fro: a jump would be another scene.
                place = abs(number % (2 * len(pictures) - 2) - len(pictures) + 1)
                jpeg = cv2.imencode(".jpg", with_number(pictures[place], number))[1].tobytes()
                sleep(max(0.0, due - monotonic()))
                due += 1 / rate
                sent[number] = monotonic()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return  # the run has ended

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Camera)


def pictures_of(page: str) -> Iterator[tuple[float, Image]]:
    """When which picture came from the page."""
    with urllib.request.urlopen(f"{page}stream.mjpg", timeout=60) as stream:
        while line := stream.readline():
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
                while stream.readline().strip():
                    pass
                jpeg, arrived = stream.read(size), monotonic()
                image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                assert image is not None
                yield arrived, np.asarray(image, np.uint8)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--rate", type=float, default=10.0, help="pictures of the camera per second")
    parser.add_argument("--frames", type=int, default=100, help="pictures to measure")
    parser.add_argument("--options", default="", help="more options of instance-flow run, such as '--size 448x256'")
    chosen = parser.parse_args()
    sent: dict[int, float] = {}
    server = camera(chosen.video, chosen.rate, sent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "instance_flow", "run", f"http://127.0.0.1:{server.server_port}/", "--serve", "0"]
        process = subprocess.Popen(
            [*run, "--out", str(Path(folder) / "out"), *chosen.options.split()], stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            own = f":{server.server_port}/"
            words = (word.rstrip(".,;") for line in process.stderr for word in line.split())
            page = next(word for word in words if word.startswith("http://") and own not in word)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            numbers, latencies = [], []
            for arrived, image in pictures_of(page):
                number = number_of(image)
                if number in sent and number not in numbers:
                    numbers.append(number)
                    latencies.append(1e3 * (arrived - sent[number]))
                if len(latencies) >= chosen.frames + WARM_UP:
                    break
        finally:
            process.terminate()
            process.wait()
    kept = latencies[WARM_UP:]
    shown = len(kept) / (numbers[-1] - numbers[WARM_UP] + 1)
    print(f"median {median(kept):.0f} ms, p90 {quantiles(kept, n=10)[-1]:.0f} ms; {shown:.0%} of the pictures shown")


if __name__ == "__main__":
    main()
