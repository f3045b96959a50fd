"""Workers on a terminal: they are part of the job, and what they have started goes with them all the same."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import descendants
from tercio import WorkerPool
from terminal import Terminal

HERE = Path(__file__).parent

ON_A_TERMINAL = """
import getpass, os, subprocess, sys, termios
from tercio import WorkerPool

def program(_):
    return subprocess.run(["stty", "-F", "/dev/tty", "sane"], check=True).returncode

def itself(_):
    with open("/dev/tty", "r+b", buffering=0) as terminal:
        termios.tcsetattr(terminal, termios.TCSANOW, termios.tcgetattr(terminal))
    return 0

def question(_):
    return len(getpass.getpass("say it: "))

def nested(number):
    with WorkerPool(1, start_method=sys.argv[1]) as pool:
        return pool.apply(program, number)

if __name__ == "__main__":
    with WorkerPool(2, start_method=sys.argv[1], daemon=False) as pool:
        n = 1 if sys.argv[2] == "question" else 2  # a question drops what was typed before
        print("result", pool.map(globals()[sys.argv[2]], range(n), chunk_size=1))
"""


@pytest.fixture
def write(tmp_path):
    def script(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        return path

    return script


@pytest.mark.contract("10 terminal")
@pytest.mark.parametrize("how", ["program", "itself", "nested"])
def test_a_task_sets_the_terminal(process_method, how, write):
    with Terminal(write(ON_A_TERMINAL), process_method, how) as terminal:
        terminal.wait_for(lambda lines: "result [0, 0]" in lines)
        assert terminal.finish() == 0


@pytest.mark.contract("10 terminal")
def test_a_task_asks_for_a_password(process_method, write):
    with Terminal(write(ON_A_TERMINAL), process_method, "question") as terminal:
        terminal.wait_for(lambda lines: "say it:" in lines)
        terminal.press(b"abc\n")
        terminal.wait_for(lambda lines: any(line.endswith("result [3]") for line in lines))
        assert terminal.finish() == 0


# A shell with job control: one job, in the foreground or not. Where a job stops, all its processes shall; then `fg`.
SHELL = """
import os, signal, sys, time

signal.signal(signal.SIGTTOU, signal.SIG_IGN)
where, job, *arguments = sys.argv[1:]
shell = os.getpgrp()
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    if where == "foreground":
        os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, job, *arguments])

def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]

_, status = os.waitpid(pid, os.WUNTRACED)
os.tcsetpgrp(0, shell)
assert os.WIFSTOPPED(status), status
with open(os.environ["JOB_PIDS"]) as file:
    workers = file.read().split()
until = time.monotonic() + 20  # against a hang: nobody tells of a grandchild that stops
while any(state(worker) != "T" for worker in workers) and time.monotonic() < until:
    time.sleep(0.01)
print("stopped", *(state(worker) for worker in workers), flush=True)
os.tcsetpgrp(0, pid)
os.killpg(pid, signal.SIGCONT)
_, status = os.waitpid(pid, os.WUNTRACED)
os.tcsetpgrp(0, shell)
print("ended", os.waitstatus_to_exitcode(status))
"""

JOB = """
import os, sys
from tercio import WorkerPool

def work(number):
    with open(os.environ["JOB_GO"], "rb", buffering=0) as file:  # a fifo: until the test lets it go on
        file.read(1)
    return number

def read(number):
    with open("/dev/tty") as terminal:
        return terminal.readline()

if __name__ == "__main__":
    with WorkerPool(2, start_method=sys.argv[1], keep_alive=True) as pool:
        pool.map(abs, [1, 2])
        with open(os.environ["JOB_PIDS"], "w") as file:
            print(*(worker["pid"] for worker in pool.stats()), file=file)
        print("working", flush=True)
        if sys.argv[2] == "work":
            print("result", pool.map(work, range(2), chunk_size=1))
        else:
            print("result", pool.map(read, range(1)))
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The shell and its job; what the job waits for."""
    monkeypatch.setenv("JOB_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("JOB_GO", str(tmp_path / "go"))
    os.mkfifo(tmp_path / "go")
    (tmp_path / "shell.py").write_text(SHELL)
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


@pytest.mark.contract("10 terminal")
def test_a_job_is_stopped_and_goes_on(process_method, job):
    with Terminal(job / "shell.py", "foreground", str(job / "job.py"), process_method, "work") as terminal:
        terminal.wait_for(lambda lines: "working" in lines)
        terminal.press(b"\x1a")  # Ctrl-Z
        terminal.wait_for(lambda lines: any(line.endswith("stopped T T") for line in lines))
        with open(job / "go", "wb", buffering=0) as go:
            go.write(b"!!")
            terminal.wait_for(lambda lines: "ended 0" in lines)
        assert "result [0, 1]" in terminal.lines
        terminal.finish()


@pytest.mark.contract("10 terminal")
def test_a_background_job_that_reads_waits_for_the_foreground(process_method, job):
    with Terminal(job / "shell.py", "background", str(job / "job.py"), process_method, "read") as terminal:
        terminal.wait_for(lambda lines: "stopped T T" in lines)
        terminal.press(b"hello\n")
        terminal.wait_for(lambda lines: "ended 0" in lines)
        assert r"result ['hello\n']" in terminal.lines
        terminal.finish()


INTERRUPTED = """
import os, subprocess, sys
from tercio import WorkerPool

