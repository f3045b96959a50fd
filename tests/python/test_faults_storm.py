"""Workers killed and stopped at random moments, ten a second, under each kind of call; the books balance at the end.

A second each; a minute each with TERCIO_LONG=1 (`make storm`).
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path

import faults
import pytest
import tasks
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

LONG = os.environ.get("TERCIO_LONG") == "1"
SECONDS = 60 if LONG else 1
RETRY = {"on_worker_death": "retry", "max_retries": 1_000_000}
STRIKES = (
    (signal.SIGKILL,),
    (signal.SIGSEGV,),
    (signal.SIGABRT,),
    (signal.SIGSTOP, signal.SIGCONT),
    (signal.SIGSTOP, signal.SIGKILL),
)
ENDS = ("exit 0", "exit 3", "abort")  # from within, by a task


class Killer(threading.Thread):
    """Strikes workers of a pool that have said that they live: three that die before that are a pool's failure."""

    def __init__(self, pool, pause, spare_new=False):
        super().__init__(daemon=True)
        self.pool, self.pause, self.spare_new = pool, pause, spare_new
        self.first_seen = {}
        self.over = threading.Event()
        self.strikes = 0
        self.dice = random.Random()

    def run(self):
        while not self.over.wait(self.pause * self.dice.uniform(0.5, 1.5)):
            workers = [worker for worker in self.pool.stats() if worker["state"] in ("wait", "work")]
            if self.spare_new:
                workers = [
                    worker
                    for worker in workers
                    if worker["tasks"] > self.first_seen.setdefault(worker["pid"], worker["tasks"])
                ]
            victims = [worker["pid"] for worker in workers]
            if not victims:
                continue
            pid = self.dice.choice(victims)
            try:
                for number in self.dice.choice(STRIKES):
                    os.kill(pid, number)
                    self.over.wait(0.002 if number == signal.SIGSTOP else 0)
                self.strikes += 1
            except ProcessLookupError:
                pass


def with_ends(n, folder, numbers):
    """n items, of which every 25th ends its worker, once, from within."""
    return [(i, folder, ENDS[next(numbers) % len(ENDS)] if i % 25 == 7 else "") for i in range(n)]


def mapped(pool, folder, numbers):
    todo = with_ends(60, folder, numbers)
    assert pool.map(faults.end_once, todo, chunk_size=3, **RETRY) == [(i, how) for i, _, how in todo]


def lazily(pool, folder, numbers, pause=0.0):
    todo = with_ends(60, folder, numbers)
    found = []
    for result in pool.imap(faults.end_once, todo, chunk_size=3, **RETRY):
        found.append(result)
        time.sleep(pause)
    assert found == [(i, how) for i, _, how in todo]


def slowly(pool, folder, numbers):
    lazily(pool, folder, numbers, 0.004)


def unordered(pool, folder, numbers):
    todo = with_ends(60, folder, numbers)
    found = list(pool.imap_unordered(faults.end_once, todo, chunk_size=2, **RETRY))
    assert sorted(found) == [(i, how) for i, _, how in todo]


def applied(pool, folder, numbers):
    good, bad = [], []
    results = [
        pool.apply_async(faults.end_once, item, callback=good.append, error_callback=bad.append)
        for item in with_ends(40, folder, numbers)
    ]
    died = 0
    for i, result in enumerate(results):
        try:
            assert result.get(50)[0] == i
        except WorkerDiedError as error:  # its own task's, and no other's
            assert f"Arg 0: {i}\n" in error.args_repr
            died += 1
    assert (len(good), len(bad)) == (len(results) - died, died)


def large(pool, folder, numbers):
    numpy = pytest.importorskip("numpy")
    todo = [(i, folder, how) for i, _, how in with_ends(12, folder, numbers)]
    for i, array in enumerate(
        pool.map(faults.array_or_end, todo, chunk_size=1, concatenate_numpy_output=False, **RETRY)
    ):
        assert numpy.array_equal(array, numpy.full(200_000, i))


def short_lived(pool, folder, numbers):
    todo = with_ends(16, folder, numbers)
    found = pool.map(faults.end_once, todo, chunk_size=1, worker_lifespan=1, **RETRY)
    assert found == [(i, how) for i, _, how in todo]


def nested(pool, folder, numbers):
    found = pool.map(tasks.nested, [([1, 2, 3], "fork") for _ in range(2)], chunk_size=1, **RETRY)
    assert found == [[2, 4, 6]] * 2


CALLS = {call.__name__: call for call in (mapped, lazily, slowly, unordered, applied, large, short_lived, nested)}


def of_the_pools():
    """Mappings of shared memory that are a pool's, or have a name; what others have in /dev/shm is theirs."""
    maps = Path("/proc/self/maps").read_text()
    return maps.count("memfd:tercio") + maps.count("/dev/shm/")


def names():
    """Names in the system that tell whose they are."""
    return {name for name in os.listdir("/dev/shm") if "tercio" in name}


# The second: whether workers are kept between calls.
KINDS = [(name, i % 2 == 1) for i, name in enumerate(CALLS)] + [("mapped", True)]


@pytest.mark.parametrize(("name", "keep_alive"), KINDS)
@pytest.mark.timeout(SECONDS + 120)
def test_a_storm(process_method, name, keep_alive, tmp_path):
    before, there, numbers = of_the_pools(), names(), itertools.count()
    options = {"start_method": process_method, "keep_alive": keep_alive, "daemon": name != "nested"}
    with WorkerPool(2, **options) as pool:
        pool.map(tasks.double, [1])
        # A nested pool takes longer to start than ten kills a second leave it.
        # Nor does an import of numpy, on a busy machine: there each worker has a task done before it is struck.
        killer = Killer(pool, 0.7 if name == "nested" else 0.1, spare_new=name == "large")
        killer.start()
        end = time.monotonic() + SECONDS
        try:
            for again in itertools.count():
                folder = tmp_path / str(again)
                folder.mkdir()
                CALLS[name](pool, str(folder), numbers)
                if time.monotonic() > end and killer.strikes:
                    break
        finally:
            killer.over.set()
            killer.join()
        assert pool.map(tasks.double, range(10)) == [2 * i for i in range(10)]
    assert of_the_pools() == before
    assert names() <= there
