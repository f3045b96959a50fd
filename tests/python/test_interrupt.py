"""Ctrl-C at any moment: KeyboardInterrupt once in the parent, not a word from workers, nothing left."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import descendants
from tercio import WorkerPool

HERE = Path(__file__).parent
ROUNDS = 100 if os.environ.get("TERCIO_LONG") else 10
BOUND = 50 if os.environ.get("TERCIO_LONG") else 30

# What runs is interrupted and starts again, so that any moment may be hit: starting, working, ending.
PROGRAM = """
import itertools, os, sys, time, warnings
import tasks
from support import descendants
from tercio import WorkerPool

method, rounds = sys.argv[1], int(sys.argv[2])
warnings.simplefilter("ignore")  # a thread in time.sleep stays behind, and fork tells of it

def say(text):
    os.write(1, (text + chr(10)).encode())

def map_long(pool):
    pool.map(tasks.slowly, [(i, 0.01) for i in range(100000)], chunk_size=1)

def map_short(pool):
    pool.map(tasks.double, range(100000))

def imap(pool):
    for _ in pool.imap_unordered(tasks.slowly, ((i, 0.001) for i in itertools.count()), chunk_size=2):
        pass

def apply(pool):
    for i in itertools.count():
        results = [pool.apply_async(tasks.slowly, (i, 0.002)) for _ in range(10)]
        assert [result.get() for result in results] == [i] * 10

def start_and_stop(pool):
    while True:
        pool.map(tasks.double, range(4), chunk_size=1)

kinds = [map_long, imap, apply, start_and_stop, map_short]

if __name__ == "__main__":
    with WorkerPool(1, start_method=method) as pool:
        pool.map(abs, [1])  # the forkserver lives as long as this process
    there = descendants(os.getpid()) if method == "forkserver" else set()
    for number in range(rounds):
        kind = kinds[number % len(kinds)]
        try:
            say("ready " + kind.__name__)
            while True:
                with WorkerPool(2, start_method=method) as pool:
                    kind(pool)
        except KeyboardInterrupt:
            pass
        began = time.monotonic()
        left = descendants(os.getpid()) - there
        say(f"caught {sorted(left)}")
        sys.stdin.readline()
"""


def line(program, what):
    readable, _, _ = select.select([program.stdout], [], [], BOUND)
    if not readable:
        program.send_signal(signal.SIGABRT)
        raise AssertionError(f"it hangs where it should be {what}: {program.communicate()[1].decode()}")
    text = os.read(program.stdout.fileno(), 4096).decode()
    assert text.startswith(what), text + program.communicate()[1].decode()
    return text


@pytest.mark.contract("2 SIGINT")
@pytest.mark.timeout(600)
def test_interrupts_at_random_moments(start_method):
    moments = random.Random(os.environ.get("TERCIO_SEED", random.randrange(10**6)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, start_method, str(ROUNDS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True,
    ) as program:  # fmt: skip
        try:
            for _ in range(ROUNDS):
                line(program, "ready")
                select.select(
                    [program.stdout], [], [], moments.choice([0, 0.001, 0.01, 0.05, 0.2]) * moments.random() * 2
                )
                os.killpg(program.pid, signal.SIGINT)
                assert line(program, "caught") == "caught []\n"
                program.stdin.write(b"\n")
                program.stdin.flush()
            _, errors = program.communicate(timeout=BOUND)
        finally:
            program.kill()
    assert errors.decode() == ""
    assert program.returncode == 0


INTERRUPTED = """
import os, sys
from tercio import WorkerPool

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "gc":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), 2)

class Stream:
    def __init__(self, stream, number):
        self.stream, self.number = stream, number
        self.write = stream.write

    def flush(self):
        self.number -= 1
        if self.number == 0:
            os.kill(os.getpid(), 2)
        self.stream.flush()

if __name__ == "__main__":
    if sys.argv[2] == "import":
        sys.meta_path.insert(0, Finder())
    else:
        sys.stdout = Stream(sys.stdout, int(sys.argv[2]))
    try:
        with WorkerPool(3, start_method="fork") as pool:
            pool.map(abs, [1])
        print("lost", file=sys.__stdout__)
    except KeyboardInterrupt:
        print("caught", file=sys.__stdout__)
"""


@pytest.mark.contract("2 SIGINT")
@pytest.mark.parametrize("moment", ["import", "1", "2", "3", "4"])
def test_an_interrupt_between_two_forks(moment):
    """What is imported and flushed before a fork runs the handler of a signal, too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "fork", moment],
        capture_output=True, text=True, timeout=BOUND, env=environment, check=False,
    )  # fmt: skip
    assert (done.stderr, done.stdout, done.returncode) == ("", "caught\n", 0)


ENDS = """
import sys, tasks
from tercio import WorkerPool

if __name__ == "__main__":
    with WorkerPool(2, start_method=sys.argv[1]) as pool:
        print("ready", flush=True)
        pool.map(tasks.slowly, [(i, 0.01) for i in range(100000)], chunk_size=1)
"""


@pytest.mark.contract("2 SIGINT")
def test_an_interrupted_program_shows_one_traceback(start_method, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(ENDS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    with subprocess.Popen(
        [sys.executable, str(script), start_method],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True,
    ) as program:  # fmt: skip
        try:
            line(program, "ready")
            os.killpg(program.pid, signal.SIGINT)
            _, errors = program.communicate(timeout=BOUND)
        finally:
            program.kill()
    shown = errors.decode()
    assert shown.count("KeyboardInterrupt") == shown.count("Traceback") == 1, shown
    assert program.returncode == -signal.SIGINT


def interrupt_the_end(parent, begun):
    """Stay until the pool asks for the end, have the parent interrupted then, and end by nothing but SIGKILL."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    Path(begun).write_text("begun", encoding="utf-8")
    signal.sigwait(signal.valid_signals())
    os.kill(parent, signal.SIGINT)
    while True:
        signal.sigwait(signal.valid_signals())


@pytest.mark.contract("2 SIGINT", "2 terminate")
@pytest.mark.parametrize("end", ["terminate", "with", "exception"])
def test_an_interrupt_within_the_grace_comes_when_the_workers_are_gone(process_method, end, tmp_path):
    """The grace bounds the wait, and no worker is left."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    before = descendants(os.getpid())
    with pytest.raises(KeyboardInterrupt), WorkerPool(1, start_method=process_method) as pool:
        pool.apply_async(interrupt_the_end, (os.getpid(), str(begun)))
        assert begun.read_text(encoding="utf-8") == "begun"
        if end == "terminate":
            pool.terminate()
            pytest.fail("the interrupt got lost")
        if end == "exception":
            raise ValueError("no good")
    assert descendants(os.getpid()) == before
