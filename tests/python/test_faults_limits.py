"""Machines that refuse: memory, descriptors, processes. A clear error, nothing left, and the pool works once it can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

HEAD = """
import errno, os, resource, subprocess, sys
sys.path.insert(0, {here!r})
import faults, tasks
from support import descendants
from tercio import WorkerPool

def limit(what, soft):
    resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))

def nothing_left(before=frozenset()):
    left = descendants(os.getpid()) - before
    assert not left, left

def works(pool):
    assert pool.map(tasks.double, range(20)) == [2 * i for i in range(20)]

def grow(size):
    return len(bytearray(size))

def grow_or_not(size, value):
    return value if not size else len(bytearray(size))
"""


def run(tmp_path, body, *arguments):
    """A program of its own, as limits are a process's."""
    script = tmp_path / "program.py"
    script.write_text(HEAD.format(here=str(HERE)) + body)
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_descriptors_run_out_while_workers_start(process_method, tmp_path):
    """At each number of free descriptors, from none to enough: it starts, or says so and leaves nothing.

    A forkserver that comes late with all it does, as it shares a core with us and has to stand back: what got lost on
    its way to us has ended all the same by then.
    """
    run(
        tmp_path,
        """
if __name__ == "__main__":
    method = sys.argv[1]
    if method == "forkserver":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        forever = "import signal; signal.alarm(55)\\nwhile True: pass"
        busy = subprocess.Popen([sys.executable, "-c", forever], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with WorkerPool(1, start_method=method) as pool:  # what is kept for the process: its server, imports
        works(pool)
    kept = descendants(os.getpid())
    for late in kept:
        os.setpriority(os.PRIO_PROCESS, late, 10 if late == busy.pid else 19)
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd")) - 1
    top = max(map(int, os.listdir("/proc/self/fd"))) + 1
    fillers = [os.dup(0) for _ in range(max(0, top - open_now))]  # no gaps, so that the limit counts
    failed = started = 0
    pool = WorkerPool(4, start_method=method)
    for free in range(24) if method == "forkserver" else range(0, 40, 1 if method == "fork" else 3):
        names = len(os.listdir("/proc/self/fd"))
        limit(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))) + free)
        try:
            assert pool.map(tasks.double, range(4)) == [0, 2, 4, 6]
            started += 1
        except OSError as error:
            assert error.errno in (errno.EMFILE, errno.ENFILE), error
            failed += 1
        finally:
            limit(resource.RLIMIT_NOFILE, before)
        nothing_left(kept)
        assert len(os.listdir("/proc/self/fd")) == names, free
    assert failed >= 1 and started >= 1, (failed, started)
    works(pool)
    pool.terminate()
    if method == "forkserver":
        busy.kill()
""",
        process_method,
    )


def test_fork_refused_at_each_worker(tmp_path):
    """RLIMIT_NPROC binds whoever isn't root, so a user of our own is taken where we are."""
    if os.getuid() != 0:
        pytest.skip("takes another user")
    os.chmod(tmp_path, 0o755)
    run(
        tmp_path,
        """
if __name__ == "__main__":
    with WorkerPool(1) as pool:  # what that user may not be able to read is imported now
        works(pool)
    os.setresgid(54321, 54321, 54321)
    os.setresuid(54321, 54321, 54321)
    failed = started = 0
    pool = WorkerPool(3)
    for free in range(1, 8):
        limit(resource.RLIMIT_NPROC, free)  # us, the supervisor's thread, and workers
        try:
            works(pool)
            started += 1
        except (OSError, RuntimeError) as error:
            assert getattr(error, "errno", errno.EAGAIN) == errno.EAGAIN, error
            failed += 1
        finally:
            limit(resource.RLIMIT_NPROC, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        nothing_left()
    assert failed >= 2 and started >= 1, (failed, started)
    works(pool)
    pool.terminate()
    nothing_left()
""",
    )


