"""The dashboard, as programs report to it and as a browser shows it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from support import descendants, descriptors
from tercio import WorkerPool, dashboard
from tercio.dashboard import _address, _command, _runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = pytest.mark.timeout(180)
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


# ---- In the browser ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "threading"])
@pytest.mark.contract("9 runs")
def test_a_run_is_shown_while_it_runs(page: Any, tmp_path: Path, method: str) -> None:
    """Its bar stands where the work stands, the lanes show who is busy, and all of it moves."""
    with Program(tmp_path, "gated", method) as program:
        shows(page, "#detail h3", "gated")
        shows(page, "#detail .big", "5 / 10")
        assert page.locator("#detail [role=progressbar]").get_attribute("aria-valuenow") == "50"
        counts(page, ".lane .chip.work", 2)
        shows(page, "#running .run", "gated")
        shows(page, "#detail .signature", "gated(value)")
        shows(page, "#detail .doc", "<b>markup</b>")
        shows(page, "#detail dl", f"{program.process.pid}")
        shows(page, "#detail dl", f"2 workers by {method}")
        shows(page, "#detail dl .signature", "pool.map(function")
        program.open(5)
        shows(page, "#detail .big", "10 / 10")
        page.locator("#detail.done").wait_for()
        shows(page, "#history .run.done", "gated")
        assert page.locator("#throughput path.curve").count() == 1
        tasks = page.locator(".lane").evaluate_all("lanes => lanes.map(l => parseInt(l.children[3].textContent))")
        assert sum(tasks) == 10
        shows(page, "#detail table", "Arg 0: 5")  # of those that waited longest
        assert program.wait() == ""


@pytest.mark.contract("9 failures")
def test_a_failure_is_shown_as_text(page: Any, tmp_path: Path) -> None:
    """The traceback, and nothing that it holds comes to life."""
    with Program(tmp_path, "fail") as program:
        shows(page, "#detail .trouble p", "ValueError")
        shows(page, "#detail .trouble p", "<img src=x")
        shows(page, "#detail .trouble pre", "in fail")
        counts(page, ".lane", 2)
        shows(page, "#detail table", "Arg 0: ")
        assert "_mapping.py" not in page.locator("#detail .trouble pre").inner_text()  # where we were helps nobody
        shows(page, "#history .run.failed", "fail")
        assert page.evaluate("window.harmed") is None
        assert page.locator("#detail img").count() == 0
        assert "ValueError" in program.wait()


@pytest.mark.contract("9 failures")
def test_a_death_is_shown_with_its_cause(page: Any, tmp_path: Path) -> None:
    """What killed the worker, and which task it ran."""
    with Program(tmp_path, "die") as program:
        shows(page, "#detail .trouble p", "was killed by SIGKILL")
        shows(page, "#detail .trouble p", "Arg 0: 5")
        assert page.locator("#detail .trouble pre").is_hidden()
        assert "WorkerDiedError" in program.wait()


@pytest.mark.contract("9 failures")
def test_an_interrupt_and_a_killed_program(page: Any, tmp_path: Path) -> None:
    """Ctrl-C says so itself; a program that is killed says nothing, and is seen to be gone."""
    for number, kind in ((signal.SIGINT, "interrupted"), (signal.SIGKILL, "lost")):
        folder = tmp_path / kind
        folder.mkdir()
        with Program(folder, "gated") as program:
            shows(page, "#running .run[aria-pressed=true]", "gated")
            shows(page, "#detail .big", "running")
            shows(page, "#detail .big", "5 / 10")
            program.process.send_signal(number)
            shows(page, "#detail .big", kind)
            shows(page, f"#history .run.{kind}", "gated")


@pytest.mark.contract("9 runs")
def test_nested_pools_in_spawned_workers_appear(page: Any, tmp_path: Path) -> None:
    """Workers of any method are connected as their parent is."""
    with Program(tmp_path, "nest", "spawn") as program:
        # map(nest, range(4)) makes four pools; the first one has nothing to do, and no bar.
        counts(page, "#history .run.done .name:text-is('inner')", 3)
        shows(page, "#history .run.done", "nest")
        assert program.wait() == ""


def test_keyboard_phone_and_dark(page: Any, port: int) -> None:
    """Arrows choose runs; a narrow screen needs no scrolling sideways; dark is dark."""
    with WorkerPool(2, start_method="threading") as pool:
        for function in (abs, str):
            pool.map(function, range(10), progress_bar=True, progress_bar_style="dashboard")
    shows(page, "#detail h3", "str")
    page.keyboard.press("ArrowDown")
    shows(page, "#detail h3", "abs")
    assert page.locator(".run[aria-pressed=true]").count() == 1
    page.keyboard.press("ArrowUp")
    shows(page, "#detail h3", "str")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.emulate_media(color_scheme="dark")
    red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red < 64


@pytest.mark.contract("9 history")
def test_many_runs_stay_within_bounds(page: Any, port: int) -> None:
    """Several hundred runs, one with a hundred workers: the page keeps what the server keeps."""
    lane = {"state": "work", "pid": 1, "tasks": 3, "restarts": 0, "wait": 1.0, "work": 2.0}
    for number in range(_runs.MOST_RUNS + 20):
        start = {"start": {"total": 10, "function": {"name": f"crowd{number}"}}}
        workers = [{**lane, "worker": n} for n in range(100)] if number > _runs.MOST_RUNS else []
        assert report(port, start, {"done": 10, "workers": workers, "end": {"state": "done"}}) == 204
    last = f"crowd{_runs.MOST_RUNS + 19}"
    shows(page, "#detail h3", last)
    counts(page, ".lane", 100)
    counts(page, ".run", _runs.MOST_RUNS)
    assert page.locator(".run", has_text=re.compile(r"crowd0\b")).count() == 0


def test_what_retried_workers_died_of(page: Any, port: int) -> None:
    """A call that goes on after deaths tells of them all the same."""
    lane = {"state": "work", "pid": 1, "tasks": 3, "restarts": 2, "wait": 1.0, "work": 2.0}
    lanes = [{**lane, "worker": 0, "died": "SIGKILL"}, {**lane, "worker": 1, "restarts": 0, "died": None}]
    start = {"start": {"total": 10, "function": {"name": "hardy"}}}
    assert report(port, start, {"done": 10, "workers": lanes, "end": {"state": "done"}}) == 204
    shows(page, "#detail h3", "hardy")
    page.get_by_text("2 restarted · died by SIGKILL").wait_for()


HARM = "<img src=x onerror='window.harmed = true'><script>window.harmed = true</script>"


def test_nothing_that_is_reported_comes_to_life(page: Any, port: int) -> None:
    """Markup in names, arguments, documentation, paths and tracebacks is shown as it is."""
    function = {"name": f"harm{HARM}", "signature": HARM, "doc": HARM, "file": HARM, "line": 1}
    start = {
        "call": HARM, "user": HARM, "program": HARM, "start_method": HARM, "function": function,
        "caller": {"function": HARM, "file": HARM, "text": HARM, "line": 1},
    }  # fmt: skip
    workers = [{"state": HARM, "worker": 0, "longest": [[1.5, 0, HARM]]}]
    end = {"state": "failed", "error": HARM, "traceback": HARM}
    assert report(port, {"start": start}, {"done": 1, "workers": workers, "end": end}) == 204
    shows(page, "#detail h3", f"harm{HARM}")
    shows(page, "#detail table", HARM)
    assert page.locator("#detail dl dd", has_text=HARM).count() == 6
    for place in (".signature", ".doc", ".trouble p", ".trouble pre"):
        shows(page, f"#detail {place}", HARM)
    assert page.locator("main img, main script").count() == 0
    # Nor does a script that got in another way: the policy knows no inline scripts.
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.harmed = 1'}))")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', `<i onclick='window.harmed = 1'>x</i>`)")
    page.locator("body > i").click()
    assert page.evaluate("window.harmed") is None


# What the page is told of one run, N runs and a hundred workers, over and over; returns nothing.
FEED = """([rounds, first, lanes]) => {
    for (let round = 0; round < rounds; round += 1) {
        const workers = Array.from({length: lanes}, (_, n) => ({
            worker: n, pid: n + 1, state: ["work", "wait"][(round + n) % 2], tasks: round, restarts: 0,
            start: 1, init: 0, wait: round, work: 2 * round, exit: 0}));
        const points = Array.from({length: 200}, (_, n) => [n * (round + 1), n * (round + n)]);
        take({time: Date.now() / 1000, gone: [], runs: [
            {id: first, done: round, rate: round, workers, points, slowest: [[round, `Arg 0: ${round}`]]}]});
        draw();
    }
}"""
TOLD = """([first, number]) => {
    const other = {file: "", line: null, signature: "()", doc: "", function: "", text: ""};
    const runs = Array.from({length: number}, (_, n) => ({
        id: first + n, name: `told${n}`, state: "running", done: 0, total: 1e6, rate: null, begun: 0, ended: null}));
    pinned = true;
    take({time: Date.now() / 1000, gone: [], runs});
    choose(first, true);
    take({time: Date.now() / 1000, gone: [], runs: [{id: first, function: other, caller: other, workers: [],
        points: [[0, 0]], slowest: [], error: "", traceback: "", user: "me", pid: 1, program: "", call: "map",
        n_jobs: 100, start_method: "fork"}]});
}"""


def tell(page: Any, first: int) -> None:
    """Tell a page that the server knows of three hundred runs, and of one in detail."""
    until(page, "page !== '' && question === null")
    page.evaluate(TOLD, [first, 300])


def test_a_page_left_open_does_not_grow(page: Any) -> None:
    """A quarter of an hour of news and an hour of it leave as many nodes and listeners, and no more memory."""
    tell(page, 10_000)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def grown(rounds: int) -> dict[str, float]:
        page.evaluate(FEED, [rounds, 10_000, 20])
        least: dict[str, float] = {}
        for _ in range(3):  # a collection leaves what the next one finds
            session.send("HeapProfiler.collectGarbage")
            for each in session.send("Performance.getMetrics")["metrics"]:
                least[each["name"]] = min(each["value"], least.get(each["name"], each["value"]))
        return least

    early = grown(200)
    late = grown(2000)
    for name, room in (("Nodes", 500), ("JSEventListeners", 5), ("JSHeapUsedSize", 2 << 20)):
        assert late[name] <= early[name] + room, (name, early[name], late[name])


def test_news_of_one_run_touches_no_other(page: Any) -> None:
    """With three hundred runs in the list and a hundred workers on show, a message costs what it changes."""
    tell(page, 20_000)
    counts(page, ".run", page.evaluate("runs.size"))
    page.evaluate(FEED, [1, 20_000, 100])
    page.locator("[data-run='20007']").scroll_into_view_if_needed()
    until(page, "near.has(rows.get(20007))")
    changed = page.evaluate(
        """() => {
            draw();
            const watch = new MutationObserver(() => {});
            const all = {subtree: true, childList: true, attributes: true, characterData: true};
            watch.observe(document.body, all);
            const runsOf = () => [...new Set(watch.takeRecords().map(r => {
                const node = r.target.nodeType === 1 ? r.target : r.target.parentNode;
                return node?.closest(".run")?.dataset.run ?? node.outerHTML.slice(0, 60); }))];
            const news = () => ({time: Date.now() / 1000, gone: [], runs: [{id: 20007, done: 5000, rate: 3}]});
            const told = () => { take(news()); draw(); return runsOf(); };
            return [told(), told()];
        }"""
    )
    assert changed == [["20007"], []]


# How many rows and lanes a message changes that changes every run and every worker.
DRAWN = """([first, number]) => {
    draw();
    const watch = new MutationObserver(() => {});
    watch.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
    const workers = Array.from({length: 100}, (_, n) => ({worker: n, pid: n + 1, state: "exit", tasks: 77, restarts: 5,
        start: 1, init: 0, wait: 1, work: 7, exit: 0}));
    const runs = Array.from({length: number}, (_, n) => ({id: first + n, done: 777, rate: 7}));
    runs[0].workers = workers;
    take({time: Date.now() / 1000, gone: [], runs});
    draw();
    const nodes = watch.takeRecords().map(r => r.target.nodeType === 1 ? r.target : r.target.parentNode);
    return [".run", ".lane"].map(kind => new Set(nodes.map(node => node.closest(kind)).filter(Boolean)).size);
}"""


def test_what_cannot_be_seen_is_not_drawn(page: Any) -> None:
    """News of three hundred runs and a hundred workers cost what is in sight; the rest is drawn when it gets there."""
    tell(page, 30_000)
    page.evaluate(FEED, [1, 30_000, 100])
    counts(page, ".lane", 100)
    until(page, "near.size > 3 && near.has(rows.get(30299)) && near.has(detail.ofWorkers[0])")
    drawn_rows, drawn_lanes = page.evaluate(DRAWN, [30_000, 300])
    assert 3 <= drawn_rows <= 60
    assert 3 <= drawn_lanes <= 60
    for far in ("[data-run='30000']", ".lane:last-child"):
        assert "77" not in page.locator(far).inner_text()
        page.locator(far).scroll_into_view_if_needed()
        shows(page, far, "77")


def test_arrow_held_down_ends_at_the_run_that_it_shows(page: Any, port: int) -> None:
    """Questions to the server are held up here: the one that counts still arrives last."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Live(port, f"held{n}")) for n in range(6)]
        shows(page, "#detail h3", "held5")
        shows(page, ".run[aria-pressed=true]", "held5")
        waiting: list[Any] = []
        page.route("**/api/watch", lambda route: waiting.append(route))
        for _ in range(5):
            page.keyboard.press("ArrowDown")
        shows(page, ".run[aria-pressed=true]", "held0")
        until(page, "asked !== null && question !== null")
        while waiting:  # the latest first, if there are several
            with page.expect_response("**/api/watch"):
                waiting.pop().continue_()
            page.evaluate("new Promise(requestAnimationFrame)")
        shows(page, "#detail h3", "held0")
        for tasks in (41, 42):
            held[0].send(workers=[{"worker": 0, "state": "work", "tasks": tasks, "work": 1.0}])
            shows(page, ".lane", f"{tasks}")


