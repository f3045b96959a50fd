"""Nothing grows: references and memory over many calls of each kind; what a worker is given is what it needs."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import stat
import sys
import tempfile
import time
from contextlib import closing

import faults
import pytest
import tasks
from support import descriptors
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

LONG = os.environ.get("TERCIO_LONG") == "1"


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fails(pool):
    with pytest.raises(ValueError, match="no good"):
        pool.map(tasks.fail_at, [(i, 3) for i in range(5)], chunk_size=1)


def abandons(pool):
    results = pool.imap(tasks.double, range(50), chunk_size=5)
    next(results)
    results.close()


def refuses(pool):
    with pytest.raises(Exception, match="identity"):
        pool.map(tasks.identity, [1, lambda: None])


def gives_up(pool):
    result = pool.apply_async(faults.sleep_in_steps, (100,))
    result.cancel()
    with pytest.raises(Exception, match="cancel"):
        result.get()


def takes_too_long(pool):
    with pytest.raises(TimeoutError):
        pool.apply(faults.sleep_in_steps, (100,), task_timeout=0.001)
    with pytest.raises(TimeoutError):
        pool.map(faults.sleep_in_steps, [100], task_timeout=0.001)


def dies(pool):
    (error,) = pool.map(faults.end, ["exit 3"], on_error="return")
    assert isinstance(error, WorkerDiedError)


def is_tried_again(pool):
    with tempfile.TemporaryDirectory() as folder:
        pool.map(faults.end_once, [(1, folder, "exit 3")], on_worker_death="retry")


def calls_back(pool):
    told = []
    pool.apply_async(tasks.double, 1, callback=told.append).wait()
    pool.apply_async(tasks.fail, 1, error_callback=told.append).wait()
    assert len(told) == 2


async def awaits(pool):
    assert await pool.apply_async(tasks.double, 1) == 2


def ends_with_results(pool):
    with WorkerPool(1, start_method="fork", shared_objects=bytearray(100_000)) as other:
        assert other.map(faults.size_of_shared, [1], worker_exit=faults.size_of_shared) == [100_001]
    assert other.get_exit_results() == [100_000]


def nests(pool):
    assert pool.map(tasks.nested, [([1, 2], "threading")]) == [[2, 4]]


def arrays(pool):
    numpy = pytest.importorskip("numpy")
    found = pool.map(faults.identity, numpy.arange(100_000), n_splits=2)
    assert found.nbytes == 800_000


CALLS = {
    "map": lambda pool: pool.map(tasks.double, range(10), chunk_size=2),
    "imap": lambda pool: list(pool.imap(tasks.double, range(10), chunk_size=2)),
    "map_unordered": lambda pool: pool.map_unordered(tasks.double, range(10), chunk_size=2),
    "imap_unordered": lambda pool: list(pool.imap_unordered(tasks.double, range(10), chunk_size=2)),
    "apply": lambda pool: pool.apply(tasks.everything, (1, "a"), {"b": 2.5}),
    "apply_async": lambda pool: [r.get(30) for r in [pool.apply_async(tasks.double, i) for i in range(5)]],
    "large": lambda pool: pool.map(faults.identity, [(bytes(100_000),)]),
    "fails": fails,
    "abandons": abandons,
    "refuses": refuses,
    "calls_back": calls_back,
    "gives_up": gives_up,
    "arrays": arrays,
    "nests": nests,
    "ends_with_results": ends_with_results,
    "takes_too_long": takes_too_long,
    "dies": dies,
    "is_tried_again": is_tried_again,
}
OF_PROCESSES = (refuses, dies, is_tried_again)  # threads pickle nothing and don't die
START_WORKERS = (ends_with_results, takes_too_long, dies, is_tried_again)  # each time: fewer are enough


@pytest.mark.parametrize("method", ["fork", "threading"])
@pytest.mark.timeout(900 if LONG else 60)
def test_calls_of_each_kind_leave_nothing(method):
    loop = asyncio.new_event_loop()  # one, as each leaves something behind
    calls = {**CALLS, "awaits": lambda pool: loop.run_until_complete(awaits(pool))}
    with closing(loop), WorkerPool(2, start_method=method, keep_alive=True, daemon=False) as pool:
        for name, call in calls.items():
            if method == "threading" and call in OF_PROCESSES:
                continue
            rounds = (1000 if LONG else 30) if call in START_WORKERS else 10_000 if LONG else 60
            for _ in range(20):
                call(pool)
            memory = resident()
            # Caches fill at some time and then no more; what stays of each call stays each time.
            assert any(blocks_left_by(call, pool, rounds) < max(rounds / 3, 25) for _ in range(1 if LONG else 10)), name
            assert resident() - memory < 8 << 20, name


def blocks_left_by(call, pool, rounds):
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(rounds):
        call(pool)
    gc.collect()
    return sys.getallocatedblocks() - before


def in_shared_memory():
    """Bytes that the pool's memory has."""
    return sum(
        os.stat(int(fd)).st_blocks * 512
        for fd, where in descriptors().items()
        if where.startswith(("/memfd:tercio ", "/dev/shm/#"))
    )


