"""What the tests of the dashboard share: a server, a browser, programs and calls that report."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from support import descendants, descriptors
from tercio import dashboard
from tercio.dashboard import _address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

BOUND = 60  # seconds, against a hang
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

PROGRAM = """
import os, signal, sys
from tercio import WorkerPool

def gated(value):
    '''Waits for a byte.

    <b>markup</b>'''
    if value >= 5:
        with open(sys.argv[2], "rb", buffering=0) as gate:
            gate.read(1)
    return value

def fail(value):
    if value == 5:
        raise ValueError("<img src=x onerror='window.harmed = true'>", value)

def die(value):
    if value == 5:
        os.kill(os.getpid(), signal.SIGKILL)

def inner(value):
    return value

def nest(value):
    with WorkerPool(1, start_method="spawn") as pool:
        return pool.map(inner, range(value), progress_bar=True, progress_bar_style="dashboard")

if __name__ == "__main__":
    function = globals()[sys.argv[1]]
    with WorkerPool(2, start_method=sys.argv[3], daemon=function is not nest, enable_insights=True) as pool:
        pool.map(function, range(4 if function is nest else 10), chunk_size=1, progress_bar=True,
                 progress_bar_style="dashboard")
"""


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(kept_for_the_process: None) -> Iterator[None]:
    """As for every test, but for all of these together: a browser starts and ends processes as it likes."""
    processes, files = descendants(os.getpid()), descriptors()
    yield
    assert descendants(os.getpid()) <= processes
    assert {name: where for name, where in descriptors().items() if name not in files} == {}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A dashboard that all tests report to."""
    details = dashboard.start_dashboard([0])
    try:
        yield details["dashboard_port_nr"]
    finally:
        dashboard.shutdown_dashboard()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a screen."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium here; tools/setup.sh installs it where it may")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, port: int) -> Iterator[Any]:
    """The dashboard's page; it must not ask another host for anything, nor stumble."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(BOUND * 1000)
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(f"http://localhost:{port}/")
    yield opened
    context.close()
    assert errors == []
    assert all(url.startswith(f"http://localhost:{port}/") for url in asked), asked


class Live:
    """A call that is under way, as the server hears of it."""

    def __init__(self, port: int, name: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _address.BUFFER)
        head = f"POST /api/report HTTP/1.1\r\nHost: localhost:{port}\r\nTransfer-Encoding: chunked\r\n"
        self.raw(f"{head}Authorization: Bearer {_address.read_token(port)}\r\n\r\n".encode())
        self.send(start={"total": 100_000, "function": {"name": name}})

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @staticmethod
    def encode(**message: Any) -> bytes:
        """A message on the wire; each field a line, as what workers do has to be."""
        lines = b"".join(
            json.dumps({name: value}, separators=(",", ":")).encode() + b"\n" for name, value in message.items()
        )
        return b"%x\r\n%s\r\n" % (len(lines), lines)

    def raw(self, data: bytes) -> None:
        """Send something that is encoded."""
        self.socket.sendall(data)

    def send(self, **message: Any) -> None:
        """Send a message."""
        self.raw(self.encode(**message))


class Program:
    """A program that reports, and the gate that its tasks wait at."""

    def __init__(self, folder: Path, function: str, method: str = "fork") -> None:
        script, gate = folder / f"{function}.py", folder / "gate"
        script.write_text(PROGRAM, "utf-8")
        os.mkfifo(gate)
        self.gate = os.open(gate, os.O_RDWR)
        self.process = subprocess.Popen(
            [sys.executable, str(script), function, str(gate), method],
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.gate)
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=BOUND)

    def open(self, n: int) -> None:
        """Let n tasks pass."""
        os.write(self.gate, b"." * n)

    def wait(self) -> str:
        """Standard error, when it has ended."""
        return self.process.communicate(timeout=BOUND)[1].decode()


def shows(page: Any, selector: str, text: str) -> None:
    """Wait until an element has a text."""
    page.locator(selector, has_text=text).first.wait_for()


def counts(page: Any, selector: str, number: int) -> None:
    """Wait until there are so many elements."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(number, timeout=BOUND * 1000)


def until(page: Any, condition: str) -> None:
    """Wait until something is so in the page; its policy lets nobody give it functions."""
    page.evaluate(
        f"new Promise(done => {{ const look = () => {condition} ? done() : requestAnimationFrame(look); look(); }})"
    )


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Status and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def report(port: int, *messages: Any, token: str | None = None) -> int:
    """Send messages as a program would; returns the status."""
    lines = b"".join(
        message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n" for message in messages
    )
    secret = _address.read_token(port) if token is None else token
    return ask(port, "POST", "/api/report", lines, Authorization=f"Bearer {secret}")[0]


def watching(code: Any) -> None:
    """Run something in a loop of its own: the browser's may be running in this thread."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(code())).result()
