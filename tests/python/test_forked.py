# SPDX-License-Identifier: MIT
"""A child that the program forks lets go of its copy of a pool: descriptors and memory; the parent's pool goes on."""

import gc
import os
import threading

import pytest
import tasks
from tercio import WorkerPool

SHARED = list(range(1000))

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def _descriptors():
    names = os.listdir("/proc/self/fd")
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


def _verdict(check):
    """Run the check in a forked child. Returns what it says there, as text; empty is good."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "no verdict"
        try:
            os.close(here)
            text = check(there) or ""
        except BaseException as error:
            text = repr(error)
        finally:
            os.write(there, text.encode()[:4000])
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as pipe:
        text = pipe.read()
    return text or os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _count_pool_mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:tercio" in line or "/tercio-" in line for line in maps)


@pytest.mark.contract("10 forked pool")
def test_a_forked_child_closes_what_it_has_of_a_pool_that_it_drops(start_method):
    before = _descriptors()
    mappings = _count_pool_mappings()
    holder = [WorkerPool(2, start_method=start_method, keep_alive=True, shared_objects=SHARED)]
    assert holder[0].map(tasks.shared_and_value, range(20), concatenate_numpy_output=False)[3] == (SHARED, 3)
    pending = [holder[0].apply_async(tasks.shared_and_value, (i,)) for i in range(4)]
    late = holder[0].imap(tasks.shared_and_value, range(200), chunk_size=1)
    assert next(late) == (SHARED, 0)

    def check(pipe):
        nonlocal late, pending
        late = pending = None
        holder.clear()
        gc.collect()
        left = {n: link for n, link in _descriptors().items() if before.get(n) != link and int(n) != pipe}
        # The file for the stacks of crashed workers is all pools', and goes when the next one is opened or ended.
        left = {n: link for n, link in left.items() if not link.startswith(("/proc/", "/memfd:tercio-stacks"))}
        more = _count_pool_mappings() - mappings
        return f"descriptors: {left}" if left else f"{more} mappings" if more > 0 else None

    assert _verdict(check) == 0
    assert [value for _, value in late] == list(range(1, 200))
    assert [one.get()[1] for one in pending] == [0, 1, 2, 3]
    assert holder[0].map(tasks.shared_and_value, range(20), concatenate_numpy_output=False)[3] == (SHARED, 3)
    holder[0].terminate()


def test_children_forked_beside_busy_callers_can_drop_the_pool(start_method):
    holder = [WorkerPool(2, start_method=start_method, keep_alive=True)]
    holder[0].map(tasks.double, range(4))
    stops = threading.Event()
    failed = []

    def go_on():
        while not stops.is_set():
            if holder[0].map(tasks.double, range(50), chunk_size=1) != [2 * i for i in range(50)]:
                failed.append("wrong")

    caller = threading.Thread(target=go_on)
    caller.start()
    try:
        for _ in range(30):

            def check(_pipe):
                holder.clear()
                gc.collect()

            assert _verdict(check) == 0
    finally:
        stops.set()
        caller.join()
    assert failed == []
    holder[0].terminate()
