# SPDX-License-Identifier: Apache-2.0
"""A board as a web page: pictures as MJPEG, numbers as server-sent events.

There is nothing to write to and nothing of the disk to read. A client that is slow skips frames; one that takes no
bytes for seconds is disconnected. A request's Host header must name this machine: a foreign page whose name was made
to lead here (DNS rebinding) must not read what the camera sees.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from instance_flow.structures import InstanceFlowError
from instance_flow.watching.board import Board, View

MOST_STREAMS = 16
"""Streams at a time; a page has two of them."""
_MOST_CONNECTIONS = 32
_PATIENCE = 10.0
"""Seconds that a client may take to ask, and to take what it asked for."""
_KEPT_ALIVE = 3.0
_PICTURES_PER_SECOND, _STATES_PER_SECOND = 30.0, 10.0
_BUFFER = 2**17
"""Bytes that the system may hold for a client: what lies there gets old."""
_BOUNDARY = "frame"
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


@contextmanager
def serving(board: Board, host: str, port: int) -> Iterator[str]:
    """Serve a board as long as the context lasts; gives the page's address. port: 0 = any that is free.

    Raises InstanceFlowError where the address cannot be bound.
    """
    try:
        server = _Server(board, host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InstanceFlowError(f"--serve: {host} port {port} cannot be served: {reason}; name another one") from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="watching", daemon=True)
    thread.start()
    shown = (
        "127.0.0.1" if host in ("", "0.0.0.0") else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
    )
    try:
        yield f"http://{shown}:{server.server_address[1]}/"
    finally:
        board.end()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Another run on the same port must hear that it is taken.
    allow_reuse_port = False

    def __init__(self, board: Board, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.board, self.host = board, host
        self.page = resources.files("instance_flow.watching").joinpath("page.html").read_bytes()
        self.streams = BoundedSemaphore(MOST_STREAMS)
        self._connections = BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without the look-up of this machine's name in HTTPServer, which may take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    disable_nagle_algorithm = True
    server_version, sys_version = "instance-flow", ""

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        super().setup()

    def log_message(self, *_: object) -> None:
        """Requests are nothing to report."""

    def do_GET(self) -> None:
        """Answer."""
        parts = urlsplit(self.path)
        if not self._is_asked_for_here():
            self._refuse(HTTPStatus.FORBIDDEN, "this page is only served under this machine's own name or address")
        elif parts.path == "/":
            self._send("text/html; charset=utf-8", self.server.page)
        elif parts.path in ("/stream.mjpg", "/events", "/frame.jpg", "/state.json"):
            text = parse_qs(parts.query).get("camera", ["0"])[0]
            if text.isdecimal() and len(text) < 4 and int(text) < self.server.board.cameras:
                {"/stream.mjpg": self._pictures, "/events": self._events}.get(parts.path, self._newest)(int(text))
            else:
                self._refuse(HTTPStatus.NOT_FOUND, f"cameras are counted from 0 to {self.server.board.cameras - 1}")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is /, /stream.mjpg, /events, /frame.jpg and /state.json")

    def _is_asked_for_here(self) -> bool:
        """Whether the page's address names this machine, and no other site's page asks."""
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return False
        try:
            name = (urlsplit(f"//{self.headers['Host']}").hostname or "").lower()
        except ValueError:
            return False
        own = socket.gethostname().lower()
        if name in ("localhost", own, f"{own}.local", self.server.host.lower()):
            return bool(name)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _newest(self, camera: int) -> None:
        view = self.server.board.look(camera, 0, _KEPT_ALIVE)
        if view is None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there is no frame yet")
        elif self.path.startswith("/frame.jpg"):
            self._send("image/jpeg", self.server.board.picture(view))
        else:
            self._send("application/json", json.dumps(self.server.board.state(view)).encode())

    def _pictures(self, camera: int) -> None:
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        # A boundary comes after each picture and not before it: browsers show a picture when they have seen its end.
        boundary = f"--{_BOUNDARY}\r\n"
        for view in self._views(kind, camera, _PICTURES_PER_SECOND):
            jpeg = self.server.board.picture(view)
            stamp = "" if view.frame.stamp is None else f"X-Timestamp: {view.frame.stamp / 1e9:.6f}\r\n"
            head = f"{boundary}Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n{stamp}\r\n"
            self.wfile.write(head.encode() + jpeg + f"\r\n--{_BOUNDARY}\r\n".encode())
            boundary = ""

    def _events(self, camera: int) -> None:
        for view in self._views("text/event-stream; charset=utf-8", camera, _STATES_PER_SECOND):
            self.wfile.write(b"data: " + json.dumps(self.server.board.state(view)).encode() + b"\n\n")
        if self.server.board.ended:
            with suppress(OSError):
                self.wfile.write(b"event: end\ndata: {}\n\n")

    def _views(self, kind: str, camera: int, rate: float) -> Iterator[View]:
        """Begin a stream, and give its frames, at most so many per second; while none comes the newest again, so that a
        client that went is noticed."""
        board = self.server.board
        if not self.server.streams.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many are watching; close another page")
            return
        try:
            self._begin(HTTPStatus.OK, kind)
            order = 0
            while not board.ended:
                view = board.look(camera, order, _KEPT_ALIVE)
                begun = time.monotonic()
                if view is not None and not board.ended:
                    order = view.order
                    yield view
                time.sleep(max(0.0, begun + 1 / rate - time.monotonic()))
        finally:
            self.server.streams.release()

    def _send(self, kind: str, body: bytes) -> None:
        self._begin(HTTPStatus.OK, kind, len(body))
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        body = f"{reason}\n".encode()
        self._begin(status, "text/plain; charset=utf-8", len(body))
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
