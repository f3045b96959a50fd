"""In a map each worker goes through the items in one direction, as the readers of one shared queue do."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from multiprocessing import get_context as context

import faults
import pytest
from tercio import WorkerPool, usable_cpu_count

BOUND = 20.0
HERE = threading.local()  # of one worker: each has its own thread, or its own process


def note(life, number):
    """What this worker has run, counted in its own order."""
    life.setdefault("name", uuid.uuid4().hex)
    life["count"] = life.get("count", 0) + 1
    return life["name"], life["count"], number


def with_state(state, number, seconds):
    if seconds:
        time.sleep(seconds)
    return note(state, number)


def without_state(number, seconds):
    if seconds:
        time.sleep(seconds)
    return note(HERE.__dict__, number)


def dies_once(state, number, folder):
    faults.end_once(number, folder, "SIGKILL" if number % 23 == 11 else None)
    return note(state, number)


def steps_back(results):
    """Numbers that a worker ran after a later one; results are in the order of the items."""
    last, found = {}, []
    for name, count, number in results:
        if count < last.get(name, 0):
            found.append(number)
        last[name] = count
    return found


def steps_of(pool, state, plans, **how):
    """In how many of the maps a worker stepped back."""
    return sum(bool(steps_back(pool.map(task_of(state), items, **how))) for items in plans)


# Without worker state one that the system has stopped for long may count as a task that takes long.
FEW = {True: 0, False: 0.1}


def task_of(state):
    return with_state if state else without_state


@pytest.mark.contract("11 order within a worker")
@pytest.mark.parametrize("chunk_size", [1, 2, None])
@pytest.mark.parametrize("state", [True, False])
def test_quick_tasks(start_method, state, chunk_size):
    plans = [[(i, 0) for i in range(300)]] * 60
    with WorkerPool(3, use_worker_state=state, start_method=start_method, keep_alive=True) as pool:
        assert steps_of(pool, state, plans, chunk_size=chunk_size) <= FEW[state] * len(plans)


@pytest.mark.contract("11 order within a worker")
@pytest.mark.parametrize("chunk_size", [1, 2, None])
@pytest.mark.parametrize("state", [True, False])
def test_tasks_that_differ(start_method, state, chunk_size):
    """What lies behind a longer one waits for it: a few milliseconds are not long."""
    chance = random.Random(1)
    plans = [[(i, chance.choice([0, 0, 0, 0.001, 0.003])) for i in range(60)] for _ in range(20)]
    with WorkerPool(3, use_worker_state=state, start_method=start_method, keep_alive=True) as pool:
        assert steps_of(pool, state, plans, chunk_size=chunk_size) <= FEW[state] * len(plans)


@pytest.mark.contract("11 order within a worker")
def test_one_that_takes_long_among_many(start_method):
    """With worker state nothing goes back, however long one takes."""
    items = [(i, 0.1 if i in (40, 41, 150) else 0) for i in range(200)]
    with WorkerPool(2, use_worker_state=True, start_method=start_method) as pool:
        assert steps_back(pool.map(with_state, items, chunk_size=1)) == []


@pytest.mark.contract("11 order within a worker")
@pytest.mark.parametrize("call", ["map_unordered", "imap", "imap_unordered"])
def test_the_other_calls(start_method, call):
    items = [(i, 0.002 * (i % 17 == 5)) for i in range(300)]
    with WorkerPool(3, use_worker_state=True, start_method=start_method, keep_alive=True) as pool:
        for _ in range(10):
            results = sorted(getattr(pool, call)(with_state, items, chunk_size=1), key=lambda result: result[2])
            assert len(results) == len(items)
            assert steps_back(results) == []


@pytest.mark.contract("11 order within a worker")
def test_a_consumer_that_is_slow(start_method):
    """Long tasks are handed out while the caller is elsewhere; in their order, too."""
    items = [(i, 0.003) for i in range(60)]
    with WorkerPool(3, use_worker_state=True, start_method=start_method) as pool:
        results = []
        for result in pool.imap(with_state, items, chunk_size=1):
            time.sleep(0.002)
            results.append(result)
    assert len(results) == len(items)
    assert steps_back(results) == []


@pytest.mark.contract("11 order within a worker")
@pytest.mark.parametrize("state", [True, False])
def test_beside_apply(start_method, state):
    def items():
        for i in range(400):
            if i % 10 == 3:
                beside.append(pool.apply_async(task_of(state), (-1, 0.001)))
            yield i, 0

    beside = []
    with WorkerPool(3, use_worker_state=state, start_method=start_method) as pool:
        results = list(pool.imap(task_of(state), items(), iterable_len=400, chunk_size=1))
        assert not state or steps_back(results) == []
        assert [result.get(BOUND)[2] for result in beside] == [-1] * 40


@pytest.mark.contract("11 order within a worker", "3 lifespan")
@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("lifespan", [1, 3])
def test_workers_that_are_replaced(start_method, state, lifespan):
    items = [(i, 0) for i in range(8 * lifespan)]
    with WorkerPool(3, use_worker_state=state, start_method=start_method) as pool:
        results = pool.map(task_of(state), items, chunk_size=1, worker_lifespan=lifespan)
    assert [number for *_, number in results] == [number for number, _ in items]
    assert max(count for _, count, _ in results) <= lifespan
    assert not state or steps_back(results) == []


@pytest.mark.contract("11 order within a worker", "5 retry")
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_a_death_and_another_try(process_method, chunk_size, tmp_path):
    """What died comes late: to a worker that is new, or one that has run nothing behind it."""
    items = [(i, str(tmp_path)) for i in range(100)]
    with WorkerPool(3, use_worker_state=True, start_method=process_method) as pool:
        results = pool.map(dies_once, items, chunk_size=chunk_size, on_worker_death="retry", max_retries=2)
    assert [number for *_, number in results] == list(range(100))
    assert steps_back(results) == []


@pytest.mark.contract("11 order within a worker", "3 task_timeout")
def test_the_rest_of_a_chunk(process_method):
    """One item of a chunk runs out of its time: those behind it follow, before any later one."""
    items = [(i, 5.0 if i % 20 == 9 else 0) for i in range(60)]
    with WorkerPool(2, use_worker_state=True, start_method=process_method) as pool:
        results = pool.map(with_state, items, chunk_size=4, task_timeout=0.3, on_error="return")
    assert [i for i, result in enumerate(results) if isinstance(result, TimeoutError)] == [9, 29, 49]
    assert steps_back(result for result in results if not isinstance(result, TimeoutError)) == []


# ---- What is behind one that takes long ---------------------------------------------------------------------------


def gate_for(start_method):
    return threading.Semaphore(0) if start_method == "threading" else context(start_method).Semaphore(0)


def pass_gate(gate, waits_for):
    """Waits for so many others, or is one of them."""
    if waits_for == 0:
        gate.release()
    for _ in range(waits_for):
        if not gate.acquire(timeout=BOUND):
            raise TimeoutError("the others have not run")
    return waits_for


def pass_gate_with_state(gate, state, waits_for):
    return pass_gate(gate, waits_for)


@pytest.mark.contract("11 moves", "10 spread")
@pytest.mark.parametrize("held", [0, 200, 598])
@pytest.mark.parametrize("state", [True, False])
def test_nothing_waits_behind_one_that_takes_long(start_method, state, held):
    """All others run while it is held, also those that lay behind it."""
    items = [599 if i == held else 0 for i in range(600)]
    function = pass_gate_with_state if state else pass_gate
    with WorkerPool(
        2, use_worker_state=state, start_method=start_method, shared_objects=gate_for(start_method), keep_alive=True
    ) as pool:
        for _ in range(3):
            assert pool.map(function, items, chunk_size=1) == items


N_JOBS = usable_cpu_count() + 2


def barrier_for(start_method):
    return threading.Barrier(N_JOBS) if start_method == "threading" else context(start_method).Barrier(N_JOBS)


def meet(barrier, state, meets):
    if meets:
        barrier.wait(BOUND)
    return os.getpid()


@pytest.mark.contract("10 spread")
def test_groups_that_meet_with_state(start_method):
    """Nothing moves back, so none of a group may have been handed out behind another one."""
    items = [False] * 300 + ([True] * N_JOBS + [False] * 40) * 10
    with WorkerPool(
        N_JOBS, use_worker_state=True, start_method=start_method, shared_objects=barrier_for(start_method)
    ) as pool:
        assert len(pool.map(meet, items, chunk_size=1)) == len(items)
