"""Workers that are threads: what a thread of Python's own has, they have, too."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap

import pytest
from tercio import WorkerPool
from tercio.exception import WorkerDiedError


def run(body, *arguments):
    """What a program of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


STACK = """
import ctypes, sys, threading
from tercio import WorkerPool

libc = ctypes.CDLL(None)

def stack_of_this_thread():
    attributes = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t()
    libc.pthread_self.restype = ctypes.c_void_p
    libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes)
    libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    libc.pthread_attr_destroy(attributes)
    return size.value >> 20

usual = []
thread = threading.Thread(target=lambda: usual.append(stack_of_this_thread()))
thread.start()
thread.join()
threading.stack_size(int(sys.argv[1]))
called, has_called = [], threading.Event()

def call_back(_):
    called.append(stack_of_this_thread())
    has_called.set()

with WorkerPool(2, start_method=sys.argv[2]) as pool:
    size = pool.apply(stack_of_this_thread) if sys.argv[2] == "threading" else usual[0]
    pool.apply_async(abs, (1,), callback=call_back)
    has_called.wait()  # no caller is inside, so the pool's own thread calls back
    print(size - usual[0], called[0] - usual[0])
"""


def test_a_worker_has_the_stack_that_the_program_set():
    assert [int(more) > 80 for more in run(STACK, str(128 << 20), "threading")] == [True, True]


def test_a_stack_is_never_smaller_than_usual():
    assert [int(more) >= 0 for more in run(STACK, str(64 << 10), "threading")] == [True, True]


def end_the_thread(x, with_lock):
    if x == 2:
        (ctypes.pythonapi if with_lock else ctypes.CDLL(None)).pthread_exit(None)
    return x


@pytest.mark.parametrize("with_lock", [False, True])
def test_a_task_that_ends_its_thread_costs_itself(start_method, with_lock):
    """``with_lock``: while the thread has the interpreter's lock."""
    with WorkerPool(2, start_method=start_method, keep_alive=True) as pool:
        with pytest.raises(WorkerDiedError):
            pool.map(end_the_thread, [(x, with_lock) for x in range(4)], chunk_size=1)
        assert pool.map(end_the_thread, [(1, with_lock)] * 8, chunk_size=1) == [1] * 8
