"""Cases 7, 8 and 13: large payloads, shared objects, streams."""

from __future__ import annotations

import functools
import os
import time

import peers
import tasks
from harness import Case, Measured, alone, descendants, in_turn, private, pss, ratio, timed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _arrays(open_it: Any, arrays: list[Any]) -> Callable[[], Measured]:
    def right(result: Any) -> bool:
        return len(result) == len(arrays) and all(
            back[0] == sent[0] + 1 and back[-1] == sent[-1] for back, sent in zip(result, arrays)
        )

    def run() -> Measured:
        with open_it() as call:
            call(tasks.array_back, arrays[:2], 1)
            call(tasks.array_back, arrays, 1)  # shared memory is warm, as in a program's second map
            return timed(lambda: call(tasks.array_back, arrays, 1), right, len(arrays))

    return run


def _arrays_let_go(arrays: list[Any]) -> Callable[[], Measured]:
    """Each result is used and let go before the next, as a program does that has no room for all of them."""
    from tercio import WorkerPool

    def run() -> Measured:
        with WorkerPool(2, keep_alive=True) as pool:

            def go() -> int:
                good = 0
                for back, sent in zip(pool.imap(tasks.array_back, arrays, chunk_size=1), arrays):
                    good += back[0] == sent[0] + 1 and back[-1] == sent[-1]
                return good

            go()
            return timed(go, lambda good: good == len(arrays), len(arrays))

    return run


