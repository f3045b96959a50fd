"""How a case measures: contenders in turn, time and CPU of this process and all that came from it, ratios by round."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

BOUND = 120  # seconds; a contender that takes longer hangs, and is out


class WrongResult(Exception):
    """A contender that is quick and wrong."""


def descendants(pid: int) -> set[int]:
    """Processes that come from this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def _cpu_of(pid: int) -> float:
    # The clock that clock_getcpuclockid(pid) names: nanoseconds, all threads.
    try:
        return time.clock_gettime(((~pid) << 3) | 2)
    except OSError:
        return 0.0


class Cpu:
    """CPU seconds of this process, of children that have ended, and of those that live."""

    def __init__(self) -> None:
        self.living = {pid: _cpu_of(pid) for pid in descendants(os.getpid())}
        self.ended = self._ended()
        self.own = time.process_time()

    @staticmethod
    def _ended() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def since(self) -> float:
        """CPU seconds since this object was made."""
        own = time.process_time() - self.own
        now = {pid: _cpu_of(pid) for pid in descendants(os.getpid())}
        living = sum(cpu - self.living.get(pid, 0.0) for pid, cpu in now.items())
        # What had been used before the start by those that ended meanwhile is in their total too.
        gone = sum(cpu for pid, cpu in self.living.items() if pid not in now)
        return own + living + max(self._ended() - self.ended - gone, 0.0)


def pss(*pids: int, key: str = "Pss:") -> int:
    """Proportional (or another kind of) memory of some processes together, bytes."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith(key))
    return total


def private(pid: int) -> int:
    """Bytes that this process alone has mapped."""
    return pss(pid, key="Private_")


class Measured:
    """One run of one contender; seconds and CPU are for one of `per`."""

    def __init__(
        self, seconds: float, cpu: float | None = None, per: float = 1, all: list[float] | None = None, **more: float
    ) -> None:
        self.seconds = seconds / per
        self.cpu = None if cpu is None else cpu / per
        self.all = all or [self.seconds]  # where it ran several times
        self.more = more


def timed(run: Callable[[], Any], check: Callable[[Any], bool] | None = None, per: float = 1) -> Measured:
    """Time a call, then look whether its result is right."""
    gc.collect()
    cpu = Cpu()
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    used = cpu.since()
    if check is not None and not check(result):
        raise WrongResult(repr(result)[:200])
    return Measured(seconds, used, per)


def alone(*arguments: object) -> Measured:
    """Run a contender in a small program of its own (see alone.py): the median of what it measured, and all of it."""
    command = [sys.executable, str(Path(__file__).with_name("alone.py")), *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, errors = child.communicate(timeout=BOUND)
    finally:
        try:  # peers leave processes behind
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
    if child.returncode != 0:
        raise RuntimeError(errors.strip().rpartition("\n")[2] or f"ended with {child.returncode}")
    found = json.loads(out)
    more = {"private": found["private"]} if "private" in found else {}
    return Measured(statistics.median(found["seconds"]), found["cpu"], all=found["seconds"], **more)


def with_p99(samples: dict[str, Samples]) -> None:
    """Note, of all single times that contenders measured, the one that a hundredth of them exceed."""
    for sample in samples.values():
        times = sorted(t for run in sample.runs for t in run.all)
        for run in sample.runs:
            run.more["p99"] = times[min(len(times) - 1, int(0.99 * len(times)))]


class Samples:
    """All runs of one contender."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs: list[Measured] = []
        self.failure: str | None = None

    def values(self, what: str = "seconds") -> list[float]:
        """All measured values of one kind."""
        if what in ("seconds", "cpu"):
            found = [getattr(run, what) for run in self.runs]
        else:
            found = [run.more.get(what) for run in self.runs]
        return [value for value in found if value is not None]

    def median(self, what: str = "seconds") -> float:
        """The middle value; not a number if there is none."""
        values = self.values(what)
        return statistics.median(values) if values else float("nan")

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        seconds = self.values()
        data: dict[str, Any] = {"who": self.name, "n": len(seconds)}
        if seconds:
            data |= {"median": self.median(), "low": min(seconds), "high": max(seconds)}
        for kind in ("cpu", *sorted({name for run in self.runs for name in run.more})):
            if self.values(kind):
                data[kind] = self.median(kind)
        if self.failure:
            data["failure"] = self.failure
        return data