# Notes the longest time between two frames, and how often there is news.
WATCH = """() => {
    Object.assign(window, {told: 0, gap: 0});
    const plain = take;
    take = news => { told += 1; plain(news); };
    let last = performance.now();
    const look = () => {
        const now = performance.now();
        gap = Math.max(gap, now - last);
        last = now;
        requestAnimationFrame(look);
    };
    look();
}"""
STALL = 10  # seconds: dozens of times what a machine takes that has nothing else to do


def test_three_hundred_live_runs(page: Any, port: int) -> None:
    """A hundred workers each, all told of as fast as the server reads: the page answers to keys all the while."""
    with contextlib.ExitStack() as stack:
        live = [stack.enter_context(Live(port, f"live{n}")) for n in range(300)]
        counts(page, "#running .run", 300)
        over = threading.Event()

        def feed() -> None:
            for turn in itertools.count(1):
                states = [("work", "wait")[(turn + n) % 2] for n in range(100)]
                workers = [{"worker": n, "state": state, "tasks": turn, "work": 1.0} for n, state in enumerate(states)]
                message = Live.encode(done=turn, workers=workers)
                for each in live:
                    if over.is_set():
                        return
                    each.raw(message)

        with ThreadPoolExecutor(1) as thread:
            fed = thread.submit(feed)
            try:
                counts(page, ".lane", 100)
                page.evaluate(WATCH)
                for step in range(1, 6):
                    pressed = time.monotonic()
                    page.keyboard.press("j")
                    shows(page, ".run[aria-pressed=true]", f"live{299 - step}")
                    shows(page, "#detail h3", f"live{299 - step}")
                    counts(page, ".lane", 100)
                    assert time.monotonic() - pressed < STALL
                before = page.evaluate("told")
                until(page, f"told >= {before + 3}")
                assert page.evaluate("gap") < STALL * 1000
                assert page.locator("body *").count() < 300 * 16 + 100 * 16 + 300
            finally:
                over.set()
            fed.result()


