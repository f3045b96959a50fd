"""Case 9: a new worker for each task."""

from __future__ import annotations

from harness import Case, Measured, alone, in_turn, ratio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _replacing(who: str, method: str, n: int, busy: str) -> Callable[[], Measured]:
    return lambda: alone("replacement", who, method, n, busy)


def replacement(case: Case) -> None:
    """Lifespan 1, chunk 1, each contender in a small program; time for one task is a worker's life and death."""
    for method, n in (("fork", 60 if case.quick else 200), ("spawn", 8 if case.quick else 30)):
        for name, busy in (("", "no"), (", main thread busy in Python", "python"), (", busy in C", "c")):
            if busy != "no" and (method == "spawn" or case.quick):
                n = min(n, 20 if method == "fork" else 6)
            contenders = {"tercio": _replacing("tercio", method, n, busy), "Pool": _replacing("pool", method, n, busy)}
            if method == "fork" and busy == "no":
                contenders["mpire"] = _replacing("mpire", method, n, busy)
            samples = in_turn(contenders, 5)
            title = f"lifespan 1, {method}{name}"
            case.table(title, samples, "ms")
            case.at_least(f"{title}: × Pool", ratio(samples, "Pool", "tercio"), 8 if method == "fork" else 5)
