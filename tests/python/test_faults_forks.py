"""Forks at any moment of what other threads of the engine do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

BODY = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")  # to fork beside threads is the point
sys.path.insert(0, {here!r})
import tasks
from tercio import WorkerPool

def fork_a_pool():
    with WorkerPool(1, start_method="fork") as pool:
        assert pool.map(tasks.double, [1]) == [2]

def fork_by_hand():
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

def come_and_go():
    # Threads of the engine, whose states the interpreter makes while another thread has its lock.
    while not enough.is_set():
        with WorkerPool(4, start_method="threading") as pool:
            pool.map(tasks.double, range(4))

if __name__ == "__main__":
    how, times = {{"pool": fork_a_pool, "os.fork": fork_by_hand}}[sys.argv[1]], int(sys.argv[2])
    enough = threading.Event()
    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(times):
        how()
    enough.set()
    for thread in threads:
        thread.join()
    print("well")
"""


@pytest.mark.parametrize(("how", "times"), [("pool", 400), ("os.fork", 1500)])
def test_forks_while_threads_come_and_go(how, times, tmp_path):
    """Before 3.12 CPython lets a fork happen while another thread has the lock of its list of thread states: such a
    child waits for ever before it runs its first line."""
    script = tmp_path / "program.py"
    script.write_text(BODY.format(here=str(HERE)))
    times = times * (4 if os.environ.get("TERCIO_LONG") else 1)
    done = subprocess.run(
        [sys.executable, str(script), how, str(times)], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "well\n"