# ---- On the wire ------------------------------------------------------------------------------------------------


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


@pytest.mark.contract("9 who may")
def test_only_who_may(port: int) -> None:
    """A report needs the token, a request our name; the token's file is its owner's alone."""
    assert report(port, {"start": {}}, token="") == 401
    assert report(port, {"start": {}}, token="guessed") == 401
    assert report(port, b"not json\n") == 400
    assert report(port, b"[1]\n") == 400
    for asked in (b"", b"[]", b'{"page": 1}', b"[" * 4096, b"[" * 4097):
        assert ask(port, "POST", "/api/watch", asked)[0] == (413 if len(asked) > 4096 else 400), asked
    assert ask(port, "POST", "/api/watch", b'{"page": "guessed", "run": 1}')[0] == 404
    for name in ("evil.example", f"evil.example:{port}", "", "localhost.evil.example"):
        assert ask(port, "GET", "/api/state", Host=name)[0] == 421, name
    for name in (f"localhost:{port}", f"[::1]:{port}", "127.0.0.1"):
        assert ask(port, "GET", "/api/state", Host=name)[0] == 200, name
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    connection.close()
    path = _address.token_file(port)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [line[1] for line in listening if line[1].endswith(f":{port:04X}") and line[3] == "0A"] == [
        f"0100007F:{port:04X}"
    ]


