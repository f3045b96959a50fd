"""How programs are connected to a dashboard, and what they tell it; the shell command."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import dashboards
import pytest
from dashboards import BOUND, Live, Program, ask
from support import descendants
from tercio import WorkerPool, dashboard
from tercio.dashboard import _address, _command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)
nothing_left_behind, port = dashboards.nothing_left_behind, dashboards.port


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

    monkeypatch.setattr(_report, "PATIENCE", BOUND)
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
