"""Cases 10 to 12: mpire's published workloads, made honest (random data; the same for all)."""

from __future__ import annotations

import collections
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import peers
import tasks
from harness import Case, Measured, in_turn, ratio, timed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What forked workers inherit, for those who have no shared objects; the same objects go to the others as such.
inherited: Any = None


def _whole(run: Callable[[], Any], check: Callable[[Any], bool] | None = None) -> Callable[[], Measured]:
    """With the pool's life."""
    return lambda: timed(run, check)


def _goals(case: Case, samples: Any, least: float) -> None:
    case.at_least("efficiency (two bare processes / tercio)", ratio(samples, "two bare processes", "tercio"), least)
    if "serial" in samples:
        two = ratio(samples, "serial", "tercio")
        case.notes.append(
            f"serial / 2 / tercio: {(two or 0) / 2:.3f}; the row above leaves out what two CPUs cost each other."
        )
    for who in samples:
        if who not in ("serial", "two bare processes", "tercio"):
            case.at_least(f"× {who}", ratio(samples, who, "tercio"), 1)


# ---- 10: convolution --------------------------------------------------------------------------------------------


def convolve(image: Any, kernel: Any) -> Any:
    height, width = image.shape[0] - 3, image.shape[1] - 3
    out = kernel[0, 0] * image[:height, :width]
    for y in range(4):
        for x in range(4):
            if y or x:
                out += kernel[y, x] * image[y : y + height, x : x + width]
    return out[::5, ::5].copy()


def convolve_inherited(kernel: Any) -> Any:
    return convolve(inherited, kernel)


def numerical(case: Case) -> None:
    """20 filters over one shared image, in order."""
    import numpy as np
    from mpire import WorkerPool as Mpire
    from tercio import WorkerPool

    global inherited
    generator = np.random.default_rng(0)
    side = 1000 if case.quick else 3000
    inherited = image = generator.random((side, side))
    kernels = [generator.random((4, 4)) for _ in range(20)]
    wanted = [convolve(image, kernel) for kernel in kernels]

    def right(result: Any) -> bool:
        return len(result) == 20 and all(np.array_equal(a, b) for a, b in zip(result, wanted))

    def with_pool(made: Any) -> Any:
        with made as pool:
            # Whole kernels as arguments, and no joining of results, for everybody.
            return pool.map(convolve, kernels, chunk_size=1, concatenate_numpy_output=False)

    def plain_pool() -> Any:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(convolve_inherited, kernels, chunksize=1)

    def executor() -> Any:
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            return list(pool.map(convolve_inherited, kernels))

    def bare() -> None:
        with peers.bare_forks() as call:
            call(convolve_inherited, kernels)

    contenders = {
        "serial": _whole(lambda: [convolve(image, kernel) for kernel in kernels], right),
        "two bare processes": _whole(bare),
        "tercio": _whole(lambda: with_pool(WorkerPool(2, shared_objects=image)), right),
        "mpire": _whole(lambda: with_pool(Mpire(2, shared_objects=image, start_method="fork")), right),
        "Pool": _whole(plain_pool, right),
        "ProcessPoolExecutor": _whole(executor, right),
    }
    samples = in_turn(contenders, case.rounds)
    case.table(f"20 filters over an image of {side} × {side}, pool's life included", samples, "ms")
    _goals(case, samples, 0.97)


# ---- 11: state --------------------------------------------------------------------------------------------------


def count_into(counts: Any, document: list[str]) -> None:
    for word in document:
        for end in range(1, len(word) + 1):
            prefix = word[:end]
            counts[prefix] = counts.get(prefix, 0) + 1


def stateful_task(state: dict[str, Any], i: int) -> None:
    count_into(state.setdefault("counts", {}), inherited[i])


def stateful_exit(state: dict[str, Any]) -> dict[str, int]:
    return often(state.get("counts", {}))


def often(counts: dict[str, int]) -> dict[str, int]:
    return {prefix: n for prefix, n in counts.items() if n > 3}


def counted(i: int) -> dict[str, int]:
    """The idiom of those without exit functions: each task's own counts go home."""
    counts: dict[str, int] = {}
    count_into(counts, inherited[i])
    return counts


