"""A random mix of everything with random kills; every result is checked. Prints its books at the end.

python tests/storm/soak.py SECONDS [SEED]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import faults
import tasks
from support import descendants, descriptors
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

METHODS = ("fork", "spawn", "forkserver")
KILLS = (
    (signal.SIGKILL,),
    (signal.SIGSEGV,),
    (signal.SIGABRT,),
    (signal.SIGSTOP, signal.SIGCONT),
    (signal.SIGSTOP, signal.SIGKILL),
)
RETRY = {"on_worker_death": "retry", "max_retries": 1_000_000}


class Killer(threading.Thread):
    """Ten signals a second to workers of the pool that is looked at now."""

    def __init__(self, seed):
        super().__init__(daemon=True)
        self.dice = random.Random(seed)
        self.pool = None
        self.kills = 0
        self.stop = threading.Event()

    def run(self):
        while not self.stop.wait(0.1):
            pool = self.pool
            # Deaths in a row before a worker has said that it lives are taken for a fault of the program.
            victims = [worker["pid"] for worker in pool.stats() if worker["state"] in ("wait", "work")] if pool else []
            if victims:
                pid = self.dice.choice(victims)
                try:
                    for number in self.dice.choice(KILLS):
                        os.kill(pid, number)
                    self.kills += 1
                except ProcessLookupError:
                    pass


def ordered(pool, dice):
    n = dice.randrange(1, 300)
    found = pool.map(faults.slowly, [(i, 0.001) for i in range(n)], chunk_size=dice.choice((1, 3, 20)), **RETRY)
    assert found == list(range(n))
    return n


def short_lived(pool, dice):
    found = pool.map(tasks.double, range(12), chunk_size=1, worker_lifespan=1, **RETRY)
    assert found == [2 * i for i in range(12)]
    return 12


def lazy(pool, dice):
    n = dice.randrange(1, 200)
    pause = dice.choice((0, 0.002))
    found = []
    for value in pool.imap(tasks.double, range(n), chunk_size=dice.choice((1, 10)), **RETRY):
        found.append(value)
        if pause:
            time.sleep(pause)
    assert found == [2 * i for i in range(n)]
    return n


def abandoned(pool, dice):
    results = pool.imap_unordered(tasks.double, range(10_000), chunk_size=5, **RETRY)
    seen = [next(results) for _ in range(dice.randrange(1, 50))]
    results.close()
    assert len(set(seen)) == len(seen)
    assert all(value % 2 == 0 for value in seen)
    return len(seen)


def applied(pool, dice):
    n = dice.randrange(1, 60)
    done = []
    results = [pool.apply_async(faults.slowly, (i, 0.002), callback=done.append) for i in range(n)]
    for i, result in enumerate(results):
        try:
            assert result.get(60) == i
        except WorkerDiedError as error:  # its task's error, and nobody else's
            assert f"Arg 0: {i}\n" in error.args_repr + "\n"
            n -= 1
    assert len(done) == n
    return len(results)


def large(pool, dice):
    n = dice.randrange(1, 12)
    size = dice.choice((40_000, 3_000_000))
    found = pool.map(faults.identity, [(bytes([i]) * size,) for i in range(n)], chunk_size=1, **RETRY)
    assert found == [bytes([i]) * size for i in range(n)]
    return n


def failing(pool, dice):
    found = pool.map(tasks.fail_at, [(i, 7) for i in range(20)], chunk_size=4, on_error="return", **RETRY)
    assert isinstance(found[7], ValueError)
    assert found[:7] + found[8:] == [i for i in range(20) if i != 7]
    return 20


def nested(pool, dice):
    found = pool.map(tasks.nested, [([1, 2, 3], dice.choice(METHODS)) for _ in range(2)], chunk_size=1, **RETRY)
    assert found == [[2, 4, 6]] * 2
    return 8


MIX = (ordered, short_lived, lazy, abandoned, applied, large, failing, nested)


def memory():
    """Resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(seconds, seed):
    dice = random.Random(seed)
    warnings.simplefilter("ignore")  # that we fork beside the killer's thread
    with WorkerPool(1, start_method="forkserver") as pool:  # what is kept for the process
        pool.map(tasks.double, [1])
    kept, files, began = descendants(os.getpid()), descriptors(), memory()
    killer = Killer(seed)
    killer.start()
    done, rounds, peak, end = 0, 0, began, time.monotonic() + seconds
    while time.monotonic() < end:
        method = METHODS[rounds % len(METHODS)]
        rounds += 1
        with WorkerPool(2, start_method=method, keep_alive=dice.random() < 0.7, daemon=False) as pool:
            for _ in range(dice.randrange(1, 6)):
                what = dice.choice(MIX)
                print(f"{method} {what.__name__}", file=sys.stderr) if os.environ.get("TERCIO_VERBOSE") else None
                # A nested pool takes longer to start than ten kills a second leave it.
                killer.pool = None if what is nested else pool
                done += what(pool, dice)
            killer.pool = None
        peak = max(peak, memory())
        left = descendants(os.getpid()) - kept
        assert not left, f"processes left by {method}: {left}"
    killer.stop.set()
    killer.join()
    now = descriptors()
    assert len(now) == len(files), (files, now)
    print(f"seed {seed}: {rounds} pools, {done} tasks, {killer.kills} kills")
    print(f"memory {began:.0f} MiB at the start, {peak:.0f} at most, {memory():.0f} at the end")
    print(f"descriptors {len(files)} at the start, {len(now)} at the end; processes left: 0")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6))
