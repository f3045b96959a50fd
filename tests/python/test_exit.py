"""The interpreter's end: pools of daemon threads, of late threads, of functions of atexit and of destructors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(folder, text, *arguments, flags=()):
    program = folder / "program.py"
    program.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.run(
        [sys.executable, *flags, str(program), *arguments],
        capture_output=True, text=True, timeout=55, check=False, env=environment,
    )  # fmt: skip


DAEMONS = """
import asyncio, atexit, os, sys, threading, time

def last():
    deadline = time.monotonic() + 1
    for thread in threads:  # one that is to stay doesn't end; one that fails does, and prints why
        thread.join(max(0, deadline - time.monotonic()))
    print("end", *[thread.name for thread in threads if not thread.is_alive()])

if __name__ == "__main__":
    atexit.register(last)  # before the package does, so it runs after the package's
from tercio import WorkerPool

def stay(where, value):
    with open(where, "w") as begun:
        begun.write("b")
    time.sleep(600)

def maps(pool, where):
    pool.map(stay, [(where, 0)])

def streams(pool, where):
    list(pool.imap_unordered(stay, [(where, 0)]))

def applies(pool, where):
    pool.apply(stay, (where, 0))

def gets(pool, where):
    pool.apply_async(stay, (where, 0)).get()

def gets_twice(pool, where):  # two threads wait for one result
    result = pool.apply_async(stay, (where, 0))
    threads.append(threading.Thread(target=result.get, daemon=True, name="second"))
    threads[-1].start()
    result.get()

def joins(pool, where):
    pool.apply_async(stay, (where, 0))
    pool.stop_and_join()

def awaits(pool, where):
    async def wait():
        await pool.apply_async(stay, (where, 0))
    asyncio.run(wait())

def is_full(pool, where):
    for value in range(3):
        pool.apply_async(stay, (where, value))

def leaves(pool, where):  # the next pool is opened at the end
    pool.apply_async(stay, (where, 0)).wait()
    with WorkerPool(1, start_method=sys.argv[1]) as other:
        other.map(abs, [1])

def enter(function, where):
    with WorkerPool(1, start_method=sys.argv[1], max_pending=2) as pool:
        function(pool, where)

threads = []

if __name__ == "__main__":
    where = sys.argv[2]
    begun = os.open(where, os.O_RDWR)
    for function in (maps, streams, applies, gets, gets_twice, joins, awaits, is_full, leaves):
        threads.append(threading.Thread(target=enter, args=(function, where), daemon=True, name=function.__name__))
        threads[-1].start()
        assert os.read(begun, 1) == b"b"
"""


@pytest.mark.contract("10 daemon threads")
def test_daemon_threads_in_a_pool_are_quiet_at_the_end(start_method, tmp_path):
    os.mkfifo(tmp_path / "begun")
    done = run(tmp_path, DAEMONS, start_method, str(tmp_path / "begun"), flags=("-W", "ignore"))
    assert (done.stderr, done.stdout, done.returncode) == ("", "end\n", 0)


IN_A_WORKER = """
import os, sys, threading, time
from tercio import WorkerPool

def stay(where):
    with open(where, "w") as begun:
        begun.write("b")
    time.sleep(600)

def enter(where):
    with WorkerPool(1, start_method=sys.argv[1]) as pool:
        pool.map(stay, [where])

def begin(where):
    begun = os.open(where, os.O_RDWR)
    threading.Thread(target=enter, args=(where,), daemon=True).start()
    return os.read(begun, 1)

if __name__ == "__main__":
    with WorkerPool(1, start_method=sys.argv[1], daemon=False) as pool:
        print(pool.map(begin, [sys.argv[2]]))
"""


@pytest.mark.contract("10 daemon threads", "2 nested")
def test_daemon_threads_of_a_worker_are_quiet_at_its_end(process_method, tmp_path):
    os.mkfifo(tmp_path / "begun")
    done = run(tmp_path, IN_A_WORKER, process_method, str(tmp_path / "begun"), flags=("-W", "ignore"))
    assert (done.stderr, done.stdout, done.returncode) == ("", "[b'b']\n", 0)


LATE_THREAD = """
import math, sys, threading
from tercio import WorkerPool

def late():
    threading.main_thread().join()
    with WorkerPool(2, start_method=sys.argv[1]) as pool:
        print(pool.map(math.sqrt, [1, 4, 9]), pool.apply(math.sqrt, (16,)))

if __name__ == "__main__":
    threading.Thread(target=late).start()
"""


@pytest.mark.contract("10 exit")
def test_a_thread_that_outlives_the_main_one_may_use_pools(start_method, tmp_path):
    """It is the only thread that runs, so a fork doesn't warn of others."""
    done = run(tmp_path, LATE_THREAD, start_method, flags=("-W", "error"))
    assert (done.stderr, done.stdout, done.returncode) == ("", "[1.0, 2.0, 3.0] 4.0\n", 0)


ATEXIT = """
import atexit, math, sys

def last():
    with WorkerPool(2, start_method=sys.argv[1]) as pool:
        print(pool.map(math.sqrt, [1, 4, 9]), kept.apply(math.sqrt, (16,)))
    kept.terminate()

if __name__ == "__main__":
    atexit.register(last)  # before the package does, so it runs after the package's
    from tercio import WorkerPool
    kept = WorkerPool(1, start_method=sys.argv[1])
    kept.apply(math.sqrt, (4,))
"""


@pytest.mark.contract("10 exit")
def test_functions_of_atexit_may_use_pools(start_method, tmp_path):
    done = run(tmp_path, ATEXIT, start_method)
    assert (done.stderr, done.stdout, done.returncode) == ("", "[1.0, 2.0, 3.0] 4.0\n", 0)


DESTRUCTORS = """
import builtins, math, sys
from tercio import WorkerPool

class Last:
    def __init__(self, used):
        self.new, self.used, self.sqrt, self.write = WorkerPool, used, math.sqrt, sys.stdout.write

    def __del__(self):
        for make in (lambda: self.new(2, start_method=method), lambda: self.used):
            try:
                with make() as pool:
                    pool.map(self.sqrt, [1, 4])
            except RuntimeError as error:
                self.write(f"{error}\\n")
        try:
            self.used.apply(self.sqrt, (1,))
        except RuntimeError as error:
            self.write(f"{error}\\n")
        self.used.stop_and_join()
        self.used.terminate()

if __name__ == "__main__":
    method = sys.argv[1]
    used = WorkerPool(1, start_method=method, keep_alive=True)
    used.map(math.sqrt, [4])
    last = Last(used)
    if sys.argv[2] == "builtins":
        builtins.last, last = last, None
"""


@pytest.mark.contract("10 exit")
@pytest.mark.parametrize("where", ["main", "builtins"])
def test_a_destructor_at_the_end_is_refused_in_plain_words(start_method, where, tmp_path):
    done = run(tmp_path, DESTRUCTORS, start_method, where)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["can't start workers at interpreter shutdown"] * 3
