"""Limits of tasks, init and exit functions: soft, then hard. Of the clock only a bound against a hang is asked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
import tasks
from tercio import WorkerPool
from tercio.exception import TimeoutError as PoolTimeoutError


def sleep_long(*_):
    time.sleep(50)


def loop_long(*_):
    while True:
        pass


def lock_long(*_):
    lock = threading.Lock()
    with lock:
        lock.acquire(timeout=50)


def stuck(*_):
    """As code in C that never comes back: no signal gets through to Python."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(50)


def swallow(*_):
    try:
        time.sleep(50)
    except Exception:  # what everybody writes; it is no reason to stay
        time.sleep(50)


@pytest.mark.contract("3 task_timeout", "3 usable")
@pytest.mark.leaves_threads
@pytest.mark.parametrize("func", [sleep_long, loop_long, lock_long, swallow])
def test_what_runs_is_interrupted(start_method, func):
    if start_method == "threading" and func is not loop_long:
        pytest.skip("one case in which a thread stays is enough: test_errors.test_task_timeout")
    with WorkerPool(1, start_method=start_method, keep_alive=True) as pool:
        pool.apply(tasks.double, 1)
        with pytest.raises(PoolTimeoutError, match=r"Worker-0 task timed out \(timeout=0.1\)") as caught:
            pool.map(func, [1], task_timeout=0.1)
        assert isinstance(caught.value, multiprocessing.TimeoutError)
        assert isinstance(caught.value, TimeoutError)
        result = pool.apply_async(func, (1,), task_timeout=0.1)
        with pytest.raises(TimeoutError, match="task timed out"):
            result.get(45)
        assert pool.apply(tasks.double, 4) == 8


@pytest.mark.contract("3 task_timeout")
def test_a_stopped_worker_that_takes_no_task_is_replaced(process_method):
    with WorkerPool(1, start_method=process_method, keep_alive=True) as pool:
        pid = pool.apply(tasks.where_am_i, 1)
        while pool.stats()[0]["state"] != "wait":
            pass
        os.kill(pool.stats()[0]["pid"], signal.SIGSTOP)
        assert pool.apply(tasks.where_am_i, 1, task_timeout=0.1) != pid
        assert pool.stats()[0]["restarts"] == 1


def dawdle(*_):
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass


class Slow:
    __del__ = dawdle


def collected_then_loop(has_callback):
    """What is raised in either is printed and lost: the interruption falls there."""
    thing = threading.Event() if has_callback else Slow()
    ref = weakref.ref(thing, dawdle if has_callback else None)
    del thing
    assert ref() is None
    while True:
        pass


@pytest.mark.contract("3 task_timeout")
@pytest.mark.parametrize("has_callback", [True, False])
def test_an_interruption_is_not_lost_where_what_is_raised_is(process_method, has_callback, capfd):
    with WorkerPool(1, start_method=process_method, keep_alive=True) as pool:
        with pytest.raises(TimeoutError, match="task timed out"):
            pool.map(collected_then_loop, [has_callback], task_timeout=0.1)
        assert pool.apply(tasks.double, 4) == 8
        assert pool.stats()[0]["restarts"] == 0
    assert capfd.readouterr().err == ""


@pytest.mark.contract("3 stuck in C")
def test_what_does_not_listen_is_killed_and_replaced(process_method):
    with WorkerPool(1, start_method=process_method, keep_alive=True) as pool:
        before = pool.apply(tasks.where_am_i, 1)
        with pytest.raises(TimeoutError, match="task timed out"):
            pool.map(stuck, [1], task_timeout=0.5)  # long enough for it to have shut its ears by then
        assert pool.apply(tasks.where_am_i, 1) != before
        assert pool.stats()[0]["restarts"] >= 1


