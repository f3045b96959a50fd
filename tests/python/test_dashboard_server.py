"""What the dashboard's server takes in, from whom, and what it tells pages."""

from __future__ import annotations

import asyncio
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dashboards
import pytest
from dashboards import BOUND, ask, report, watching
from tercio.dashboard import _address, _runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.timeout(180)
nothing_left_behind, port = dashboards.nothing_left_behind, dashboards.port


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