@pytest.mark.parametrize("most", range(1, 6))
def test_fork_refused_at_each_worker_of_a_forkserver(most, tmp_path):
    """It is the server that may not fork: those that it did fork are gone when the pool's start has failed."""
    if os.getuid() != 0:
        pytest.skip("takes another user")
    (tmp_path / "another_user.py").write_text(  # but one that may read what we may: our interpreter lies where it lies
        "import ctypes, os, resource\n"
        f"resource.setrlimit(resource.RLIMIT_NPROC, ({most}, {most}))\n"
        "os.setresuid(54321, 54321, 0)\n"
        "ctypes.CDLL(None).setfsuid(0)\n"
    )
    run(
        tmp_path,
        """
if __name__ == "__main__":
    most = int(sys.argv[1])
    os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))
    pool = WorkerPool(4, start_method="forkserver", preload=["another_user"])
    for again in range(3):
        try:
            works(pool)
            assert most >= 5  # the server is one of them
        except OSError as error:
            assert error.errno == errno.EAGAIN and most < 5, error
            [server] = descendants(os.getpid())
    if 1 < most < 5:
        with WorkerPool(most - 1, start_method="forkserver") as pool:
            works(pool)
""",
        str(most),
    )


def test_a_task_beyond_the_address_space(process_method, tmp_path):
    run(
        tmp_path,
        """
def tighten():
    limit(resource.RLIMIT_AS, 1 << 30)

if __name__ == "__main__":
    with WorkerPool(2, start_method=sys.argv[1], keep_alive=True) as pool:
        todo = [(2 << 30 if i == 3 else 0, i) for i in range(8)]
        found = pool.map(grow_or_not, todo, chunk_size=2, worker_init=tighten, on_error="return")
        assert isinstance(found[3], MemoryError), found[3]
        assert "grow_or_not" in str(found[3].__cause__)
        assert found[:3] + found[4:] == [0, 1, 2, 4, 5, 6, 7]
        assert [worker["restarts"] for worker in pool.stats()] == [0, 0]
    nothing_left(descendants(os.getpid()) if sys.argv[1] == "forkserver" else frozenset())
""",
        process_method,
    )


def test_a_result_beyond_the_address_space(tmp_path):
    """The task had room for it; what carries it home has not."""
    run(
        tmp_path,
        """
def tighten():
    here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit(resource.RLIMIT_AS, here + (96 << 20))

def big(i):
    return bytes(64 << 20) if i == 1 else i

if __name__ == "__main__":
    with WorkerPool(1, keep_alive=True) as pool:
        found = pool.map(big, range(3), chunk_size=1, worker_init=tighten, on_error="return")
        assert found[0] == 0 and found[2] == 2
        assert isinstance(found[1], (MemoryError, bytes)), found[1]
        assert pool.map(big, [0], worker_init=tighten) == [0]
    nothing_left()
""",
    )


def test_the_parent_has_no_address_space(process_method, tmp_path):
    run(
        tmp_path,
        """
if __name__ == "__main__":
    pool = WorkerPool(2, start_method=sys.argv[1])
    works(pool)
    kept = descendants(os.getpid())
    here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    failed = 0
    for more in (0, 64 << 10, 1 << 20, 8 << 20):
        limit(resource.RLIMIT_AS, here + more)
        try:
            pool.map(tasks.double, range(4))
        except (OSError, MemoryError, RuntimeError) as error:
            failed += 1
        finally:
            limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        nothing_left(kept)
    works(pool)
    pool.terminate()
""",
        process_method,
    )


def test_files_may_not_grow(tmp_path):
    """RLIMIT_FSIZE is for files; memory that is a file to the kernel must not end the program by SIGXFSZ."""
    run(
        tmp_path,
        """
if __name__ == "__main__":
    limit(resource.RLIMIT_FSIZE, 1 << 20)
    with WorkerPool(2) as pool:
        try:
            works(pool)
            assert len(pool.map(bytes, [(8 << 20,)])[0]) == 8 << 20
        except (OSError, MemoryError):
            pass
    limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    with WorkerPool(2) as pool:
        works(pool)
    nothing_left()
""",
    )
