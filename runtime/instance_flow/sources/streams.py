# SPDX-License-Identifier: Apache-2.0
"""Cameras, network streams and standard input: their names, how they are opened, and errors that say why not."""

from __future__ import annotations

import base64
import os
import re
import select
import socket
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request, urlopen

import cv2

from instance_flow.formats.foreign_text import shown
from instance_flow.formats.video import WITHOUT_TIMES, frame_count, opencv_path
from instance_flow.structures import SourceError

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""The schemes of addresses that can be run, and their usual ports."""

OPEN_SECONDS, READ_SECONDS = 10.0, 5.0
"""How long an address may take to begin, and then from one frame to the next."""
_CHECK_SECONDS = 3.0
_POLL = 0.1
_VIDEO4LINUX = 81
"""Linux' number of devices that are cameras."""
_HEAD = 16


@dataclass(frozen=True)
class Connection:
    """An opened stream. recorded: it has an end, and all of its frames are wanted; nothing is lost where they wait.
    has_times: its container tells when each frame is shown.   length: number of frames, None where unknown."""

    capture: cv2.VideoCapture
    recorded: bool = False
    has_times: bool = False
    length: int | None = None


class Stream(Protocol):
    """label: for messages and files, without a password.   name: fit for a folder."""

    @property
    def label(self) -> str: ...

    @property
    def name(self) -> str: ...

    def open(self) -> Connection:
        """Connect, which may take seconds. SourceError says why it cannot be done."""
        ...

    def close(self) -> None:
        """End the stream: a thread that waits for it is released, where that is possible."""
        ...


@dataclass(frozen=True)
class CameraDevice:
    """A camera of Video4Linux, such as /dev/video0."""

    path: Path

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> Connection:
        """See Stream."""
        path = self.path
        if not path.exists():
            there = sorted(str(other) for other in path.parent.glob("video*"))
            known = f"there are {', '.join(there)}" if there else "this machine has none; is it plugged in?"
            raise SourceError(f"{path}: no such camera; {known}")
        if not stat.S_ISCHR(path.stat().st_mode) or os.major(path.stat().st_rdev) != _VIDEO4LINUX:
            raise SourceError(f"{path} is not a camera, which would be a device such as /dev/video0")
        if not os.access(path, os.R_OK | os.W_OK):
            raise SourceError(
                f"{path}: this user may not open the camera; run `sudo usermod -aG video $USER` and log in again"
            )
        capture = cv2.VideoCapture(opencv_path(path), cv2.CAP_V4L2)
        if not capture.isOpened():
            holder = _holder(path)
            raise SourceError(
                f"{path}: the camera is busy: {holder} uses it; end that program"
                if holder
                else f"{path}: cannot be opened as a camera: it is busy, or not a device that gives pictures; "
                "`v4l2-ctl --list-devices` lists those that do"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return Connection(capture)

    def close(self) -> None:
        """See Stream: OpenCV cannot be interrupted."""


@dataclass(frozen=True)
class Address:
    """A stream or a video file in the network. url: of a scheme of ``PORTS``."""

    url: str

    @property
    def label(self) -> str:
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def name(self) -> str:
        parts = urlsplit(self.label)
        return re.sub(r"[^\w.]+", "-", f"{parts.netloc}{parts.path}", flags=re.ASCII).strip("-.")[:100] or parts.scheme

    def check(self) -> None:
        """Raises SourceError where the address has no host, or a port that is no port."""
        try:
            parts = urlsplit(self.url)
            sound = bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            kind = self.url.partition(":")[0]
            raise SourceError(f"{shown(self.url)}: this address is damaged; expected {kind}://HOST[:PORT]/PATH")

    def open(self) -> Connection:
        """See Stream."""
        limits = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_SECONDS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: READ_SECONDS,
        }
        options = [number for key, seconds in limits.items() for number in (key, round(1000 * seconds))]
        # Each thread of the decoder would delay the output by a frame.
        options += [cv2.CAP_PROP_N_THREADS, 1]
        capture = cv2.VideoCapture(self.url, cv2.CAP_FFMPEG, options)
        if not capture.isOpened():
            raise SourceError(f"{self.label}: {_trouble(urlsplit(self.url))}")
        if not urlsplit(self.url).scheme.startswith("http"):
            return Connection(capture)
        if (frames := frame_count(capture)) is not None:
            return Connection(capture, recorded=True, has_times=True, length=frames)
        # Cameras that send JPEG may serve one client only, so they are not asked again.
        is_file = int(capture.get(cv2.CAP_PROP_FOURCC)) != cv2.VideoWriter.fourcc(*"MJPG") and self._is_file()
        return Connection(capture, recorded=is_file, has_times=is_file)

    def close(self) -> None:
        """See Stream: OpenCV cannot be interrupted; it gives up by itself after the seconds above."""

    def _is_file(self) -> bool:
        """Whether the server states a length, as for a file; playlists are files, but may name an endless stream."""
        try:
            with _http_get(urlsplit(self.url)) as answer:
                kind = answer.headers.get_content_type()
                return answer.headers.get("Content-Length") is not None and "mpegurl" not in kind
        except (OSError, HTTPException, ValueError):
            return False