@pytest.mark.contract("9 who may")
def test_a_folder_that_others_prepared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else another user could read the token."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "tercio").mkdir(mode=0o755)
    with pytest.raises(PermissionError):
        _address.folder()


@pytest.mark.contract("9 who may")
def test_odd_messages_are_taken_with_care() -> None:
    """Whatever a field holds, what pages get has the type that they count on."""
    runs = _runs.Runs()
    run = runs.begin({"total": "many", "function": [1], "caller": {"line": 1e400, "file": 7}, "n_jobs": {}})
    runs.take(run, {"done": float("nan"), "workers": [1, {"state": "x" * 9, "tasks": "y"}], "end": None})
    runs.take(run, {"workers": [{"longest": [[1, 0, "a"], [3.5, 1, "b"], ["c", 1, 2], 7]}], "end": {"state": "flying"}})
    json.dumps(run.fields, allow_nan=False)
    for line in (b'{"workers":', b'{"workers":7}', b'{"workers":[' + b"[" * 100_000, b'{"workers":"\xff"}'):
        runs.take(run, {"workers": line})
        json.dumps(run.fields, allow_nan=False)
    assert run.fields["slowest"] == [(3.5, "b"), (1.0, "a")]
    assert (run.fields["total"], run.fields["state"], run.fields["done"]) == (None, "done", 0)


