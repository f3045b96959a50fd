"""Case 9: a new worker for each task."""

from __future__ import annotations

import multiprocessing
import threading

import tasks
from harness import Case, Measured, in_turn, ratio, timed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _ours(method: str, n: int) -> Any:
    from tercio import WorkerPool

    with WorkerPool(2, start_method=method) as pool:
        return pool.map(tasks.identity, range(n), chunk_size=1, worker_lifespan=1)


def _pool(method: str, n: int) -> Any:
    with multiprocessing.get_context(method).Pool(2, maxtasksperchild=1) as pool:
        return pool.map(tasks.identity, range(n), chunksize=1)


def _mpire(method: str, n: int) -> Any:
    from mpire import WorkerPool

    with WorkerPool(2, start_method=method) as pool:
        return pool.map(tasks.identity, range(n), chunk_size=1, worker_lifespan=1)


def _busy_in_python() -> None:
    tasks.spin(1000)


def _busy_in_c() -> None:
    sum(range(2_000_000))  # some 20 ms without a chance for another thread


def _beside(busy: Callable[[], None] | None, work: Callable[[], Any], n: int) -> Callable[[], Measured]:
    """The pool in a thread of its own while the main thread is busy."""

    def together() -> Any:
        assert busy is not None
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(work()))
        thread.start()
        while thread.is_alive():
            busy()
        thread.join()
        return found[0]

    return lambda: timed(work if busy is None else together, lambda result: list(result) == list(range(n)), n)


def replacement(case: Case) -> None:
    """Lifespan 1, chunk 1; time for one task is a worker's life and death."""
    import warnings

    warnings.simplefilter("ignore")  # both sides fork beside threads here; that is the point
    for method, n in (("fork", 60 if case.quick else 200), ("spawn", 8 if case.quick else 30)):
        for name, busy in (("", None), (", main thread busy in Python", _busy_in_python), (", busy in C", _busy_in_c)):
            if busy is not None and (method == "spawn" or case.quick):
                n = min(n, 20 if method == "fork" else 6)
            contenders = {
                "tercio": _beside(busy, lambda: _ours(method, n), n),  # noqa: B023 - called in this turn
                "Pool": _beside(busy, lambda: _pool(method, n), n),  # noqa: B023
            }
            if method == "fork" and busy is None:
                contenders["mpire"] = _beside(busy, lambda: _mpire(method, n), n)  # noqa: B023
            samples = in_turn(contenders, 5)
            title = f"lifespan 1, {method}{name}"
            case.table(title, samples, "ms")
            case.at_least(f"{title}: × Pool", ratio(samples, "Pool", "tercio"), 8 if method == "fork" else 5)
