"""Cases 5, 6 and 14: one task's way, a pool's life, and a pool that has nothing to do."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import peers
import tasks
from harness import Case, Cpu, Measured, alone, descendants, in_turn, ratio, with_p99

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _quantile(values: list[float], q: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def _calls(open_it: Any, n: int, idle: float) -> Callable[[], Measured]:
    def run() -> Measured:
        with open_it() as apply:
            for _ in range(50):
                apply()
            took = []
            cpu = Cpu()
            for _ in range(n):
                if idle:
                    time.sleep(idle)
                start = time.perf_counter()
                apply()
                took.append(time.perf_counter() - start)
            return Measured(_quantile(took, 0.5), cpu.since() / n, p99=_quantile(took, 0.99))

    return run


class _Apply:
    """Pools whose `with` gives a call that applies one task and waits."""

    def __init__(self, made: Any, apply: Callable[[Any], Callable[[], Any]]) -> None:
        self.made, self.apply = made, apply

    def __call__(self) -> _Apply:
        return self

    def __enter__(self) -> Callable[[], Any]:
        self.pool = self.made()
        return self.apply(self.pool.__enter__())

    def __exit__(self, *raised: Any) -> None:
        self.pool.__exit__(*raised)


def apply_and_wait(case: Case) -> None:
    """p50 in the tables' figures, p99 beside it; CPU of both sides for a call."""
    from mpire import WorkerPool as Mpire
    from tercio import WorkerPool

    def executor_call(made: Any) -> Callable[[], Any]:
        return lambda: made.submit(tasks.identity, 1).result()

    def pool_call(made: Any) -> Callable[[], Any]:
        return lambda: made.apply(tasks.identity, (1,))

    for idle, n in ((0.0, 2000), (1e-3, 400), (10e-3, 100)):
        n = n // 2 if case.quick else n
        contenders = {
            "tercio": _calls(_Apply(lambda: WorkerPool(2), pool_call), n, idle),
            "tercio threading": _calls(_Apply(lambda: WorkerPool(2, start_method="threading"), pool_call), n, idle),
            "Pool": _calls(_Apply(lambda: multiprocessing.get_context("fork").Pool(2), pool_call), n, idle),
            "ProcessPoolExecutor": _calls(
                _Apply(lambda: ProcessPoolExecutor(2, multiprocessing.get_context("fork")), executor_call), n, idle
            ),
            "ThreadPoolExecutor": _calls(_Apply(lambda: ThreadPoolExecutor(2), executor_call), n, idle),
            "mpire": _calls(_Apply(lambda: Mpire(2, start_method="fork"), pool_call), n, idle),
            "bare futex round trip": lambda: _bare_futex(idle, n),  # noqa: B023 - called in this turn
        }
        samples = in_turn(contenders, case.rounds)
        when = "back to back" if not idle else f"after {idle * 1e3:g} ms idle"
        case.table(f"apply and wait, {when}: p50", samples, "µs")
        if not idle:
            case.at_least(f"{when}: × Pool at p50", ratio(samples, "Pool", "tercio"), 30)
        else:
            case.at_least(f"{when}: × Pool at p50", ratio(samples, "Pool", "tercio"), 8)
            case.at_most(
                f"{when}: p99 / a bare futex round trip's",
                ratio(samples, "tercio", "bare futex round trip", "p99"),
                1.5,
            )
        case.at_most(f"{when}: CPU a call / Pool's", ratio(samples, "tercio", "Pool", "cpu"), 0.2)


def _bare_futex(idle: float, n: int) -> Measured:
    answer = subprocess.run(
        [floors_program(), "futex", str(round(idle * 1e6)), str(n)], capture_output=True, check=True
    )
    data = json.loads(answer.stdout)
    return Measured(data["p50"], data["cpu"], p99=data["p99"])


def floors_program() -> str:
    return os.environ["TERCIO_BENCH_BUILD"] + "/floors"


# ---- A pool's life ----------------------------------------------------------------------------------------------


