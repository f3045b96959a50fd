"""Pools of more workers than CPUs, where quick tasks don't wake a worker each: what waits for one another gets on."""

from __future__ import annotations

import itertools
import os
import select
import threading
from multiprocessing import get_context as context

import pytest
from tercio import WorkerPool, usable_cpu_count

N_JOBS = usable_cpu_count() + 6
PREFIX = 20_000  # tasks after which the pool has seen that they are quick
BOUND = 20.0


def sign(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)


def wait_for(path, n):
    """Until so many more have signed; a hang is a failure."""
    fd = os.open(path, os.O_RDWR)
    try:
        while n > 0:
            if not select.select([fd], [], [], BOUND)[0]:
                raise TimeoutError(f"{n} have not come")
            n -= len(os.read(fd, n))
    finally:
        os.close(fd)


def sign_or_not(path):
    if path:
        sign(path)
    return 1


class Late:
    """Is pickled when so many more have signed."""

    def __init__(self, path, n):
        self.path, self.n = path, n

    def __reduce__(self):
        wait_for(self.path, self.n)
        return str, ()


@pytest.fixture
def place(tmp_path):
    """A fifo, which keeps what was signed."""
    path = str(tmp_path / "signed")
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    yield path
    os.close(fd)


def barrier_for(start_method):
    return threading.Barrier(N_JOBS) if start_method == "threading" else context(start_method).Barrier(N_JOBS)


def meet(barrier, meets):
    if meets:
        barrier.wait(BOUND)
    return 1


@pytest.mark.parametrize("kind", [list, tuple])
def test_tasks_that_meet_after_many_quick_ones(start_method, kind):
    items = kind([False] * PREFIX + [True] * N_JOBS)
    with WorkerPool(N_JOBS, start_method=start_method, shared_objects=barrier_for(start_method)) as pool:
        assert sum(pool.map(meet, items, chunk_size=1)) == len(items)


@pytest.mark.parametrize("quick", [10, 100])
def test_groups_that_meet_under_a_limit(start_method, quick):
    """No more comes before they have met, so what lies behind one of them has to go to whoever has nothing."""
    items = [False] * 300 + ([True] * N_JOBS + [False] * quick) * 20
    with WorkerPool(N_JOBS, start_method=start_method, shared_objects=barrier_for(start_method)) as pool:
        for _ in range(5):
            assert sum(pool.map(meet, items, chunk_size=1, max_tasks_active=2 * N_JOBS)) == len(items)


def test_an_argument_that_waits_for_all_before_it(process_method, place):
    """Whatever was sent runs before anything of the user's is asked for."""
    # To pickle the first one wakes all workers, so those that have nothing then get some of what is signed.
    items = [""] * PREFIX + [Late(place, 0)] + [place] * 3000
    with WorkerPool(N_JOBS, start_method=process_method) as pool:
        for _ in range(3):
            results = pool.map(sign_or_not, [*items, Late(place, 3000), *items[:PREFIX]], chunk_size=1)
            assert results == [1] * (2 * PREFIX + 3002)


def test_a_generator_that_waits_for_what_it_gave(start_method, place):
    def items():
        yield from itertools.repeat("", PREFIX)
        for _ in range(199):
            yield place
            wait_for(place, 1)

    with WorkerPool(N_JOBS, start_method=start_method) as pool:
        assert len(pool.map(sign_or_not, items(), chunk_size=1, iterable_len=PREFIX + 199)) == PREFIX + 199


def test_progress_is_told_meanwhile(start_method):
    with WorkerPool(N_JOBS, start_method=start_method) as pool:
        assert pool.map(abs, range(PREFIX), chunk_size=1, progress_bar=True) == list(range(PREFIX))


@pytest.mark.parametrize("lifespan", [1, 50])
def test_workers_are_replaced_meanwhile(start_method, lifespan):
    n = PREFIX if lifespan > 1 else 500
    with WorkerPool(N_JOBS, start_method=start_method) as pool:
        assert pool.map(abs, range(n), chunk_size=1, worker_lifespan=lifespan) == list(range(n))


def test_one_that_takes_long_among_many(start_method):
    """All others pass it: it ends when the last ones come."""
    items = [False] * PREFIX + [True] + [False] * PREFIX + [True] * (N_JOBS - 1)
    with WorkerPool(N_JOBS, start_method=start_method, shared_objects=barrier_for(start_method)) as pool:
        assert sum(pool.map(meet, items, chunk_size=1)) == len(items)
