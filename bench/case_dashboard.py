"""Case 16: what a dashboard costs the pool that reports to it."""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

import tasks
from harness import Case, Measured, in_turn, ratio, timed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Reads what a pool sends and answers at its end, as the dashboard does. The page and the server's own work are no
# part of the pool's cost, and the server's packages need not be here.
SINK = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        reporter, _ = listener.accept()
        with reporter:
            end = b""
            while not end.endswith(b"0\\r\\n\\r\\n"):
                data = reporter.recv(1 << 16)
                if not data:
                    break
                end = (end + data)[-5:]
            reporter.sendall(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
"""


@contextmanager
def _sink() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@contextmanager
def _reporting() -> Iterator[list[float]]:
    """Count the CPU seconds that this process spends on telling a dashboard."""
    from tercio.dashboard import _report

    spent = [0.0]
    steps = {name: getattr(_report.Report, name) for name in ("__init__", "begin", "update", "close")}

    def counted(step: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(step)
        def run(*args: object) -> None:
            begun = time.thread_time()
            try:
                step(*args)
            finally:
                spent[0] += time.thread_time() - begun

        return run

    try:
        for name, step in steps.items():
            setattr(_report.Report, name, counted(step))
        yield spent
    finally:
        for name, step in steps.items():
            setattr(_report.Report, name, step)


def dashboard(case: Case) -> None:
    """The same map with a bar that draws nothing, connected and not.

    Two runs of the same differ by more than what a report costs, so that is also counted where it is spent.
    """
    from tercio import WorkerPool

    turns = round(100e-6 * tasks.calibrate())
    n = 4_000 if case.quick else 20_000
    items = [turns] * n

    def mapped(address: str) -> Callable[[], Measured]:
        def run() -> Measured:
            with WorkerPool(2, keep_alive=True) as pool:
                pool.map(tasks.spin, items[:100])
                os.environ["TERCIO_DASHBOARD"] = address
                try:
                    return timed(
                        lambda: pool.map(tasks.spin, items, progress_bar=True, progress_bar_style="dashboard"),
                        lambda result: result == items,
                        n,
                    )
                finally:
                    del os.environ["TERCIO_DASHBOARD"]

        return run

    shares: list[float] = []

    def counted(address: str) -> Callable[[], Measured]:
        def run() -> Measured:
            with _reporting() as spent:
                measured = mapped(address)()
            assert measured.cpu is not None
            shares.append(spent[0] / (measured.cpu * n))
            return measured

        return run

    with _sink() as address:
        samples = in_turn({"tercio": mapped(""), "tercio, connected": counted(address)}, case.rounds)
    case.table(f"{n:,} tasks of 100 µs, two workers", samples, "µs")
    case.at_most("CPU spent on reports / CPU of the call", statistics.median(shares), 0.01)
    case.at_most("connected / not: time", ratio(samples, "tercio, connected", "tercio"), 1.01)
    case.at_most("connected / not: CPU", ratio(samples, "tercio, connected", "tercio", "cpu"), 1.01)
