"""Signals while the main thread waits in a pool: handlers run at once, at whatever moment the signal comes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import tasks
from tercio import WorkerPool

ROUNDS = 200 if os.environ.get("TERCIO_LONG") else 20
BOUND = 20  # against a hang

# Without a thread for the limit: it could take a signal in the moment in which the main one holds signals back.
pytestmark = pytest.mark.timeout(120, method="signal")


class Alarmed(Exception):
    """What the handler raises."""


def wait_in_map(pool, task):
    pool.map(task, [1])


def wait_in_imap(pool, task):
    next(pool.imap_unordered(task, [1]))


def wait_for_room(pool, task):
    for _ in pool.imap(task, range(100), chunk_size=1, max_tasks_active=2):
        pass


def wait_in_apply(pool, task):
    pool.apply(task, (1,))


def wait_in_get(pool, task):
    pool.apply_async(task, (1,)).get()


def wait_in_wait(pool, task):
    pool.apply_async(task, (1,)).wait(2 * BOUND)


def wait_for_idle(pool, task):
    pool.apply_async(task, (1,))
    pool.stop_and_join(keep_alive=True)


def wait_for_tasks_at_the_end(pool, task):
    pool.apply_async(task, (1,))
    pool.stop_and_join()


def wait_for_exits(pool, task):
    pool.map(tasks.double, [1], worker_exit=task)


def wait_for_exits_in_join(pool, task):
    pool.set_keep_alive()
    pool.map(tasks.double, [1], worker_exit=task)
    pool.join()


WAITS = [
    wait_in_map,
    wait_in_imap,
    wait_for_room,
    wait_in_apply,
    wait_in_get,
    wait_in_wait,
    wait_for_idle,
    wait_for_tasks_at_the_end,
    wait_for_exits,
    wait_for_exits_in_join,
]


@contextlib.contextmanager
def handled(handler):
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def target():
    return os.getpid(), threading.main_thread().ident


@pytest.mark.contract("2 signals")
@pytest.mark.parametrize("wait", WAITS)
def test_a_handler_that_raises_ends_the_wait(start_method, wait):
    def handler(*_):
        raise Alarmed

    with handled(handler):
        for _ in range(ROUNDS if start_method in ("fork", "threading") else 2):
            with WorkerPool(1, start_method=start_method) as pool:
                began = time.monotonic()
                with pytest.raises(Alarmed):
                    wait(pool, partial(tasks.signal_and_stay, *target(), 2 * BOUND))
                assert time.monotonic() - began < BOUND


@pytest.mark.contract("2 signals")
@pytest.mark.parametrize("wait", WAITS)
def test_a_handler_that_returns_runs_during_the_wait(start_method, wait, tmp_path):
    """The task goes on when the handler has run, so this hangs where the handler runs after the wait."""
    numbers = itertools.count()

    def handler(*_):
        (tmp_path / str(next(numbers))).touch()

    with handled(handler), WorkerPool(1, start_method=start_method) as pool:
        wait(pool, partial(tasks.signal_until_handled, *target(), str(tmp_path)))
    assert next(numbers)


SLOW_START = """
import sys, time
from tercio import WorkerPool

if __name__ == "__main__":
    pool = WorkerPool(2, start_method="forkserver", preload=["imported_slowly"])
    began = time.monotonic()
    try:
        pool.map(abs, [-1])
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < float(sys.argv[1]))
"""
SLOW_IMPORT = """
import os, signal, time

os.kill(os.getppid(), signal.SIGINT)
time.sleep(float({seconds}))
"""


@pytest.mark.contract("2 SIGINT")
def test_an_interrupt_while_the_server_starts(tmp_path):
    (tmp_path / "imported_slowly.py").write_text(SLOW_IMPORT.format(seconds=2 * BOUND))
    done = subprocess.run(
        [sys.executable, "-c", SLOW_START, str(BOUND)],
        capture_output=True, text=True, check=False, timeout=4 * BOUND,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert (done.stderr, done.stdout, done.returncode) == ("", "interrupted True\n", 0)
