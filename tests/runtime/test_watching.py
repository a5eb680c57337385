# SPDX-License-Identifier: Apache-2.0
"""The live page: who may see it, what it shows, and that no client holds up the tracking."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from ctypes.util import find_library
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from red_thing import HEIGHT, WIDTH, frames

from instance_flow.commands.cli import main
from instance_flow.formats.video import Frame
from instance_flow.structures import NEW, InstanceFlowError, Tracks
from instance_flow.watching.board import Board
from instance_flow.watching.server import MOST_STREAMS, serving

TIMEOUT = 10.0


def frame(number: int, camera: int = 0) -> Frame:
    return Frame(frames(6)[number % 6], time.time_ns(), "", "", camera=camera, number=number)


def tracks(number: int) -> Tracks:
    """The red square of frame ``number``; id 1, kept since frame 0, and moving to the right."""
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    left = 16 + 8 * (number % 6)
    labels[32:56, left : left + 24] = 1
    one = np.ones(1, np.float32)
    return Tracks(
        frame_index=number, label_map=labels, ids=np.array([1]), class_ids=np.array([0]), scores=one * 0.5,
        semantic_scores=one, center_scores=one * 0.5, centers=np.array([[43.5, left + 11.5]], np.float32),
        boxes=np.array([[left, 32, 24, 24]], np.float32), areas=np.array([576]),
        velocities=np.array([[0, 80]], np.float32), states=np.array([1 if number else 0]), ages=np.array([number]),
        age_seconds=np.array([number / 10]), reference_frames=np.array([0 if number else NEW]),
        distances=np.array([1.25 if number else np.nan], np.float32),
    )  # fmt: skip


@pytest.fixture
def board() -> Board:
    board = Board(["red"])
    board.begin("clip", [""], lambda: 7)
    return board


@pytest.fixture
def port(board: Board) -> Iterator[int]:
    with serving(board, "127.0.0.1", 0) as address:
        yield int(address.rstrip("/").rpartition(":")[2])


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/frame.jpg", {}, 200),
        ("/state.json", {}, 200),
        ("/state.json?camera=1", {}, 404),
        ("/state.json?camera=-1", {}, 404),
        ("/state.json?camera=9999999999", {}, 404),
        ("/page.html", {}, 404),
        ("/../../etc/passwd", {}, 404),
        ("/%2e%2e/", {}, 404),
        ("//", {}, 200),
        ("/", {"Host": "localhost:1234"}, 200),
        ("/", {"Host": "192.168.1.20:8420"}, 200),
        ("/", {"Host": "[::1]:8420"}, 200),
        ("/", {"Host": socket.gethostname()}, 200),
        ("/", {"Host": "evil.example"}, 403),
        ("/frame.jpg", {"Host": "127.0.0.1.evil.example"}, 403),
        ("/state.json", {"Host": ""}, 403),
        ("/state.json", {"Host": "[::1"}, 403),
        ("/stream.mjpg", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("/frame.jpg", {"Sec_Fetch_Site": "same-site"}, 403),
        ("/state.json", {"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_who_sees_what(board: Board, port: int, path: str, headers: dict[str, str], status: int) -> None:
    board.add(frame(0), tracks(0))
    answered, body, said = ask(port, path, **headers)
    assert answered == status
    assert said["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in said
    assert "frame-ancestors 'none'" in said["Content-Security-Policy"]
    if path == "/" and status == 200:
        assert b"<title>instance-flow</title>" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"])
def test_there_is_nothing_to_write_to(port: int, method: str) -> None:
    assert ask(port, "/", method)[0] == 501


def test_state_and_picture(board: Board, port: int) -> None:
    for number in range(3):
        board.add(frame(number), tracks(number))
    state = json.loads(ask(port, "/state.json")[1])
    assert {key: state[key] for key in ("source", "number", "last_id", "dropped", "counts")} == {
        "source": "clip",
        "number": 2,
        "last_id": 1,
        "dropped": 7,
        "counts": {"red": 1},
    }
    assert 0 <= state["latency_ms"] < 10_000
    (track,) = state["tracks"]
    assert (track["id"], track["class_name"], track["score"]) == (1, "red", 0.5)
    assert (track["kept"], track["velocity"]) == ({"reference_frame": 0, "distance": 1.25}, {"x": 80.0, "y": 0.0})
    picture = cv2.imdecode(np.frombuffer(ask(port, "/frame.jpg")[1], np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert not np.allclose(picture[44, 44, ::-1], (220, 30, 30), atol=40), "the mask is drawn over it"


def test_a_wide_picture_is_shrunk(board: Board, port: int) -> None:
    labels = np.zeros((100, 4000), np.int32)
    wide = Frame(np.zeros((100, 4000, 3), np.uint8), None, "", "")
    board.add(wide, Tracks(**{**vars(tracks(0)), "label_map": labels}))
    picture = cv2.imdecode(np.frombuffer(ask(port, "/frame.jpg")[1], np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (32, 1280, 3)


def test_streams_give_the_newest_frame(board: Board, port: int) -> None:
    board.add(frame(0), tracks(0))
    with (
        urlopen(f"http://127.0.0.1:{port}/events", timeout=TIMEOUT) as events,
        urlopen(f"http://127.0.0.1:{port}/stream.mjpg", timeout=TIMEOUT) as pictures,
    ):
        assert json.loads(events.readline()[6:])["number"] == 0
        assert pictures.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        for number in range(1, 4):
            head = [pictures.readline() for _ in range(5)]
            assert head[0] == b"--frame\r\n"
            length = int(head[2].split()[1])
            assert pictures.read(length)[:2] == b"\xff\xd8"
            assert pictures.readline() == b"\r\n"
            board.add(frame(number), tracks(number))
        numbers = [0]
        while numbers[-1] < 3:
            line = events.readline()
            numbers += [json.loads(line[6:])["number"]] if line.startswith(b"data") else []
        assert numbers == sorted(set(numbers))
        board.end()
        assert b"event: end" in events.read()


def test_cameras_are_apart(board: Board, port: int) -> None:
    board.begin("bag", ["front", "rear"], None)
    board.add(frame(3, 0), tracks(3))
    board.add(frame(5, 1), tracks(5))
    found = [json.loads(ask(port, f"/state.json?camera={camera}")[1]) for camera in (0, 1)]
    assert [state["number"] for state in found] == [3, 5]
    assert found[0]["cameras"] == ["front", "rear"]
    assert "dropped" not in found[0]


def test_a_client_that_does_not_read_holds_nothing_up(board: Board, port: int) -> None:
    """Noise, so that a frame is larger than what the system takes for the client."""
    board.add(frame(0), tracks(0))
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1280, 3), np.uint8)
    empty = Tracks(**{**vars(tracks(0)), "label_map": np.zeros((1080, 1280), np.int32)})
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert lazy.recv(12) == b"HTTP/1.0 200"
        slowest = 0.0
        for number in range(1, 40):
            begun = time.monotonic()
            board.add(Frame(noise, None, "", "", number=number), empty)
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 1.0, "the client is waited for 10 seconds"
        assert json.loads(ask(port, "/state.json")[1])["number"] == 39


def test_no_more_streams_than_so_many(board: Board, port: int) -> None:
    board.add(frame(0), tracks(0))
    address = f"http://127.0.0.1:{port}/events"
    streams = [urlopen(address, timeout=TIMEOUT) for _ in range(MOST_STREAMS)]
    assert all(stream.readline() for stream in streams)
    status, body, _ = ask(port, "/events")
    assert (status, body) == (503, b"too many are watching; close another page\n")
    assert ask(port, "/state.json")[0] == 200
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + TIMEOUT
    number = 1
    while ask(port, "/frame.jpg?camera=0")[0] != 200 or not _has_room(port):
        board.add(frame(number), tracks(number))  # by which the server notices who went
        number += 1
        assert time.monotonic() < deadline


def _has_room(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.0 200"


def test_a_port_that_is_taken(port: int) -> None:
    said = f"--serve: 127.0.0.1 port {port} cannot be served: Address already in use; name another one"
    with pytest.raises(InstanceFlowError, match=said), serving(Board([]), "127.0.0.1", port):
        pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--serve", "65536"], "'65536' is not a whole number from 0 to 65535; put SOURCE before --serve"),
        (["--serve", "0", "--serve-host", "nobody.invalid"], "--serve: nobody.invalid port 0 cannot be served: "),
    ],
)
def test_addresses_that_cannot_be_served(
    options: list[str], said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), frames(1)[0])
    command = ["run", str(tmp_path / "a.png"), "--model", str(model), "--out", str(tmp_path / "out"), *options]
    try:
        code = main(command)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_window_where_there_can_be_none(model: Path, tmp_path: Path) -> None:
    """Of an OpenCV without windows the sentence names the package; of one with windows, the display."""
    cv2.imwrite(str(tmp_path / "a.png"), frames(1)[0])
    command = [sys.executable, "-m", "instance_flow", "run", "a.png", "--model", str(model), "--show"]
    environment = {name: text for name, text in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    headless = "GUI:                           NONE" in cv2.getBuildInformation()
    assert ("pip install opencv-python" if headless else "DISPLAY is not set") in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def screen(folder: Path) -> NDArray[np.uint8]:
    """(H, W, 3) BGR: what Xvfb shows, which it keeps in a file in X's own format for pictures."""
    data = (folder / "Xvfb_screen0").read_bytes()
    header = np.frombuffer(data, ">u4", 25)
    height, line, begin = int(header[5]), int(header[12]), int(header[0] + 12 * header[19])
    pixels = np.frombuffer(data, np.uint8, height * line, begin).reshape(height, -1, 4)
    return pixels[:, : int(header[4]), :3]


