"""Case 16: what a dashboard costs the pool that reports to it."""

from __future__ import annotations

import os
import subprocess
import sys
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


def dashboard(case: Case) -> None:
    """The same map with a bar that draws nothing, connected and not."""
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

    with _sink() as address:
        samples = in_turn({"tercio": mapped(""), "tercio, connected": mapped(address)}, case.rounds)
    case.table(f"{n:,} tasks of 100 µs, two workers", samples, "µs")
    case.at_most("connected / not: time", ratio(samples, "tercio, connected", "tercio"), 1.01)
    case.at_most("connected / not: CPU", ratio(samples, "tercio, connected", "tercio", "cpu"), 1.01)
