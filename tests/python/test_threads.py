"""Workers that are threads: what a thread of Python's own has, they have, too."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import threading

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


def how_it_looks(_):
    thread = threading.current_thread()
    return (
        thread.name,
        thread.daemon,
        thread.is_alive(),
        thread.ident == threading.get_ident(),
        thread.native_id == threading.get_native_id(),
        thread in threading.enumerate(),
        type(thread).__name__.startswith("_Dummy"),
    )


def test_threading_knows_a_worker_as_one_of_its_own():
    before = threading.enumerate()
    with WorkerPool(1, start_method="threading", keep_alive=True) as pool:
        assert pool.map(how_it_looks, [0]) == [("Worker-0", True, True, True, True, True, False)]
        thread = pool.apply(threading.current_thread)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    assert threading.enumerate() == before


class Farewell:
    def __init__(self, said):
        self.said = said

    def __del__(self):
        self.said.append(threading.get_ident())


def test_what_a_thread_has_for_itself_goes_with_it():
    own, said = threading.local(), []

    def fill(_):
        own.farewell = Farewell(said)
        return threading.get_ident()

    with WorkerPool(1, start_method="threading") as pool:
        ident = pool.apply(fill, (0,))
    assert said == [ident]


@pytest.mark.parametrize("kind", ["trace", "profile"])
def test_hooks_for_threads_see_tasks(kind):
    seen = []

    def hook(frame, event, argument):
        if event == "call":
            seen.append(frame.f_code.co_name)

    getattr(threading, f"set{kind}")(hook)
    try:
        with WorkerPool(2, start_method="threading") as pool:
            pool.map(how_it_looks, range(4))
    finally:
        getattr(threading, f"set{kind}")(None)
    assert seen.count("how_it_looks") == 4


FORKS = """
import multiprocessing, os, sys, threading
from tercio import WorkerPool

def in_child(queue):
    thread = threading.current_thread()
    is_main = thread is threading.main_thread()
    queue.put((is_main, thread.name, thread.daemon, thread.is_alive(), threading.active_count()))

def by_process(_):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=in_child, args=(queue,))
    process.start()
    told = queue.get()
    process.join()
    return (process.exitcode, *told)

def by_fork(_):
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=lambda: None).start()
        threading._shutdown()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

with WorkerPool(2, start_method="threading") as pool:
    print(*pool.map(by_process, range(2)), sep="\\n")
    print(*pool.map(by_fork, range(2)), sep="\\n")
"""


def test_a_child_that_a_task_forks_is_like_any_other():
    printed = run("import warnings\nwarnings.simplefilter('ignore')\n" + FORKS)
    assert "".join(printed) == "(0,True,'MainThread',False,True,1)" * 2 + "77"