def life(case: Case) -> None:
    """Start two workers, run two tasks, end; by a small and by a large program."""
    curve: dict[str, list[tuple[float, float]]] = {}
    who_is = {"tercio": "tercio", "pool": "Pool", "executor": "ProcessPoolExecutor", "mpire": "mpire"}
    for size in (50,) if case.quick else (50, 1000):
        for method in ("fork", "spawn", "forkserver", "threading"):
            small = size == 50
            if method == "threading":
                if not small:
                    continue
                contenders = {"tercio": "tercio", "threads": "ThreadPoolExecutor"}
            else:
                contenders = {who: name for who, name in who_is.items() if who != "mpire" or small or method == "fork"}
            if method == "spawn":
                contenders["bare"] = "a bare interpreter"
            samples = in_turn(
                {name: _life(who, method, size, case.quick) for who, name in contenders.items()}, case.rounds
            )
            with_p99(samples)
            name = f"{method}, parent of {size} MB"
            case.table(name, samples, "ms")
            for who, sample in samples.items():
                curve.setdefault(f"{who}, {method}", []).append((size, sample.median()))
            _life_goals(case, name, method, small, samples)
    case.plots["start"] = curve


def _life(who: str, method: str, size: int, quick: bool) -> Callable[[], Measured]:
    times = {"fork": 10, "threading": 50}.get(method, 5)
    if who == "mpire":
        times = 2
    return lambda: alone("life", who, method, times // 2 if quick else times, size)


def _life_goals(case: Case, name: str, method: str, small: bool, samples: Any) -> None:
    if method == "fork":
        case.at_least(f"{name}: × Pool", ratio(samples, "Pool", "tercio"), 4 if small else 1.2)
        case.at_least(f"{name}: × mpire", ratio(samples, "mpire", "tercio"), 50)
    elif method == "spawn":
        case.at_least(f"{name}: × Pool", ratio(samples, "Pool", "tercio"), 3.5)
        if small:
            case.at_least(f"{name}: × mpire", ratio(samples, "mpire", "tercio"), 25)
        case.at_most(f"{name}: / a bare interpreter", ratio(samples, "tercio", "a bare interpreter"), 1.6)
    elif method == "forkserver":
        case.at_least(f"{name}: × Pool", ratio(samples, "Pool", "tercio"), 5)
    else:
        case.at_most(f"{name}: ms", samples["tercio"].median() * 1e3, 0.3)


# ---- Nothing to do ----------------------------------------------------------------------------------------------


def _switches(pids: set[int]) -> int:
    """How often the kernel has put any thread of these on a CPU, but for the one that asks."""
    total = 0
    for pid in pids:
        for task in set(os.listdir(f"/proc/{pid}/task")) - {str(os.getpid())}:
            with open(f"/proc/{pid}/task/{task}/status") as file:
                total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return total


def _idle(open_it: Any, seconds: float) -> Callable[[], Measured]:
    def run() -> Measured:
        with open_it() as call:
            call(abs, list(range(-100, 0)), 1)
            time.sleep(0.2)
            pids = descendants(os.getpid()) | {os.getpid()}
            cpu, before = Cpu(), _switches(pids)
            time.sleep(seconds)
            return Measured(seconds, cpu.since(), wakes=(_switches(pids) - before) * 60 / seconds)

    return run


def idle(case: Case) -> None:
    """Nothing runs: wake-ups a minute of all threads of all processes, and CPU time."""
    seconds, others = (3, 3) if case.quick else (60, 10)
    case.rounds = 1
    import functools

    with_limits = functools.partial(_tercio_with_limits)
    contenders = {
        "tercio": _idle(peers.tercio, seconds),
        "tercio, after tasks with limits": _idle(with_limits, seconds),
        "tercio forkserver": _idle(functools.partial(peers.tercio, "forkserver"), seconds),
        "tercio threading": _idle(functools.partial(peers.tercio, "threading"), seconds),
        "Pool": _idle(peers.pool, others),
        "ProcessPoolExecutor": _idle(peers.executor, others),
        "mpire": _idle(peers.mpire, others),
    }
    samples = in_turn(contenders, 1)
    case.table("nothing to do for so long; wake-ups a minute", samples, "s")
    for who, sample in samples.items():
        if who.startswith("tercio"):
            case.at_most(f"{who}: wake-ups", sample.median("wakes"), 0)


def _tercio_with_limits() -> Any:
    from contextlib import contextmanager

    from tercio import WorkerPool

    @contextmanager
    def made() -> Any:
        with WorkerPool(2, keep_alive=True) as pool:
            yield lambda func, items, chunk: pool.map(
                func, items, chunk_size=chunk, task_timeout=30, worker_init_timeout=30
            )

    return made()
