"""Case 17: cost grows as work grows: with the number of tasks, and with that of workers."""

from __future__ import annotations

import peers
import tasks
from harness import Case, Measured, in_turn, ratio, timed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def _calls(n: int) -> Callable[[], Measured]:
    """Maps over n items, as many as it takes to have something to measure."""
    times = max(1, 100_000 // n)

    def run() -> Measured:
        items = range(n)
        with peers.tercio() as call:
            call(tasks.identity, range(1000))

            def calls() -> Any:
                result = None
                for _ in range(times):
                    result = call(tasks.identity, items)
                return result

            return timed(calls, lambda result: result == list(items), n * times)

    return run


def _workers(n: int, func: Any, items: Sequence[Any], chunk: int | None) -> Callable[[], Measured]:
    """A pool of n workers that has done such a map before, as first work costs more; then one map."""

    def run() -> Measured:
        with peers.tercio(n=n) as call:
            call(func, items, chunk)
            return timed(lambda: call(func, items, chunk), lambda result: len(result) == len(items), len(items))

    return run


def scale(case: Case) -> None:
    """How much a task costs as there are more of them, and more workers than CPUs."""
    lengths = [10**power for power in range(3, 7 if case.quick else 8)]
    samples = in_turn({f"{n:,} tasks": _calls(n) for n in lengths}, case.rounds)
    case.table("identities, default chunks", samples, "µs")
    most, least = f"{lengths[-1]:,} tasks", f"{lengths[0]:,} tasks"
    case.at_most(f"{most} / {least}: time a task", ratio(samples, most, least), 1.2)

    numbers = (2, 128) if case.quick else (1, 2, 8, 32, 128)
    n = 50_000 if case.quick else 300_000
    turns = max(1, round(20e-6 * tasks.calibrate()))
    kinds = {
        "identities, default chunks": (tasks.identity, range(n), None),
        "tasks of 20 µs, chunk_size=1": (tasks.spin, [turns] * (n // 10), 1),
        "identities, chunk_size=1": (tasks.identity, range(n), 1),
    }
    for kind, (func, items, chunk) in kinds.items():
        contenders = {f"{w} workers" if w > 1 else "1 worker": _workers(w, func, list(items), chunk) for w in numbers}
        samples = in_turn(contenders, case.rounds)
        case.table(f"workers on two CPUs: {kind}", samples, "µs")
        case.at_most(f"{kind}: 128 workers / 2: CPU a task", ratio(samples, "128 workers", "2 workers", "cpu"), 1.5)
