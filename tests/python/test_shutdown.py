"""The end: of a pool that was forgotten, of the interpreter, of a worker that has children."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tasks
from support import descendants
from tercio import WorkerPool

HERE = Path(__file__).parent


def run(body, *arguments, flags=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.run(
        [sys.executable, *flags, "-c", body, *arguments],
        capture_output=True, text=True, timeout=55, check=False, env=environment,
    )  # fmt: skip


@pytest.mark.contract("2 with", "2 terminate")
def test_leaving_the_block_terminates(start_method):
    before = descendants(os.getpid())
    with WorkerPool(2, start_method=start_method, keep_alive=True) as pool:
        pool.map(tasks.double, range(4), chunk_size=1, worker_exit=tasks.exit_constant)
        if start_method != "threading":
            assert descendants(os.getpid()) - before
    assert descendants(os.getpid()) == before
    assert pool.get_exit_results() == []  # only stop_and_join runs exit functions


@pytest.mark.contract("2 start")
def test_workers_start_at_the_first_call_all_of_them(start_method):
    pool = WorkerPool(3, start_method=start_method)
    assert pool.stats() == []
    with pool:
        assert pool.apply(tasks.double, 1) == 2
        assert len(pool.stats()) == 3
        if start_method != "threading":
            pids = {worker["pid"] for worker in pool.stats()}
            assert len(pids) == 3
            assert pids <= descendants(os.getpid())


def test_a_forgotten_pool_is_closed_and_told_of(start_method):
    before = descendants(os.getpid())
    pool = WorkerPool(2, start_method=start_method)
    pool.apply(tasks.double, 1)
    with pytest.warns(ResourceWarning, match="unclosed WorkerPool"):
        del pool
        gc.collect()
    assert descendants(os.getpid()) == before
    with WorkerPool(1) as other:  # what a pool that said no word leaves open is closed with the next one
        other.apply(tasks.double, 1)


FORGOTTEN = """
import sys, tasks
from tercio import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(2, start_method=sys.argv[1], keep_alive=True)
    if sys.argv[2] == "busy":
        pending = [pool.apply_async(tasks.slowly, (1, 0.5)) for _ in range(20)]
    elif sys.argv[2] == "lazy":
        lazy = pool.imap(tasks.slowly, range(1000), chunk_size=1)
        next(lazy)
    else:
        pool.map(tasks.double, range(4))
    print("end")
"""


@pytest.mark.parametrize("state", ["idle", "busy", "lazy"])
def test_the_interpreters_end_is_the_pools(start_method, state):
    done = run(FORGOTTEN, start_method, state, flags=("-W", "default::ResourceWarning"))
    assert done.stdout == "end\n"
    assert done.returncode == 0
    assert "ResourceWarning: unclosed <WorkerPool" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.contract("2 left behind")
@pytest.mark.leaves_threads
@pytest.mark.parametrize("method", ["threading"])
def test_a_thread_that_stays_is_told_of(method):
    lock, entered = threading.Lock(), threading.Event()

    def hold():
        entered.set()
        with lock:
            pass

    with lock, WorkerPool(1, start_method=method) as pool:
        result = pool.apply_async(hold)
        assert entered.wait(20)
        with pytest.warns(RuntimeWarning, match="1 worker thread can't be interrupted and is left behind as daemon"):
            pool.terminate()
        with pytest.raises(RuntimeError, match="Pool was terminated"):
            result.get()


children = []


def start_sleeper(_):
    children.append(subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL))  # or its end would be a warning
    return children[-1].pid


def start_and_die(_):
    pid = start_sleeper(0)
    Path(os.environ["TERCIO_SLEEPER"]).write_text(str(pid))
    os.kill(os.getpid(), signal.SIGKILL)


def start_and_hang(_):
    """Ends by nothing but SIGKILL, like code in C that never comes back."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = start_sleeper(0)
    Path(os.environ["TERCIO_SLEEPER"]).write_text(str(pid))
    time.sleep(50)


@pytest.mark.contract("10 children")
@pytest.mark.parametrize("how", ["dies", "canceled", "terminated"])
def test_children_go_with_a_worker_that_is_killed(process_method, how, tmp_path, monkeypatch):
    from tercio.exception import WorkerDiedError

    monkeypatch.setenv("TERCIO_SLEEPER", str(tmp_path / "pid"))
    os.mkfifo(tmp_path / "pid")
    with WorkerPool(1, start_method=process_method) as pool:
        result = pool.apply_async(start_and_die if how == "dies" else start_and_hang, (1,))
        pid = int((tmp_path / "pid").read_text())
        if how == "dies":
            with pytest.raises(WorkerDiedError):
                result.get()
        elif how == "canceled":
            assert result.cancel()
            with pytest.raises(Exception, match="cancel"):
                result.get()
            assert pool.apply(tasks.double, 1) == 2  # by another one: the first is dead and buried
    wait_for_death(pid)


