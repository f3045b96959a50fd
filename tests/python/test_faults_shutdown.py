"""The interpreter's end at any stage of a pool; forks of a parent that has threads; nothing is printed twice."""

from __future__ import annotations

import collections
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import as_usual, descendants

HERE = Path(__file__).parent

HEAD = """
import atexit, logging, os, sys, threading, time
sys.path.insert(0, {here!r})
import faults, tasks
from tercio import WorkerPool
METHOD = sys.argv[1] if len(sys.argv) > 1 else "fork"
"""


def run(tmp_path, body, *arguments, code=0):
    script = tmp_path / "program.py"
    script.write_text(HEAD.format(here=str(HERE)) + body)
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        env=as_usual(),
        timeout=50,  # whoever is left behind holds the pipes, and would be noticed by this
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


STAGES = {
    "never used": "pool = WorkerPool(2, start_method=METHOD)",
    "idle": """
pool = WorkerPool(2, start_method=METHOD, keep_alive=True)
assert pool.map(tasks.double, [1]) == [2]
""",
    "lazy map half taken": """
pool = WorkerPool(2, start_method=METHOD)
results = pool.imap(tasks.double, range(100000), chunk_size=10)
assert next(results) == 0
""",
    "lazy map dropped into a cycle": """
pool = WorkerPool(2, start_method=METHOD)
results = pool.imap_unordered(tasks.double, range(100000))
next(results)
cycle = [results, pool]
cycle.append(cycle)
del results, pool, cycle
""",
    "busy": """
pool = WorkerPool(2, start_method=METHOD)
many = [pool.apply_async(faults.slowly, (i, 20)) for i in range(10)]
""",
    "inside with": """
pool = WorkerPool(2, start_method=METHOD).__enter__()
many = [pool.apply_async(tasks.double, i) for i in range(100)]
sys.exit(0)
""",
    "in a daemon thread": """
def work():
    with WorkerPool(2, start_method=METHOD) as pool:
        started.set()
        while True:
            pool.map(tasks.double, range(100), chunk_size=1)
started = threading.Event()
threading.Thread(target=work, daemon=True).start()
started.wait()
time.sleep(0.2)
""",
    "waiting in a daemon thread": """
pool = WorkerPool(2, start_method=METHOD)
result = pool.apply_async(faults.slowly, (1, 20))
threading.Thread(target=result.get, daemon=True).start()
threading.Thread(target=pool.stop_and_join, daemon=True).start()
time.sleep(0.1)
""",
    "in atexit": """
@atexit.register
def last():
    with WorkerPool(2, start_method=METHOD) as pool:
        assert pool.map(tasks.double, range(10)) == [2 * i for i in range(10)]
    print("last")
""",
    "raised": """
pool = WorkerPool(2, start_method=METHOD, keep_alive=True)
pool.map(tasks.double, [1])
os.environ["x"] = "y"
""",
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_end_of_the_interpreter(start_method, stage, tmp_path):
    body = '\nif __name__ == "__main__":\n' + "\n".join("    " + line for line in STAGES[stage].splitlines())
    began = time.monotonic()
    done = run(tmp_path, body, start_method)
    if "thread" not in stage:  # a thread that is caught in the middle may say so
        assert "Traceback" not in done.stderr, done.stderr
    assert "Fatal Python error" not in done.stderr, done.stderr
    if stage == "in atexit":
        assert done.stdout == "last\n"
    assert time.monotonic() - began < 45
    assert not [pid for pid in descendants(os.getpid()) if "program.py" in command(pid)]


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_and_its_workers(process_method, number, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        HEAD.format(here=str(HERE))
        + """
def work(i):
    os.write(1, b"ready\\n")  # in one piece: the other worker writes there too
    time.sleep(60)
if __name__ == "__main__":
    with WorkerPool(2, start_method=METHOD) as pool:
        pool.map(work, range(2))
"""
    )
    with subprocess.Popen(
        [sys.executable, str(script), process_method], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert [program.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        program.send_signal(number)
        _, err = program.communicate(timeout=45)  # the pipes end with the last worker
    assert program.returncode in (-number, 1, 130), err


# ---- Printing --------------------------------------------------------------------------------------------------


def test_nothing_is_printed_twice(start_method, tmp_path):
    done = run(
        tmp_path,
        """
if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.stdout.write("before, without a newline;")  # a pipe is buffered in blocks
    sys.stderr.write("error;")
    kept = open(sys.argv[2], "w")
    kept.write("kept\\n")
    for _ in range(2):
        with WorkerPool(2, start_method=METHOD) as pool:
            sys.stdout.write("during;")
            assert pool.map(faults.print_and_log, range(5), chunk_size=1) == [0, 1, 2, 3, 4]
            pool.stop_and_join()
    sys.stdout.write("after\\n")
""",
        start_method,
        str(tmp_path / "kept"),
    )
    assert done.stdout.count("before, without a newline;") == 1
    assert done.stdout.count("during;") == 2
    assert done.stdout.count("after") == 1
    counted = collections.Counter(re.findall(r"out \d", done.stdout))  # two workers may share a line
    assert counted == {f"out {i}": 2 for i in range(5)}
    assert done.stderr.count("error;") == 1
    assert {i: done.stderr.count(f"err {i}") for i in range(5)} == dict.fromkeys(range(5), 2)
    assert (tmp_path / "kept").read_text() == "kept\n"


def test_fork_among_busy_threads(tmp_path):
    """Threads that log, print, allocate and hold locks at every moment, and a pool that forks among them."""
    done = run(
        tmp_path,
        """
def work(i):
    logging.getLogger("worker").warning("from %d", i)
    print("printed", i)
    lock = threading.Lock()
    thread = threading.Thread(target=lambda: [bytearray(100) for _ in range(100)])
    thread.start()
    thread.join()
    return i

if __name__ == "__main__":
    import warnings
    warnings.simplefilter("ignore", RuntimeWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    logging.basicConfig(level=logging.WARNING)
    stop = threading.Event()
    def noise():
        log = logging.getLogger("noise")
        while not stop.is_set():
            log.warning("x")
            sys.stdout.write("noise\\n")
            list(map(str, range(100)))
            __import__("json").dumps({"a": [1] * 50})
    threads = [threading.Thread(target=noise) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        with WorkerPool(2) as pool:
            assert pool.map(work, range(4), chunk_size=1) == list(range(4))
    stop.set()
    for thread in threads:
        thread.join()
    print("done")
""",
    )
    assert done.stdout.rstrip().endswith("done")
    assert 38 <= done.stdout.count("printed") <= 40  # anybody's noise may stand in a line of theirs
    assert done.stderr.count("WARNING:worker:from") <= 40


def test_a_fork_of_the_application_leaves_the_pool_alone(process_method, tmp_path):
    done = run(
        tmp_path,
        """
import gc
if __name__ == "__main__":
    pool = WorkerPool(2, start_method=METHOD, keep_alive=True)
    assert pool.map(tasks.double, [1]) == [2]
    results = pool.imap(tasks.double, range(100), chunk_size=1)
    assert next(results) == 0
    pid = os.fork()
    if pid == 0:
        try:
            next(results)
        except RuntimeError:
            pass
        else:
            os._exit(2)
        try:
            pool.map(tasks.double, [1])
        except RuntimeError:
            with WorkerPool(2, start_method=METHOD) as other:
                assert other.map(tasks.double, [4]) == [8]
            del results
            pool.terminate()
            del pool
            gc.collect()
            sys.exit(0)
        os._exit(3)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(results) == [2 * i for i in range(1, 100)]
    assert pool.map(tasks.double, [3]) == [6]
    print("once")
    pool.terminate()
""",
        process_method,
    )
    assert done.stdout == "once\n"
