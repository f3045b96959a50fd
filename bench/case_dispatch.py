"""Cases 1 to 4: handing out."""

from __future__ import annotations

import functools

import peers
import tasks
from harness import Case, Measured, in_turn, ratio, timed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def _map(
    open_it: Any, func: Any, items: Sequence[Any], chunk: int | None, wanted: Any = None
) -> Callable[[], Measured]:
    """A pool, warm; then one map over the items. Seconds are for one item."""

    def run() -> Measured:
        with open_it() as call:
            call(func, items[: max(4, len(items) // 50)], chunk)
            check = None if wanted is None else lambda result: list(result) == wanted
            return timed(lambda: call(func, items, chunk), check, len(items))

    return run


def tiny_tasks(case: Case) -> None:
    """Chunk 1, nothing to do: what handing out costs."""
    n = 20_000 if case.quick else 100_000
    kinds = {
        "ints": (tasks.identity, tasks.identity, list(range(n))),
        "strings": (tasks.identity, tasks.identity, [f"item {i}" for i in range(n)]),
        "small tuples": (tasks.identity_of_two, tasks.identity, [(i, "text") for i in range(n)]),
        "dicts": (tasks.identity_of_names, tasks.identity, [{"a": i, "b": "text"} for i in range(n)]),
    }
    for kind, (unpacking, plain, items) in kinds.items():
        few, some = items[: n // 10], items[: n // 4]
        contenders = {
            "tercio": _map(peers.tercio, unpacking, items, 1, items),
            "Pool": _map(peers.pool, plain, some, 1, some),
            "ProcessPoolExecutor": _map(peers.executor, plain, few, 1, few),
            "mpire": _map(peers.mpire, unpacking, few, 1, few),
        }
        if kind == "ints":
            on_threads = functools.partial(peers.tercio, "threading")
            contenders |= {
                "tercio threading": _map(on_threads, unpacking, items, 1, items),
                "ThreadPoolExecutor": _map(peers.threads, plain, some, 1, some),
                "loky": _map(peers.loky, plain, few[:1000], 1, few[:1000]),
                "faster-fifo (64 at a time)": _map(functools.partial(peers.faster_fifo, plain), plain, items, 1, items),
            }
        samples = in_turn(contenders, case.rounds)
        case.table(f"{kind}, chunk_size=1", samples, "1/s")
        if kind == "ints":
            case.at_least("ints: × Pool", ratio(samples, "Pool", "tercio"), 20)
            case.at_least("ints: × ProcessPoolExecutor", ratio(samples, "ProcessPoolExecutor", "tercio"), 100)
            case.at_least("ints: × mpire", ratio(samples, "mpire", "tercio"), 100)
            case.at_least(
                "threading: × ThreadPoolExecutor.map", ratio(samples, "ThreadPoolExecutor", "tercio threading"), 5
            )
        if kind == "dicts":
            case.at_least("dicts: × Pool", ratio(samples, "Pool", "tercio"), 10)


def million(case: Case) -> None:
    """Everybody's own chunks."""
    items = list(range(1_000_000))
    part = items[: 100_000 if case.quick else 1_000_000]
    contenders = {
        "tercio": _map(peers.tercio, tasks.identity, items, None, items),
        "Pool": _map(peers.pool, tasks.identity, items, None, items),
        "ProcessPoolExecutor (chunk 7813)": _map(peers.executor, tasks.identity, items, 7813, items),
        "mpire": _map(peers.mpire, tasks.identity, part, None, part),
        "list comprehension": _map(peers.serial, tasks.identity, items, None, items),
    }
    samples = in_turn(contenders, case.rounds)
    case.table("a million identities, default chunks", samples, "1/s")
    case.at_least("× Pool", ratio(samples, "Pool", "tercio"), 2)
    case.at_least("× ProcessPoolExecutor", ratio(samples, "ProcessPoolExecutor (chunk 7813)", "tercio"), 5)
    case.at_least("× mpire", ratio(samples, "mpire", "tercio"), 70)
    if case.quick:
        case.notes.append("mpire ran a tenth of the tasks.")


def lengths(case: Case) -> None:
    """Tasks of a given length; efficiency is two bare processes' time (fixed shares) over the contender's."""
    per_second = tasks.calibrate()
    total = 0.15 if case.quick else 0.4
    points = (1e-6, 10e-6, 50e-6, 200e-6, 1e-3, 10e-3) + (() if case.quick else (100e-3,))
    curve: dict[str, list[tuple[float, float]]] = {}
    for chunk in (1, None):
        for length in points:
            turns = max(1, round(length * per_second))
            n = max(8, min(int(total / length), 20_000 if chunk == 1 else 100_000))
            items, wanted = [turns] * n, [turns] * n
            few = items[: max(8, n // 4)] if length < 1e-4 else items
            contenders = {
                "serial": _map(peers.serial, tasks.spin, items, chunk, wanted),
                "two bare processes": _map(peers.bare_forks, tasks.spin, items, chunk),
                "tercio": _map(peers.tercio, tasks.spin, items, chunk, wanted),
                "Pool": _map(peers.pool, tasks.spin, items, chunk, wanted),
                "ProcessPoolExecutor": _map(peers.executor, tasks.spin, few, chunk, few),
                "mpire": _map(peers.mpire, tasks.spin, few, chunk, few),
            }
            samples = in_turn(contenders, case.rounds)
            name = f"{length * 1e6:g} µs tasks, {'chunk_size=1' if chunk else 'default chunks'}"
            case.table(name, samples, "µs")
            if chunk == 1:
                for who, sample in samples.items():
                    curve.setdefault(who, []).append((length, sample.median()))
            bare, ours = samples["two bare processes"].values(), samples["tercio"].values()
            over = sorted(b - a for a, b in zip(bare, ours))[len(ours) // 2]
            if chunk == 1 and 10e-6 <= length <= 200e-6:
                case.at_most(f"{name}: µs over two bare processes", over * 1e6, 2)
            if length >= 1e-4:
                case.at_least(f"{name}: efficiency", ratio(samples, "two bare processes", "tercio"), 0.97)
    case.plots["throughput"] = curve


def skewed(case: Case) -> None:
    """One long task among many, and tasks of growing and of falling length."""
    per_second = tasks.calibrate()
    unit = per_second * (0.4e-3 if case.quick else 1e-3)
    n = 200
    growing = [round(unit * (0.1 + 2 * i / n)) for i in range(n)]
    sets = {
        "one 100 times longer, last": [round(unit)] * (n - 1) + [round(unit * 100)],
        "one 100 times longer, first": [round(unit * 100)] + [round(unit)] * (n - 1),
        "sorted": growing,
        "reversed": growing[::-1],
    }
    for name, items in sets.items():
        for chunk in (1, None):
            contenders = {
                "serial": _map(peers.serial, tasks.spin, items, chunk, items),
                "two bare processes": _balanced(items),
                "tercio": _map(peers.tercio, tasks.spin, items, chunk, items),
                "Pool": _map(peers.pool, tasks.spin, items, chunk, items),
                "ProcessPoolExecutor": _map(peers.executor, tasks.spin, items, chunk, items),
                "mpire": _map(peers.mpire, tasks.spin, items, chunk, items),
            }
            samples = in_turn(contenders, case.rounds)
            title = f"{name}, {'chunk_size=1' if chunk else 'default chunks'}"
            case.table(title, samples, "µs")
            if "last" not in name:
                case.at_most(f"{title}: makespan / best", ratio(samples, "tercio", "two bare processes"), 1.05)
            else:
                best = 0.5 + 0.5 * max(items) / sum(items)  # taken in their order: it starts when half the rest is done
                serial = ratio(samples, "tercio", "serial")
                machine = ratio(samples, "two bare processes", "serial")
                worst = max(max(items) / sum(items), 0.5)
                value = None if serial is None or machine is None else serial / (best * machine / worst)
                case.at_most(f"{title}: makespan / best in that order", value, 1.05)


def _balanced(items: list[int]) -> Callable[[], Measured]:
    """Two bare processes with the best fixed shares: longest first, each to who has less."""
    shares: list[list[int]] = [[], []]
    for item in sorted(items, reverse=True):
        min(shares, key=sum).append(item)

    def run() -> Measured:
        with peers.bare_forks() as call:
            return timed(lambda: call(lambda share: [tasks.spin(item) for item in share], shares), None, len(items))

    return run
