"""What a worker does with signals: as any child of the program, but for the few that the pool needs."""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tasks
from tercio import WorkerPool

HERE = Path(__file__).parent
BOUND = 40  # seconds, against a hang
# For the stack of a crash, and the C library's own two.
OTHERS = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGRTMIN + 9, 32, 33}


def masks(status):
    """The sets of signals of a process that has such a /proc/PID/status."""
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    found = {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")}
    for number in OTHERS:
        found["SigCgt"] &= ~(1 << (number - 1))
    return found


def own_masks():
    return masks(Path("/proc/self/status").read_text())


def of_a_program(_=0):
    """What a program sees that this process starts."""
    found = masks(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout)
    del found["SigCgt"]
    return found


def of_a_fork(_=0):
    """... and a fork of it, in Python's words too."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 8]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        handlers = {int(number): str(signal.getsignal(number)) for number in numbers}
        os.write(writer, json.dumps([own_masks(), handlers]).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        found = json.load(file)
    os.waitpid(pid, 0)
    return found


def look(_=0):
    return {"program": of_a_program(), "fork": of_a_fork(), "worker": own_masks()}


# ---- Children of tasks ------------------------------------------------------------------------------------------


def fork_and_end(how, number):
    if how == "own handler":
        signal.signal(number, lambda *_: os._exit(7))
    if how == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
        process.start()
        os.kill(process.pid, number)
        process.join(BOUND)
        code = process.exitcode
        process.kill()
        process.join()
        return code
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, b"!")
            while True:
                time.sleep(1000)
        finally:
            os._exit(1)
    if how != "at once":
        os.read(reader, 1)
    os.kill(pid, number)
    os.close(writer)
    if not select.select([reader], [], [], BOUND)[0]:  # its end
        os.kill(pid, signal.SIGKILL)
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.contract("10 Unix child")
@pytest.mark.parametrize("how", ["running", "at once", "multiprocessing"])
def test_what_a_task_forks_ends_by_a_signal(start_method, how):
    with WorkerPool(1, start_method=start_method, daemon=False) as pool:
        for number in (signal.SIGTERM, signal.SIGHUP):
            assert pool.apply(fork_and_end, (how, number)) == -number


@pytest.mark.contract("10 Unix child")
def test_what_a_task_forks_has_the_tasks_own_handler(process_method):
    with WorkerPool(1, start_method=process_method, daemon=False) as pool:
        for number in (signal.SIGTERM, signal.SIGHUP):
            assert pool.apply(fork_and_end, ("own handler", number)) == 7


def inner_pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map_async(time.sleep, [1000, 1000], chunksize=1)
    return "ended"  # by SIGTERM: its workers are in the middle of something


@pytest.mark.contract("10 Unix child")
def test_an_inner_pool_of_multiprocessing_ends(process_method):
    with WorkerPool(1, start_method=process_method, daemon=False) as pool:
        assert pool.apply(inner_pool, task_timeout=BOUND) == "ended"


# ---- What the parent ignores, blocks and handles ----------------------------------------------------------------

AS_ANY_CHILD = """
import json, multiprocessing, signal, sys
from test_signals import look
from tercio import WorkerPool

if __name__ == "__main__":
    method, state = sys.argv[1:]
    if method == "forkserver":
        with WorkerPool(1, start_method=method) as pool:
            pool.apply(abs, 1)  # the server starts before what follows
    if "ignores" in state:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if "blocks" in state:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 8})
    if "handles" in state:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGUSR1, signal.default_int_handler)
    with WorkerPool(1, start_method=method, daemon=False) as pool:
        ours = pool.apply(look)
    # What spawn sees is what a worker of a server sees.
    with multiprocessing.get_context("fork" if method == "fork" else "spawn").Pool(1) as pool:
        theirs = pool.apply(look)
    print(json.dumps([ours, theirs]))
"""


@pytest.mark.contract("10 Unix child")
@pytest.mark.parametrize("state", ["plain", "ignores", "blocks", "handles", "ignores, blocks, handles"])
def test_dispositions_are_those_of_any_child(process_method, state):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", AS_ANY_CHILD, process_method, state],
        capture_output=True, text=True, timeout=BOUND, check=True, env=environment,
    )  # fmt: skip
    ours, theirs = json.loads(done.stdout)
    soft, takes = 1 << (signal.SIGRTMIN + 8 - 1), 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGHUP - 1)
    ends_with_its_parent = 1 << (signal.SIGRTMAX - 1 - 1)
    if "blocks" in state:  # the pool needs it, and programs inherit masks
        theirs["program"]["SigBlk"] &= ~soft
    assert ours["program"] == theirs["program"]
    assert ours["fork"] == theirs["fork"]
    assert ours["worker"]["SigIgn"] == theirs["worker"]["SigIgn"]
    assert ours["worker"]["SigBlk"] == theirs["worker"]["SigBlk"] & ~soft
    differs = ours["worker"]["SigCgt"] ^ theirs["worker"]["SigCgt"]
    assert differs & ~(takes | soft | ends_with_its_parent) == 0


NOHUP = """
import os, signal, sys, tasks
from tercio import WorkerPool

def tell_all(pool, number):
    for worker in pool.stats():
        os.kill(worker["pid"], number)

if __name__ == "__main__":
    with WorkerPool(2, start_method=sys.argv[1]) as pool:
        tasks_ = pool.imap(tasks.slowly, [(i, 0.01) for i in range(40)], chunk_size=1)
        next(tasks_)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            tell_all(pool, number)
        print(len(list(tasks_)))
"""


@pytest.mark.contract("10 Unix child")
def test_under_nohup_a_hangup_fails_nothing(process_method):
    """Nor does a signal that a job system sends to each process, where the program holds it back."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}

    def hold_back():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    done = subprocess.run(
        ["nohup", sys.executable, "-c", NOHUP, process_method],
        capture_output=True, text=True, timeout=BOUND, check=False, env=environment, preexec_fn=hold_back,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("39\n", 0), done.stderr


def blocked(_=0):
    return masks(Path("/proc/thread-self/status").read_text())["SigBlk"]


@pytest.mark.contract("10 Unix child")
def test_replacements_have_the_same_mask(start_method):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        with WorkerPool(1, start_method=start_method) as pool:
            found = pool.map(blocked, range(4), chunk_size=1, worker_lifespan=1)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert set(found) == {sum(1 << (number - 1) for number in {*before, signal.SIGUSR2})}


def test_a_program_that_a_callback_starts_blocks_nothing(start_method):
    found, called = [], threading.Event()

    def start(_):
        found.append(of_a_program())
        called.set()

    with WorkerPool(1, start_method=start_method) as pool:
        pool.apply_async(tasks.double, 1, callback=start)
        assert called.wait(BOUND)  # nobody waits in the pool, so the supervisor calls it
    assert found == [of_a_program()]


def test_signals_of_workers_are_not_the_parents(process_method):
    """An event loop's wakeup descriptor, which a fork inherits, would take them for its own."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        try:
            with WorkerPool(1, start_method=process_method) as pool:
                with pytest.raises(RuntimeError, match="SIGTERM"):
                    pool.apply(end_myself)
                assert pool.apply(tasks.double, 1) == 2
        finally:
            signal.set_wakeup_fd(before)
        assert select.select([ours], [], [], 0)[0] == []


def end_myself():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(BOUND)