def press_q(display: str) -> None:
    """The key is pressed in whatever window the pointer is, as there is no window manager."""
    x11, test = ctypes.CDLL(find_library("X11")), ctypes.CDLL(find_library("Xtst"))
    x11.XOpenDisplay.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    key = x11.XKeysymToKeycode(connection, ctypes.c_ulong(ord("q")))
    for down in (1, 0):
        test.XTestFakeKeyEvent(connection, key, down, ctypes.c_ulong(0))
    x11.XCloseDisplay(connection)


def test_a_window_shows_the_tracks_until_q_is_pressed(model: Path, tmp_path: Path) -> None:
    """On a display that is a file."""
    if re.search(r"GUI:\s*NONE", cv2.getBuildInformation()):
        pytest.skip("this OpenCV has no windows (opencv-python has)")
    if not (shutil.which("Xvfb") and find_library("Xtst")):
        pytest.skip("no Xvfb on this machine, or no libXtst to press keys with")
    begin, write = os.pipe()
    shown = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-fbdir", str(tmp_path)]
    served = [sys.executable, str(Path(__file__).with_name("stream_server.py"))]
    with (
        subprocess.Popen(shown, pass_fds=[write], stderr=subprocess.DEVNULL) as xvfb,
        subprocess.Popen(served, stdout=subprocess.PIPE, text=True) as server,
    ):
        os.close(write)
        with os.fdopen(begin) as answer:
            display = f":{answer.readline().strip()}"
        assert server.stdout is not None
        camera = f"http://127.0.0.1:{int(server.stdout.readline())}/camera"
        command = [sys.executable, "-m", "instance_flow", "run", camera, "--show", "--model", str(model), "--json"]
        run = subprocess.Popen(
            [*command, "--out", str(tmp_path / "out"), "--no-video"], env={**os.environ, "DISPLAY": display},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        most = 0
        try:
            for _ in range(60):
                picture = screen(tmp_path).astype(int)
                most = max(most, int((picture.max(2) - picture.min(2) > 60).sum()))
                if most > 100:
                    press_q(display)
                with suppress(subprocess.TimeoutExpired):
                    run.wait(0.5)
                    break
        finally:
            run.terminate()
            said, errors = run.communicate()
            xvfb.terminate()
            server.terminate()
    assert most > 100, "the object and its name, shrunk, as the window has a toolbar"
    assert run.returncode == 0, errors
    assert json.loads(said)["interrupted"]


def test_in_a_browser(board: Board, port: int) -> None:
    """Chromium runs the page, and shows what is on the board; nothing is cut off on a phone."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    board.add(frame(2), tracks(2))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 640})
        faults: list[str] = []
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/", wait_until="domcontentloaded")
        page.wait_for_selector("#status.live")
        deadline = time.monotonic() + TIMEOUT
        while page.evaluate("document.getElementById('picture').naturalWidth") != WIDTH:
            assert time.monotonic() < deadline
        assert (page.inner_text("#objects"), page.inner_text("#dropped")) == ("1", "7")
        assert page.inner_text("#counts") == "red 1"
        for said in ("red 1", "0.50", "matched with frame 0, 1.3 px off", "80 px/s"):
            assert said in page.inner_text("#tracks")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        board.end()
        page.get_by_text("the run has ended").wait_for()
        assert faults == []
        browser.close()