class StandardInput:
    """A video that another program writes to a pipe. The pipe blocks the writer, so no frame is dropped."""

    label = "standard input"
    name = "stdin"

    def __init__(self) -> None:
        self._closed = Event()

    def open(self) -> Connection:
        """See Stream. Can be done once."""
        if sys.stdin is None or os.isatty(0):
            raise SourceError(
                "standard input is a terminal; pipe a video into it, such as "
                "`ffmpeg -i VIDEO -f matroska - | instance-flow run -`"
            )
        head = b""
        while len(head) < _HEAD and (more := self._read(_HEAD - len(head))):
            head += more
        if not head:
            raise SourceError("standard input: it ended before the first byte; did the program before it fail?")
        reading, writing = os.pipe()
        Thread(target=self._hand_on, args=(head, writing), name="standard input", daemon=True).start()
        capture = cv2.VideoCapture(f"pipe:{reading}", cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(
                "standard input: cannot be read as a video; expected Matroska, MPEG-TS, MP4, MJPEG or raw H.264"
            )
        return Connection(capture, recorded=True, has_times=not WITHOUT_TIMES.match(head))

    def close(self) -> None:
        """See Stream."""
        self._closed.set()

    def _read(self, most: int) -> bytes:
        """The next bytes; none at the end, and once it is closed."""
        while not self._closed.is_set():
            if select.select([0], [], [], _POLL)[0]:
                return os.read(0, most)
        return b""

    def _hand_on(self, head: bytes, writing: int) -> None:
        """Pass everything on to FFmpeg, from the first byte on, which was read to tell the format."""
        with suppress(OSError), os.fdopen(writing, "wb", buffering=0) as pipe:
            while head:
                pipe.write(head)
                head = self._read(2**16)


def _holder(device: Path) -> str:
    """The program that has a device open, empty where none can be seen."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == device.resolve() and (process := link.parts[2]) != str(os.getpid()):
                return f"{shown((link.parents[1] / 'comm').read_text().strip())} (process {process})"
    return ""


def _trouble(parts: SplitResult) -> str:
    """Why an address could not be opened, which FFmpeg knows but OpenCV does not tell."""
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        with socket.create_connection((host, port), timeout=_CHECK_SECONDS) as connection:
            answer = _rtsp_answer(connection, parts, host, port) if parts.scheme == "rtsp" else ""
    except socket.gaierror:
        return f"there is no host {shown(host)}; check the name and the network"
    except TimeoutError:
        return f"{shown(host)} at port {port} does not answer; check the address and that the camera is on"
    except OSError as error:
        return f"{shown(host)} at port {port}: {error.strerror or error}; is the camera or the server running?"
    answer = answer or (_http_answer(parts) if parts.scheme.startswith("http") else "")
    return answer or f"no frame came within {OPEN_SECONDS:g} s; expected video that FFmpeg can decode"


def _rtsp_answer(connection: socket.socket, parts: SplitResult, host: str, port: int) -> str:
    request = (
        f"DESCRIBE rtsp://{host}:{port}{parts.path}{'?' * bool(parts.query)}{parts.query} RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    )
    connection.sendall(request.encode())
    line = connection.recv(256).partition(b"\r\n")[0].decode("latin-1")
    found = re.match(r"RTSP/1\.0 (\d{3}) (.*)", line)
    if found is None:
        return f"it does not speak RTSP: it answered '{shown(line, 40)}'"
    if found[1] == "401":
        return "it wants a user and a password; " + (
            "those in the address are wrong" if parts.username else "write rtsp://USER:PASSWORD@HOST/PATH"
        )
    return "" if found[1] == "200" else f"the server answers {found[1]} {shown(found[2])}; check the path"


def _http_get(parts: SplitResult) -> Any:
    """The answer to a request, as of urlopen."""
    host = parts.hostname or ""
    address = parts._replace(netloc=f"{f'[{host}]' if ':' in host else host}:{parts.port or PORTS[parts.scheme]}")
    request = Request(address.geturl(), headers={"User-Agent": "instance-flow"})
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    return urlopen(request, timeout=_CHECK_SECONDS)


def _http_answer(parts: SplitResult) -> str:
    try:
        with _http_get(parts) as answer:
            kind = shown(answer.headers.get_content_type())
            begun = bool(answer.read(1))
    except HTTPError as error:
        return f"the server answers {error.code} {shown(error.reason)}; check the path, the user and the password"
    except TimeoutError:
        return f"the server sent nothing within {OPEN_SECONDS:g} s; is the camera running?"
    except (OSError, HTTPException, ValueError):
        return "the server's answer is not HTTP"
    if not begun:
        return f"the server sends an empty {kind}"
    return f"what the server sends as {kind} cannot be decoded as a video"