def watching(code: Any) -> None:
    """Run something in a loop of its own: the browser's may be running in this thread."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(code())).result()


def test_a_page_is_told_details_of_one_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """News of three hundred runs with a hundred workers each are as long as their list, and one run's details."""
    monkeypatch.setattr(_runs, "SHORTEST_STEP", 1e9)  # no new point of the throughput, however long this takes
    runs = _runs.Runs()
    workers = [{"worker": n, "state": "work", "pid": 1, "tasks": 1, "work": 1.25} for n in range(100)]

    async def watch() -> None:
        page = _runs.Page(runs)
        runs.pages.add(page)
        all_of_them = [
            runs.begin({"total": 1000, "function": {"name": f"f{n}", "doc": "d" * 5000}}) for n in range(300)
        ]
        assert (await page.news())["page"] == page.key
        page.watch(all_of_them[7].number)
        for run in all_of_them:
            runs.take(run, {"done": 5, "workers": workers})
        news = await page.news()
        assert len(news["runs"]) == 300
        assert [each["id"] for each in news["runs"] if "workers" in each] == [all_of_them[7].number]
        assert len(json.dumps(news)) < 300 * 60 + 40_000
        page.watch(all_of_them[8].number)
        runs.take(all_of_them[7], {"workers": workers})
        (only,) = (await page.news())["runs"]
        assert set(only) == set(all_of_them[8].fields)
        page.watch(None)
        runs.take(all_of_them[8], {"workers": workers, "done": 6})
        assert (await page.news())["runs"] == [{"id": all_of_them[8].number, "done": 6}]

    watching(watch)


