"""The last reference to a pool goes in a thread that can't wait for the pool's end."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest
import tasks
from support import descendants
from tercio import WorkerPool

BOUND = 40  # against a hang


def use_and_forget(method, function, which, in_a_cycle):
    """The supervisor's thread is in a callback when nobody has the pool any more. Returns what lets it go on."""
    began, go = threading.Event(), threading.Event()

    class Callback:
        def __call__(self, _):
            began.set()
            go.wait(BOUND)

    pool, call = WorkerPool(2, start_method=method), Callback()
    if in_a_cycle:
        call.pool = pool
    pool.apply_async(function, (1,), **{which: call})
    assert began.wait(BOUND)
    return go


def wait_until_gone(before, threads):
    """Until no worker is left; ends by the limit on the test's time where one stays."""
    while descendants(os.getpid()) - before or set(os.listdir("/proc/self/task")) - threads:
        gc.collect()
        threading.Event().wait(0.005)


@pytest.mark.contract("2 last reference")
@pytest.mark.timeout(100)
@pytest.mark.parametrize("in_a_cycle", [False, True])
@pytest.mark.parametrize(
    ("function", "which"), [(tasks.double, "callback"), (tasks.fail, "error_callback")], ids=["callback", "error"]
)
def test_the_last_reference_goes_during_a_callback(start_method, function, which, in_a_cycle):
    before, threads = descendants(os.getpid()), set(os.listdir("/proc/self/task"))
    with pytest.warns(ResourceWarning, match="unclosed WorkerPool"):
        go = use_and_forget(start_method, function, which, in_a_cycle)
        gc.collect()
        go.set()
        wait_until_gone(before, threads)
    with WorkerPool(1, start_method=start_method) as pool:  # what all pools share goes with the last that ends
        pool.apply(tasks.double, (1,))


def keep(value, started, go):
    started.set()
    go.wait(BOUND)


@pytest.mark.contract("2 last reference")
@pytest.mark.timeout(100)
def test_a_task_has_the_last_reference():
    threads = set(os.listdir("/proc/self/task"))
    started, go = threading.Event(), threading.Event()
    pool = WorkerPool(2, start_method="threading")
    reference = weakref.ref(pool)
    pool.apply_async(keep, (pool, started, go))
    assert started.wait(BOUND)
    with pytest.warns(ResourceWarning, match="unclosed WorkerPool"):
        del pool
        assert reference() is not None
        go.set()
        wait_until_gone(descendants(os.getpid()), threads)