def stateful(case: Case) -> None:
    """Counts of all prefixes, kept by the workers, united at the end."""
    import random

    from mpire import WorkerPool as Mpire
    from tercio import WorkerPool

    global inherited
    chance = random.Random(0)
    words = 150 if case.quick else 1000

    def word() -> str:
        return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=20))

    inherited = [[word() for _ in range(words * (1 + 2 * (i % 2)))] for i in range(80)]
    everything: dict[str, int] = {}
    for document in inherited:
        count_into(everything, document)
    letters = {prefix: n for prefix, n in everything.items() if len(prefix) == 1}

    def right(result: dict[str, int]) -> bool:
        # Which rare prefixes a worker saw more than three times depends on who got which document; letters don't.
        return {prefix: n for prefix, n in result.items() if len(prefix) == 1} == letters

    def with_pool(made: Any) -> dict[str, int]:
        total: collections.Counter[str] = collections.Counter()
        with made as pool:
            pool.map(stateful_task, range(80), chunk_size=1, worker_exit=stateful_exit)
            pool.stop_and_join()
            for counts in pool.get_exit_results():
                total.update(counts)
        return dict(total)

    def plain_pool() -> dict[str, int]:
        total: collections.Counter[str] = collections.Counter()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for counts in pool.imap_unordered(counted, range(80)):
                total.update(counts)
        return often(total)

    def alone() -> dict[str, int]:
        counts: dict[str, int] = {}
        for document in inherited:
            count_into(counts, document)
        return often(counts)

    def bare() -> None:
        with peers.bare_forks() as call:  # halves of equal length, one dict each
            pairs = [(i, i + 1) for i in range(0, 80, 2)]
            counts: dict[str, int] = {}
            call(lambda pair: [count_into(counts, inherited[i]) for i in pair], pairs)

    contenders = {
        "serial": _whole(alone, right),
        "two bare processes": _whole(bare),
        "tercio": _whole(lambda: with_pool(WorkerPool(2, use_worker_state=True)), right),
        "mpire": _whole(lambda: with_pool(Mpire(2, use_worker_state=True, start_method="fork")), right),
        "Pool (counts of each task)": _whole(plain_pool, right),
    }
    samples = in_turn(contenders, case.rounds)
    case.table(f"80 documents of {words} and {3 * words} words, pool's life included", samples, "ms")
    _goals(case, samples, 0.95)


# ---- 12: expensive initialisation -------------------------------------------------------------------------------

network: Any = None


def build(seed: int = 0) -> Any:
    """A network from a seed; the turns are for what reading a real one costs."""
    import numpy as np

    tasks.spin(build_turns)
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape, dtype=np.float32) for shape in ((784, 512), (512, 10))]


build_turns = 10_000_000


def predict(layers: Any, i: int) -> Any:
    import numpy as np

    hidden = np.maximum(inherited @ layers[0], 0)
    return (hidden @ layers[1]).argmax(axis=1)[i::100]


def state_init(state: dict[str, Any]) -> None:
    state["network"] = build()


def state_predict(state: dict[str, Any], i: int) -> Any:
    return predict(state["network"], i)


def global_init() -> None:
    global network
    network = build()


def global_predict(i: int) -> Any:
    return predict(network, i)


def initialised(case: Case) -> None:
    """A network in each worker, built once; then map calls on kept workers."""
    import numpy as np
    from mpire import WorkerPool as Mpire
    from tercio import WorkerPool

    global inherited, build_turns
    build_turns = round(tasks.calibrate() * (0.1 if case.quick else 0.5))
    rows, maps = (1000, 5) if case.quick else (10_000, 20)
    case.rounds = 5
    inherited = np.random.default_rng(1).random((rows, 784), dtype=np.float32)
    wanted = [predict(build(), i) for i in range(10)]

    def right(results: Any) -> bool:
        return len(results) == maps and all(
            all(np.array_equal(a, b) for a, b in zip(result, wanted)) for result in results
        )

    def with_pool(made: Any) -> Any:
        with made as pool:
            return [
                pool.map(state_predict, range(10), chunk_size=1, worker_init=state_init, concatenate_numpy_output=False)
                for _ in range(maps)
            ]

    def plain_pool() -> Any:
        with multiprocessing.get_context("fork").Pool(2, initializer=global_init) as pool:
            return [pool.map(global_predict, range(10), chunksize=1) for _ in range(maps)]

    def executor() -> Any:
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), initializer=global_init) as pool:
            return [list(pool.map(global_predict, range(10))) for _ in range(maps)]

    def bare() -> None:
        def share(_: int) -> None:
            layers = build()
            for _ in range(maps):
                for i in range(5):
                    predict(layers, i)

        with peers.bare_forks() as call:
            call(share, [0, 1])

    contenders = {
        "two bare processes": _whole(bare),
        "tercio": _whole(lambda: with_pool(WorkerPool(2, use_worker_state=True, keep_alive=True)), right),
        "mpire": _whole(
            lambda: with_pool(Mpire(2, use_worker_state=True, keep_alive=True, start_method="fork")), right
        ),
        "Pool": _whole(plain_pool, right),
        "ProcessPoolExecutor": _whole(executor, right),
    }
    samples = in_turn(contenders, case.rounds)
    case.table(f"{maps} maps of 10 predictions of {rows} × 784, pool's life included", samples, "ms")
    case.notes.append("BLAS is kept to one thread in every process: two workers have two CPUs.")
    _goals(case, samples, 0.95)


assert os.environ.get("OPENBLAS_NUM_THREADS") == "1", "run.py sets it before numpy is imported"