@contextmanager
def bounded(seconds: int = BOUND) -> Iterator[None]:
    """An alarm against a contender that hangs."""

    def on_alarm(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_turn(contenders: dict[str, Callable[[], Measured]], rounds: int) -> dict[str, Samples]:
    """Run each contender once a round, so that what the machine does meanwhile meets them all.

    A contender that fails is reported, and is out. One of ours that fails ends the benchmark.
    """
    samples = {name: Samples(name) for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            sample = samples[name]
            if sample.failure is not None:
                continue
            try:
                with bounded():
                    sample.runs.append(run())
            except Exception as error:
                if name.startswith("tercio"):
                    raise
                sample.failure = f"{type(error).__name__}: {error}".splitlines()[0][:120]
                print(f"    {name}: {sample.failure}", file=sys.stderr, flush=True)
    return samples


def ratio(samples: dict[str, Samples], over: str, under: str, what: str = "seconds") -> float | None:
    """The median, over the rounds, of one contender's value divided by another's in the same round."""
    if over not in samples or under not in samples:
        return None
    pairs = list(zip(samples[over].values(what), samples[under].values(what)))
    if not pairs:
        return None
    return statistics.median(a / b for a, b in pairs if b)


class Case:
    """What a case found: tables of samples, and goals with what was reached."""

    def __init__(self, number: int, title: str, quick: bool) -> None:
        self.number, self.title, self.quick = number, title, quick
        self.rounds = 3 if quick else 7
        self.tables: list[dict[str, Any]] = []
        self.goals: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.plots: dict[str, Any] = {}

    def table(self, name: str, samples: dict[str, Samples], unit: str = "s", **more: Any) -> None:
        """Note a table; values are seconds, shown in `unit` (s, ms, µs, or 1/s)."""
        rows = [sample.plain() for sample in samples.values()]
        self.tables.append({"name": name, "unit": unit, "rows": rows, **more})
        print(f"  {name}", file=sys.stderr)
        for row in rows:
            if "median" in row:
                print(f"    {row['who']:<34} {show(row['median'], unit):>12}", file=sys.stderr, flush=True)

    def at_least(self, what: str, value: float | None, wanted: float) -> None:
        """Note a goal that asks for much."""
        self._goal(what, "≥", value, wanted, value is not None and value >= wanted)

    def at_most(self, what: str, value: float | None, wanted: float) -> None:
        """Note a goal that asks for little."""
        self._goal(what, "≤", value, wanted, value is not None and value <= wanted)

    def _goal(self, what: str, sign: str, value: float | None, wanted: float, met: bool) -> None:
        self.goals.append(
            {"what": what, "sign": sign, "wanted": wanted, "value": value, "met": None if value is None else met}
        )
        shown = "not measured" if value is None else f"{value:.3g}"
        print(f"    goal: {what} {sign} {wanted:g}: {shown}{'' if met else '  (missed)'}", file=sys.stderr, flush=True)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "case": self.number,
            "title": self.title,
            "rounds": self.rounds,
            "tables": self.tables,
            "goals": self.goals,
            "notes": self.notes,
            "plots": self.plots,
        }


def show(value: float, unit: str) -> str:
    """A value in seconds, in another unit."""
    if value != value:
        return "–"
    if unit == "1/s":
        rate = 1 / value
        return f"{rate / 1e6:.2f} M/s" if rate >= 1e6 else f"{rate / 1e3:.1f} k/s" if rate >= 1e3 else f"{rate:.1f} /s"
    factor = {"s": 1, "ms": 1e3, "µs": 1e6}[unit]
    return f"{value * factor:.3g} {unit}"