def test_workers_that_nobody_looks_at_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the run on show are read and gone through, and those of a run that ends, once."""
    read: list[Any] = []
    unpacked = _runs.unpacked
    monkeypatch.setattr(_runs, "unpacked", lambda line: read.append(line) or unpacked(line))
    seen: list[Any] = []
    plain = _runs.worker
    monkeypatch.setattr(_runs, "worker", lambda value: seen.append(value) or plain(value))
    runs = _runs.Runs()

    async def watch() -> None:
        page = _runs.Page(runs)
        runs.pages.add(page)
        live = [runs.begin({}) for _ in range(300)]
        page.watch(live[7].number)
        await page.news()
        for turn in range(10):
            line = json.dumps({"workers": [{"worker": n, "tasks": turn} for n in range(100)]}).encode()
            for run in live:
                runs.take(run, {"done": turn})
                runs.take(run, {"workers": line})
        found = {run["id"]: run for run in (await page.news())["runs"]}
        assert [each["tasks"] for each in found[live[7].number]["workers"]] == [9] * 100
        assert (len(read), len(seen)) == (1, 100)
        runs.take(live[8], {"end": {}})
        assert live[8].fields["workers"][5]["tasks"] == 9
        assert (len(read), len(seen)) == (2, 200)

    watching(watch)


def test_a_question_is_answered_at_the_loops_next_turn() -> None:
    """A turn of the server's loop may be a block of each of hundreds of reports; only what isn't asked for rests."""
    runs = _runs.Runs()

    async def watch() -> None:
        page = _runs.Page(runs)
        runs.pages.add(page)
        run = runs.begin({})
        await page.news()
        page.rest(1e6)
        news = asyncio.create_task(page.news())
        runs.take(run, {"done": 5})
        for _ in range(10):
            await asyncio.sleep(0)
        assert not news.done()
        page.watch(run.number)
        await asyncio.sleep(0)
        assert news.done()
        assert news.result()["runs"][0]["done"] == 5
        page.rest(0)
        runs.take(run, {"done": 6})
        assert (await page.news())["runs"][0]["done"] == 6
        page.rest(1e6)
        runs.close()
        assert await page.news() is None
        assert await _runs.Page(runs).news() is None

    watching(watch)


def test_who_says_too_much_is_heard_as_of_now() -> None:
    """Of many lines that came at once the last one of workers counts, and every other line."""
    _server = pytest.importorskip("tercio.dashboard._server")
    lines = [
        b'{"start":{}}',
        *(b'{"workers":[%d]}' % n for n in range(50)),
        b'{"done":50}',
        b'{"end":{}}',
    ]

    class Request:
        @staticmethod
        async def stream() -> Any:
            text = b"\n".join(lines) + b"\n"
            yield text[:-200]
            yield text[-200:]

    async def read() -> list[dict[str, Any]]:
        return [message async for message in _server.lines(Request())]

    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(lambda: asyncio.run(read())).result()
    assert len(told) <= 5
    assert told[0] == {"start": {}}
    assert told[-3:] == [{"workers": b'{"workers":[49]}'}, {"done": 50}, {"end": {}}]


def test_a_page_is_told_so_much_a_second() -> None:
    """However many runs move, and however fast."""
    _server = pytest.importorskip("tercio.dashboard._server")
    for length in (10, 30_000, 1_000_000):
        assert length / _server.pause_after(length) <= _server.MOST_A_SECOND
        assert _server.pause_after(length) >= _server.PAUSE


def test_points_and_pages_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of a run are as many points as minutes; a page that doesn't read holds names alone."""
    clock = [0.0]
    monkeypatch.setattr(_runs.time, "monotonic", lambda: clock[0])
    runs = _runs.Runs()

    async def watch() -> None:
        page = _runs.Page(runs)
        runs.pages.add(page)
        run = runs.begin({"total": None})
        for done in range(20_000):
            clock[0] += 0.5
            runs.take(run, {"done": done})
        assert len(run.fields["points"]) <= _runs.MOST_POINTS + 1
        assert run.fields["points"][0] == [0, 0]
        news = await page.news()
        assert len(news["runs"]) == 1
        assert news["runs"][0]["done"] == 19_999
        assert news["runs"][0]["rate"] == 2

    watching(watch)