def arrays(case: Case) -> None:
    """An array in, another out, chunk 1, from 1 KB to 256 MB; pools are warm.

    Where all results are kept, they need fresh memory, whatever was warm; so the comparison with copies between warm
    memory is made where they are let go.
    """
    import numpy as np

    sizes = [1 << 10, 32 << 10, 1 << 20, 8 << 20] + ([] if case.quick else [64 << 20, 256 << 20])
    curve: dict[str, list[tuple[float, float]]] = {}
    if case.quick:
        case.notes.append("The quick form ends at 8 MB.")
    for size in sizes:
        n = max(4, min(500, ((64 << 20) if case.quick else (400 << 20)) // size))
        items = [np.full(size // 8, float(i)) for i in range(n)]
        target = np.zeros_like(items[0])

        def two_copies(items: Any = items, target: Any = target, n: int = n) -> Measured:
            def copy() -> None:
                for item in items:
                    np.copyto(target, item)
                    np.copyto(target, item)

            copy()
            return timed(copy, None, n)

        contenders = {
            "tercio": _arrays(peers.tercio, items),
            "tercio imap, results let go": _arrays_let_go(items),
            "Pool": _arrays(peers.pool, items),
            "ProcessPoolExecutor": _arrays(functools.partial(peers.executor), items),
            "loky": _arrays(peers.loky, items),
            "mpire": _arrays(peers.mpire, items),
            "two memcpys": two_copies,
        }
        samples = in_turn(contenders, case.rounds if size < 64 << 20 else 5)
        name = f"{size >> 10} KB" if size < 1 << 20 else f"{size >> 20} MB"
        case.table(f"arrays of {name}, in and out", samples, "µs" if size < 1 << 20 else "ms")
        for who, sample in samples.items():
            curve.setdefault(who, []).append((size, sample.median()))
        if size >= 1 << 20:
            for who in ("Pool", "ProcessPoolExecutor"):
                case.at_least(f"{name}: × {who}", ratio(samples, who, "tercio"), 7)
            case.at_least(f"{name}: × joblib's loky", ratio(samples, "loky", "tercio"), 4)
            let_go = ratio(samples, "tercio imap, results let go", "two memcpys")
            case.at_most(f"{name}: results let go / two memcpys", let_go, 1.5)
        del items, target, contenders
    case.plots["arrays"] = curve


# ---- Shared objects ---------------------------------------------------------------------------------------------


def _shared(who: str, method: str, megabytes: int) -> Callable[[], Measured]:
    return lambda: alone("shared", who, method, megabytes)


def shared_objects(case: Case) -> None:
    """One array for all: 512 MB, touched in the parent before."""
    import numpy as np

    size = (64 if case.quick else 512) << 20
    for method in ("fork", "forkserver", "spawn"):
        contenders = {
            "tercio": _shared("tercio", method, size >> 20),
            "tercio, 100 numbers": _shared("tercio", method, 0),
            "Pool with initargs": _shared("pool", method, size >> 20),
            "mpire": _shared("mpire", method, size >> 20),
        }
        samples = in_turn(contenders, 5)
        name = f"{size >> 20} MB shared, {method}"
        case.table(name, samples, "ms", memory="private")
        if method == "spawn":
            case.at_least(f"{name}: × Pool with initargs", ratio(samples, "Pool with initargs", "tercio"), 12)
            case.at_least(f"{name}: × mpire", ratio(samples, "mpire", "tercio"), 20)
        case.at_most(f"{name}: private MB a worker", samples["tercio"].median("private") / 2**20, 20)
        more = samples["tercio"].median("private") - samples["tercio, 100 numbers"].median("private")
        case.notes.append(f"{name}: {more / 2**20:.1f} MB private more than with 100 numbers shared.")
        if method != "forkserver":
            shared = np.arange(1, size // 8 + 1, dtype=np.float64)
            case.at_most(f"{name}: KB for each page written", _written(method, shared), 4.6)
            del shared


def _written(method: str, shared: Any) -> float:
    pages = 1000
    before = descendants(os.getpid())
    with peers.tercio(method, n=1, shared_objects=shared) as call:
        call(tasks.first_of, [0], 1)
        (worker,) = descendants(os.getpid()) - before
        call(_write_pages, [1], 1)
        clean = private(worker)
        call(_write_pages, [pages], 1)
        return (private(worker) - clean) / (pages - 1) / 1024


def _write_pages(shared: Any, pages: int) -> None:
    shared[: pages * 512 : 512] += 0.0


# ---- Streams ----------------------------------------------------------------------------------------------------


def _stream(open_it: Callable[[Any, int], Any], n: int) -> Callable[[], Measured]:
    def run() -> Measured:
        seen, lowest, highest = 0, 0, 0
        start = time.perf_counter()
        for value in open_it((i for i in range(n)), n):
            if value != seen:
                raise ValueError(f"{value} in place of {seen}")
            seen += 1
            if seen % 1000 == 0:
                end = time.perf_counter() + 100e-6  # the consumer works too
                while time.perf_counter() < end:
                    pass
            if seen % (n // 20) == 0:
                memory = pss(os.getpid(), *descendants(os.getpid()))
                lowest = lowest or memory
                highest = max(highest, memory)
        if seen != n:
            raise ValueError(f"{seen} of {n} results")
        return Measured(time.perf_counter() - start, None, n, growth=highest - lowest, peak=highest)

    return run


def streams(case: Case) -> None:
    """imap over a generator of many items; the consumer is busy for 0.1 µs an item. Memory from 5 % on."""
    import multiprocessing

    from mpire import WorkerPool as Mpire
    from tercio import WorkerPool

    n = 500_000 if case.quick else 10_000_000
    case.rounds = 5 if case.quick else 3

    def ours(items: Any, n: int) -> Any:
        with WorkerPool(2) as pool:
            yield from pool.imap(tasks.identity, items, iterable_len=n)

    def theirs(items: Any, n: int) -> Any:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            yield from pool.imap(tasks.identity, items, chunksize=n // 128)

    def mpires(items: Any, n: int) -> Any:
        with Mpire(2, start_method="fork") as pool:
            yield from pool.imap(tasks.identity, items, iterable_len=n)

    few = n // 10
    contenders = {"tercio": _stream(ours, n), "Pool": _stream(theirs, n), "mpire": _stream(mpires, few)}
    samples = in_turn(contenders, case.rounds)
    case.table(f"imap over {n:,} items", samples, "1/s", memory="growth")
    case.notes.append("mpire ran a tenth of the items.")
    case.at_most("MB that memory grows by", samples["tercio"].median("growth") / 2**20, 16)
    case.at_most("µs an item", samples["tercio"].median() * 1e6, 2)