LARGE_CALLS = {
    "apply": lambda pool, large: pool.apply(len, (large,)),
    "left alone": lambda pool, large: pool.apply_async(len, (large,)) and None,
}


@pytest.mark.parametrize("name", LARGE_CALLS)
def test_large_arguments_are_given_back_though_no_call_comes(name):
    with WorkerPool(1, keep_alive=True) as pool:
        pool.map(len, ["a"])
        before = in_shared_memory()
        LARGE_CALLS[name](pool, bytes(100 << 20))
        bound = time.monotonic() + 20
        while in_shared_memory() > before + (64 << 20):  # more than what is worth keeping
            assert time.monotonic() < bound
            time.sleep(0.001)
        assert pool.map(len, ["ab"]) == [2]


def facts(_):
    with open("/proc/self/maps") as file:
        maps = [line.split() for line in file if "memfd" in line]
    files = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            files[int(name)] = os.readlink(f"/proc/self/fd/{name}"), os.get_inheritable(int(name))
        except OSError:
            continue
    ours = {fd: where for fd, (where, _) in files.items() if where.startswith("/memfd:tercio")}
    modes = [stat.S_IMODE(os.stat(fd).st_mode) for fd in ours]
    seals = {where.split()[0]: fcntl.fcntl(fd, F_GET_SEALS) for fd, where in ours.items()}
    return maps, files, modes, seals


F_GET_SEALS, F_SEAL_SHRINK, F_SEAL_EXEC = 1034, 0x02, 0x20


def may_be_sealed_against_execution():
    """Linux 6.3 and later."""
    try:
        os.close(os.memfd_create("test", os.MFD_CLOEXEC | 0x08))
        return True
    except OSError:
        return False


def test_what_a_worker_has_open(process_method):
    with open(os.devnull) as other, WorkerPool(1, start_method=process_method) as pool:
        ((maps, files, modes, seals),) = pool.map(facts, [1])
        assert maps and all("x" not in line[1] for line in maps)
        assert modes and set(modes) == {0o600}
        assert set(seals) == {"/memfd:tercio", "/memfd:tercio-stacks"}
        assert seals["/memfd:tercio"] & F_SEAL_SHRINK
        if may_be_sealed_against_execution():
            assert all(seal & F_SEAL_EXEC for seal in seals.values()), seals
        # All but the standard ones are closed in programs that a task starts.
        ours = {fd: where for fd, (where, inheritable) in files.items() if inheritable and fd > 2}
        assert not [where for where in ours.values() if "memfd" in where or "eventfd" in where], ours
        if process_method != "fork":
            assert other.fileno() not in files or files[other.fileno()][0] != os.devnull
        assert files[0][0] == os.devnull