def test_the_end_makes_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ends a moment after a point was noted ends the stretch before it, at the speed of both."""
    clock = [0.0]
    monkeypatch.setattr(_runs.time, "monotonic", lambda: clock[0])
    run = _runs.Run(1, {"total": 300})
    for clock[0], message in ((0.5, {"done": 100}), (1.0, {"done": 200}), (1.004, {"done": 300, "end": {}})):
        run.take(message)
    assert run.fields["points"] == [[0, 0], [0.5, 100], [1.004, 300]]
    short = _runs.Run(1, {"total": 1})
    clock[0] += 0.001
    short.take({"done": 1, "end": {}})
    assert short.fields["points"] == [[0, 0], [0.001, 1]]


# ---- From Python and the shell ----------------------------------------------------------------------------------


@pytest.mark.contract("9 start")
def test_start_twice_and_addresses(port: int) -> None:
    """The second start answers as the first; nobody home is ConnectionRefusedError, no port OSError."""
    details = dashboard.start_dashboard()
    assert details == {"dashboard_port_nr": port, "manager_host": "localhost", "manager_port_nr": port}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            dashboard.connect_to_dashboard(number)
        taken.listen()
        with pytest.raises(OSError, match="no free port"):
            _command.listen("127.0.0.1", [number])
    before = _address.address()
    dashboard.connect_to_dashboard(port, "localhost")
    assert _address.parse(_address.address()) == ("localhost", port)
    os.environ[_address.VARIABLE] = before


@pytest.mark.contract("9 stacklevel")
def test_stacklevel(port: int) -> None:
    """The place shown is the caller's, or its caller's."""

    def called_from() -> str:
        with WorkerPool(1, start_method="threading") as pool:
            pool.map(abs, [1], progress_bar=True, progress_bar_style="dashboard")
        runs = json.loads(ask(port, "GET", "/api/state")[1])["runs"]
        return str(runs[-1]["caller"]["function"])

    assert dashboard.get_stacklevel() == 1
    assert called_from() == "called_from"
    dashboard.set_stacklevel(2)
    try:
        assert called_from() == "test_stacklevel"
    finally:
        dashboard.set_stacklevel(1)
    for bad, error in ((0, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error):
            dashboard.set_stacklevel(bad)  # type: ignore[arg-type]


@pytest.mark.contract("6 styles")
def test_style_dashboard_prints_nothing(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """And any other style reports as well; a lazy map that is dropped says that it was closed."""
    with WorkerPool(2, start_method="threading") as pool:
        pool.map(abs, range(10), progress_bar=True, progress_bar_style="dashboard")
        assert capfd.readouterr() == ("", "")
        pool.map(abs, range(10), progress_bar=True)
        assert "10/10" in capfd.readouterr().err
        lazy = pool.imap(abs, range(10), progress_bar=True, progress_bar_style="dashboard")
        next(lazy)
        lazy.close()
    runs = json.loads(ask(port, "GET", "/api/state")[1])["runs"]
    assert [run["state"] for run in runs[-3:]] == ["done", "done", "closed"]


@pytest.mark.contract("9 gone")
def test_a_dashboard_that_is_gone_costs_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is done all the same."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv(_address.VARIABLE, f"127.0.0.1:{nobody.getsockname()[1]}")
        with WorkerPool(1, start_method="threading") as pool:
            with pytest.warns(RuntimeWarning, match="can't be reached"):
                assert pool.map(abs, [-1], progress_bar=True, progress_bar_style="dashboard") == [1]
            assert pool.map(abs, [-1], progress_bar=True, progress_bar_style="dashboard") == [1]


@pytest.mark.contract("9 gone")
def test_a_dashboard_that_hangs_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens and never reads: the map ends, and later ones don't wait again."""
    from tercio.dashboard import _report

    monkeypatch.setattr(_report, "PATIENCE", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv(_address.VARIABLE, f"127.0.0.1:{deaf.getsockname()[1]}")
        with WorkerPool(1, start_method="threading") as pool, pytest.warns(RuntimeWarning, match="can't be reached"):
            assert pool.map(abs, [-1], progress_bar=True, progress_bar_style="dashboard") == [1]


def reported(monkeypatch: pytest.MonkeyPatch, updates: list[int]) -> bytes:
    """What a dashboard reads of a call's report that reads nothing before all of it was said."""
    from tercio.dashboard import _report

    with _command.listen("127.0.0.1", [0]) as listener, WorkerPool(20, start_method="threading") as pool:
        monkeypatch.setenv(_address.VARIABLE, f"127.0.0.1:{listener.getsockname()[1]}")
        pool.map(abs, [1])
        report = _report.open_report(pool, abs, 10_000, "map")
        assert report is not None
        for done in updates:
            report.update(done)
        with listener.accept()[0] as late, ThreadPoolExecutor(1) as thread:
            ended = thread.submit(report.close, updates[-1], None)
            late.settimeout(BOUND)
            heard = b""
            while not heard.endswith(b"\r\n0\r\n\r\n"):
                heard += late.recv(1 << 20)
            late.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            ended.result()
    return heard


@pytest.mark.contract("9 gone")
def test_a_dashboard_that_falls_behind_is_told_what_is_so_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it to be read is little, however long it took: the rest was dropped where it came from."""
    from tercio.dashboard import _report

    monkeypatch.setattr(_report, "WORKERS_EVERY", 0)
    heard = reported(monkeypatch, list(range(10_000)))  # tens of megabytes
    assert len(heard) < 1 << 20
    assert b'"done":9999' in heard


def test_a_report_says_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor more often than a page would hear of it; the end is said at once."""
    from tercio.dashboard import _report

    monkeypatch.setattr(_report, "WORKERS_EVERY", 1e9)
    monkeypatch.setattr(_report, "DONE_EVERY", 0)
    assert re.findall(rb'"done":(\d+)', reported(monkeypatch, [1] * 100 + [2] * 100)) == [b"1", b"2", b"2"]
    monkeypatch.setattr(_report, "DONE_EVERY", 1e9)
    assert re.findall(rb'"done":(\d+)', reported(monkeypatch, list(range(100)))) == [b"99"]


@pytest.mark.contract("9 start")
def test_the_servers_process_ends_with_its_owner(tmp_path: Path) -> None:
    """Also when that is killed; its token goes with it."""
    code = (
        "from tercio.dashboard import start_dashboard as s; print(s([0])['dashboard_port_nr'], flush=True); "
        "import signal; signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        number = int(owner.stdout.readline())
        (server,) = descendants(owner.pid)
        handle = os.pidfd_open(server)
        try:
            assert _address.token_file(number).exists()
            owner.kill()
            assert select.select([handle], [], [], BOUND)[0]
        finally:
            os.close(handle)
    assert not _address.token_file(number).exists()


@pytest.mark.contract("9 shell")
def test_the_shell_command(tmp_path: Path) -> None:
    """Tells where it is and how to connect; outlives programs; Ctrl-C ends it cleanly, whatever is under way."""
    command = [sys.executable, "-m", "tercio._cli", "dashboard", "--port-range", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "http://127.0.0.1:" in server.stdout.readline()
        variable, address = server.stdout.readline().split()[1].split("=")
        number = int(address.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=BOUND)
        connection.request("GET", "/api/events")
        stream = connection.getresponse()
        assert stream.readline().startswith(b"data: ")
        with Program(tmp_path, "fail") as unconnected:
            unconnected.wait()
        code = "from tercio import WorkerPool\nwith WorkerPool(1) as p: p.map(abs, [1], progress_bar=True)"
        env = {**os.environ, variable: address}
        subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, timeout=BOUND)
        while not (line := stream.readline()).startswith(b"data: "):
            assert line == b"\n"
        assert [run["name"] for run in json.loads(line[6:])["runs"]] == ["abs"]
        with Live(number, "live"):
            while b'"live"' not in (line := stream.readline()):
                assert line == b"\n" or line.startswith(b"data: ")
            server.send_signal(signal.SIGINT)
            assert server.wait(BOUND) == 0
        assert server.stderr is not None and server.stderr.read() == ""
        connection.close()
    assert not _address.token_file(number).exists()