@pytest.mark.contract("3 init_timeout", "3 usable")
@pytest.mark.leaves_threads
def test_an_init_that_takes_too_long(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        with pytest.raises(TimeoutError, match=r"Worker-\d worker_init timed out \(timeout=0.1\)"):
            pool.map(tasks.double, range(4), worker_init=sleep_long, worker_init_timeout=0.1)
        assert pool.map(tasks.double, [1], worker_init_timeout=20) == [2]


@pytest.mark.contract("3 exit_timeout", "3 usable")
@pytest.mark.leaves_threads
def test_an_exit_that_takes_too_long(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        with pytest.raises(TimeoutError, match=r"Worker-\d worker_exit timed out \(timeout=0.1\)"):
            pool.map(tasks.double, range(4), worker_exit=sleep_long, worker_exit_timeout=0.1)
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("2 keep_alive")
def test_other_limits_do_not_restart_kept_workers(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        pool.map(tasks.double, range(4), worker_init_timeout=30)
        pids = [worker["pid"] for worker in pool.stats()]
        pool.map(tasks.double, range(4), worker_init_timeout=40, worker_exit_timeout=20)
        assert [worker["pid"] for worker in pool.stats()] == pids
        pool.map(tasks.double, range(4), worker_exit_timeout=0.1)
        with pytest.warns(RuntimeWarning, match="worker_exit changed"):
            pool.map(tasks.double, range(20), chunk_size=1, worker_exit=sleep_long, worker_exit_timeout=0.1)
        with pytest.raises(TimeoutError, match="worker_exit timed out"):
            pool.stop_and_join()


@pytest.mark.contract("3 task_timeout")
def test_time_enough(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        assert pool.map(tasks.slowly, [(i, 0.001) for i in range(20)], task_timeout=30) == list(range(20))
        results = pool.map(tasks.slowly, [(0, 0), (1, 0)], task_timeout=30, on_error="return")
        assert results == [0, 1]


@pytest.mark.contract("3 task_timeout")
def test_a_limit_is_not_used_up_by_the_task_before(start_method):
    """What is quick shares looks at the clock; what has a limit begins at its own beginning."""
    with WorkerPool(1, start_method=start_method, keep_alive=True) as pool:
        assert pool.map(abs, range(500), chunk_size=1) == list(range(500))
        slow = pool.apply_async(time.sleep, (1.5,))
        limited = pool.apply_async(time.sleep, (0.2,), task_timeout=1.4)  # there to be looked at when it begins
        limited.get(timeout=60)
        slow.get(timeout=60)


IMPORTS = """
import _imp, sys, warnings
warnings.simplefilter("ignore")
from tercio import WorkerPool

def imports(name):
    while True:
        sys.modules.pop(name, None)
        try:
            __import__(name)
        except Exception:  # an interruption is none
            pass

def can_import(name):
    sys.modules.pop(name, None)
    return bool(__import__(name))

if __name__ == "__main__":
    names = ["colorsys", "tabnanny", "sched"]
    for _ in range(int(sys.argv[2])):
        with WorkerPool(3, start_method=sys.argv[1], keep_alive=True) as pool:
            for _ in range(3):
                try:
                    pool.map(imports, names, chunk_size=1, task_timeout=0.02)
                except TimeoutError:
                    pass
                assert pool.map(can_import, ["fractions", "graphlib", "bisect"], chunk_size=1) == [True] * 3
        sys.modules.pop("colorsys", None)
        import colorsys
    assert not _imp.lock_held()
    print("well")
"""


@pytest.mark.parametrize("method", ["fork", "threading"])
def test_an_interrupted_import_keeps_no_lock(method, tmp_path):
    """importlib takes a lock and then enters the try that gives it back: what is raised between the two leaves it
    taken, and everybody else would wait for it at the next import."""
    script = tmp_path / "program.py"
    script.write_text(IMPORTS)
    done = subprocess.run(
        [sys.executable, str(script), method, "40"], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "well\n"


def fail_or_stay(how):
    if how:
        raise ValueError(how)
    while True:
        pass


@pytest.mark.contract("3 usable")
@pytest.mark.parametrize("ends", ["a failure", "a limit", "closing"])
def test_a_call_that_ended_leaves_no_worker_busy(start_method, ends):
    """Kept workers are free for the next call, whatever the one before was still running."""
    with WorkerPool(2, start_method=start_method, keep_alive=True) as pool:
        for _ in range(3):
            if ends == "a failure":
                with pytest.raises(ValueError, match="now"):
                    pool.map(fail_or_stay, ["", "now"], chunk_size=1)
            elif ends == "a limit":
                with pytest.raises(TimeoutError):
                    pool.map(fail_or_stay, ["", ""], chunk_size=1, task_timeout=0.02)
            else:
                lazy = pool.imap_unordered(fail_or_stay, ["", "now"], chunk_size=1, on_error="return")
                assert isinstance(next(lazy), ValueError)
                lazy.close()
            assert pool.map(tasks.double, range(4), chunk_size=1) == [0, 2, 4, 6]