def wait(_):
    os.write(1, b"working" + bytes([10]))  # in one piece
    return subprocess.run(["sleep", "1000"]).returncode

if __name__ == "__main__":
    with WorkerPool(2, start_method=sys.argv[1]) as pool:
        pool.map(abs, range(2))  # imports what it needs: a callback of an import's would swallow the interrupt
    try:
        print("starting", flush=True)
        with WorkerPool(2, start_method=sys.argv[1]) as pool:
            pool.map(wait, range(2), chunk_size=1)
    except KeyboardInterrupt:
        print("caught")
"""


@pytest.mark.contract("10 terminal", "2 SIGINT")
@pytest.mark.parametrize("when", ["starting", "working"])
def test_an_interrupt_typed_is_one_interrupt(process_method, when, write):
    with Terminal(write(INTERRUPTED), process_method) as terminal:
        terminal.wait_for(lambda lines: when in lines)
        terminal.press(b"\x03")
        assert terminal.finish() == 0
        # The terminal drops what it has not shown yet when Ctrl-C is typed, line ends too.
        assert re.fullmatch(r"(starting|working|\^C|\s)*caught\s*", terminal.text), terminal.text


# ---- What a killed worker has started ---------------------------------------------------------------------------


def start(how, path):
    """Start a program, name it to the test, and die, or be killed with nothing that could be done about it."""
    if how == "nested":
        with WorkerPool(1, start_method="fork") as pool:
            pool.apply(start, ("stuck", path))
    sleeper = subprocess.Popen(["sleep", "1000"], start_new_session=how == "left")
    with open(path, "w") as file:
        file.write(str(sleeper.pid))
    if how in ("dies", "left"):
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        select.select([], [], [], 1000)


WITH_CHILDREN = """
import sys
from test_terminal import start
from tercio import WorkerPool

if __name__ == "__main__":
    method, how, path = sys.argv[1:]
    with WorkerPool(1, start_method=method, daemon=False) as pool:
        try:
            pool.apply(start, (how, path), task_timeout=None if how in ("dies", "left") else 1)
        except Exception as error:
            print(type(error).__name__)
        print("next", pool.apply(abs, -1))
"""


@pytest.mark.contract("10 terminal", "10 children")
@pytest.mark.parametrize("how", ["dies", "stuck", "nested"])
@pytest.mark.parametrize("on", ["terminal", "pipe"])
def test_a_killed_workers_programs_go_with_it(process_method, on, how, write, tmp_path):
    path = tmp_path / "pid"
    os.mkfifo(path)
    if on == "terminal":
        with Terminal(write(WITH_CHILDREN), process_method, how, str(path)) as terminal:
            pid = int(path.read_text())
            handle = os.pidfd_open(pid)
            terminal.wait_for(lambda lines: "next 1" in lines)
            assert terminal.finish() == 0
    else:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        with subprocess.Popen(
            [sys.executable, str(write(WITH_CHILDREN)), process_method, how, str(path)], env=environment
        ) as program:
            pid = int(path.read_text())
            handle = os.pidfd_open(pid)
            assert program.wait() == 0
    with open(handle) as ended:
        assert select.select([ended], [], [], 20)[0], "it is still there"


@pytest.mark.contract("10 children")
def test_what_has_left_the_workers_group_stays(process_method, tmp_path):
    path = tmp_path / "pid"
    os.mkfifo(path)
    before = descendants(os.getpid())
    with WorkerPool(1, start_method=process_method) as pool:
        result = pool.apply_async(start, ("left", str(path)))
        pid = int(path.read_text())
        with pytest.raises(RuntimeError):
            result.get()
        assert pool.apply(abs, -1) == 1  # the first one is dead and buried
    os.kill(pid, signal.SIGKILL)  # and was there to be killed
    assert descendants(os.getpid()) == before