def wait_for_death(pid):
    """It is killed already, but may need a moment on a busy machine; the test's limit is there against a hang."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(handle) as ended:
        select.select([ended], [], [])


def told(seconds):
    os.kill(os.getpid(), signal.SIGTERM)
    tasks.slowly(1, seconds)


@pytest.mark.contract("2 SIGTERM")
def test_sigterm_fails_what_runs(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        with pytest.raises(RuntimeError, match=r"Worker-\d was killed: it was told to end by SIGTERM"):
            pool.map(told, [20])
        assert pool.apply(tasks.double, 1) == 2


@pytest.mark.contract("2 process")
def test_active_children(process_method):
    import multiprocessing

    before = multiprocessing.active_children()
    with WorkerPool(2, start_method=process_method, daemon=False) as pool:
        pool.apply(tasks.double, 1)
        children = [child for child in multiprocessing.active_children() if child.name.startswith("Worker-")]
        assert [child.name for child in children] == ["Worker-0", "Worker-1"]
        assert [child.pid for child in children] == [worker["pid"] for worker in pool.stats()]
        assert all(child.is_alive() and child.exitcode is None and not child.daemon for child in children)
        children[0].kill()
        children[0].join(20)
        assert not children[0].is_alive()
        assert pool.apply(tasks.double, 2) == 4
        del children
    assert len(multiprocessing.active_children()) == len(before)


EXIT_ORDER = """
import sys, tasks
from tercio import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(2, start_method=sys.argv[1])
    pool.apply(tasks.double, 1)
    import multiprocessing.util  # its end runs before ours
    multiprocessing.active_children()
    pool.apply(tasks.double, 1)
    print("end")
"""


@pytest.mark.contract("2 process")
def test_multiprocessings_end_leaves_ours_to_us(process_method):
    done = run(EXIT_ORDER, process_method, flags=("-W", "ignore::ResourceWarning"))
    assert (done.stderr, done.stdout, done.returncode) == ("", "end\n", 0)


WARNINGS_ARE_ERRORS = """
import atexit, os, sys
from support import descendants

@atexit.register
def last():  # after ours, which is registered later
    print(len(descendants(os.getpid())))

import tasks
from tercio import WorkerPool
if __name__ == "__main__":
    pools = [WorkerPool(2, start_method=sys.argv[1]) for _ in range(2)]
    print(*[pool.apply(tasks.double, 1) for pool in pools])
"""


@pytest.mark.contract("2 with")
def test_forgotten_pools_end_where_warnings_are_errors(process_method):
    done = run(WARNINGS_ARE_ERRORS, process_method, flags=("-W", "error"))
    assert "ResourceWarning: unclosed <WorkerPool n_jobs=2" in done.stderr
    assert (done.stdout, done.returncode) == ("2 2\n0\n", 0)


MAIN_THREAD = """
import _thread, sys
from tercio import WorkerPool

def first(_):  # a worker's or a callback's thread is the first to ask for threading
    import threading

if __name__ == "__main__":
    with WorkerPool(1, start_method=sys.argv[1]) as pool:
        if sys.argv[2] == "task":
            pool.apply(first, (1,))
        else:  # nobody waits for the result, so it runs where it arrives
            lock = _thread.allocate_lock()
            lock.acquire()
            pool.apply_async(abs, (1,), callback=lambda result: (first(result), lock.release()))
            lock.acquire()
    import threading
    print(threading.main_thread().ident == _thread.get_ident())
"""


@pytest.mark.contract("4 callbacks")
@pytest.mark.parametrize("who", ["task", "callback"])
def test_the_main_thread_stays_the_main_one(start_method, who):
    done = run(MAIN_THREAD, start_method, who)
    assert (done.stderr, done.stdout) == ("", "True\n")


STAYS = """
import time
from tercio import WorkerPool

def stay(_):
    time.sleep(600)

if __name__ == "__main__":
    with WorkerPool(1, start_method="threading") as pool:
        try:
            pool.apply(stay, (1,), task_timeout=0.1)
        except TimeoutError:
            print("in time")
"""


@pytest.mark.contract("2 left behind")
def test_a_thread_that_stays_is_not_waited_for_at_exit():
    done = run(STAYS, flags=("-W", "ignore"))
    assert (done.stderr, done.stdout, done.returncode) == ("", "in time\n", 0)


@pytest.mark.contract("10 forked pool")
def test_a_copy_of_the_pool_in_a_fork_does_nothing(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        assert pool.map(tasks.double, [1, 2]) == [2, 4]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                pool.map(tasks.double, [1])
            except RuntimeError as error:
                code = 0 if "fork" in str(error) else 2
            pool.terminate()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.map(tasks.double, [3]) == [6]
