"""What runs at the end of a worker: functions of atexit, finalizers, threads, and what the state held."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from multiprocessing import util
from pathlib import Path

import pytest
import tasks
from support import descendants
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

HERE = Path(__file__).parent


def run(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", str(program), *arguments],
        capture_output=True, text=True, timeout=55, check=False, env=environment,
    )  # fmt: skip


def note(folder, kind):
    with open(os.path.join(folder, kind), "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")


def noted(folder, kind):
    """The processes in which `kind` ran, one entry for each time."""
    try:
        return sorted(map(int, Path(folder, kind).read_text(encoding="utf-8").split()))
    except FileNotFoundError:
        return []


class Owner:
    """Has a finalizer of weakref's, and lives as long as this module."""


owners = []
KINDS = ("atexit", "Finalize", "weakref")


def register(folder):
    """Each way to have something run at the end of this process."""
    atexit.register(note, folder, "atexit")
    util.Finalize(None, note, (folder, "Finalize"), exitpriority=1)
    owners.append(Owner())
    weakref.finalize(owners[-1], note, folder, "weakref")


def register_and_say(folder, _):
    register(folder)
    return os.getpid()


def register_and_stay(folder, begun):
    register(folder)
    Path(begun).write_text(str(os.getpid()), encoding="utf-8")  # a fifo: the test reads it
    signal.pause()


def ends_after_map(pool, folder):
    return pool.map(register_and_say, [(folder, i) for i in range(2)], chunk_size=1)


def ends_joined(pool, folder):
    pids = ends_after_map(pool, folder)
    pool.stop_and_join()
    return pids


def ends_terminated(pool, folder):
    pids = ends_after_map(pool, folder)
    pool.terminate()
    return pids


def ends_busy(pool, folder):
    begun = os.path.join(folder, "begun")
    os.mkfifo(begun)
    result = pool.apply_async(register_and_stay, (folder, begun))
    pid = int(Path(begun).read_text(encoding="utf-8"))
    pool.terminate()
    with pytest.raises(RuntimeError):
        result.get()
    return [pid]


def ends_by_lifespan(pool, folder):
    pids = pool.map(register_and_say, [(folder, i) for i in range(4)], chunk_size=1, worker_lifespan=1)
    pool.stop_and_join()
    return pids


ENDS = {
    "map": ends_after_map,
    "join": ends_joined,
    "terminate": ends_terminated,
    "terminate busy": ends_busy,
    "lifespan": ends_by_lifespan,
}


@pytest.mark.contract("11 exit functions")
@pytest.mark.parametrize("end", ENDS)
def test_what_a_task_registers_runs_once_at_the_end_of_its_worker(process_method, end, tmp_path):
    folder = str(tmp_path)
    with WorkerPool(2, start_method=process_method, keep_alive=end != "map") as pool:
        pids = ENDS[end](pool, folder)
    assert len(pids) == {"terminate busy": 1, "lifespan": 4}.get(end, 2)
    for kind in KINDS:
        assert noted(folder, kind) == sorted(pids), kind


@pytest.mark.contract("11 exit functions")
def test_the_workers_of_a_dropped_pool_end_as_others_do(process_method, tmp_path):
    pool = WorkerPool(2, start_method=process_method, keep_alive=True)
    pids = ends_after_map(pool, str(tmp_path))
    with pytest.warns(ResourceWarning, match="unclosed"):
        del pool
        gc.collect()
    for kind in KINDS:
        assert noted(tmp_path, kind) == sorted(pids), kind
    with WorkerPool(1, start_method=process_method) as other:  # it closes what a dropped pool leaves open
        other.apply(tasks.double, 1)


PARENT = """
import sys
import test_ending
from tercio import WorkerPool

def square(x):
    return x * x

if __name__ == "__main__":
    test_ending.register(sys.argv[2])
    folder = test_ending.tempfile.TemporaryDirectory()
    for lifespan in (None, 1):
        with WorkerPool(2, start_method=sys.argv[1]) as pool:
            pool.map(square, range(4), chunk_size=1, worker_lifespan=lifespan)
            pool.apply(square, 1)
    print(test_ending.os.getpid(), test_ending.os.path.isdir(folder.name), folder.name)
"""


@pytest.mark.contract("11 exit functions")
def test_what_the_parent_registers_runs_in_the_parent_alone(process_method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PARENT, encoding="utf-8")
    done = run(program, process_method, str(tmp_path))
    assert (done.stderr, done.returncode) == ("", 0)
    pid, there, folder = done.stdout.split()
    assert there == "True"
    assert not os.path.exists(folder)
    for kind in KINDS:
        assert noted(tmp_path, kind) == [int(pid)], kind


class Resource:
    """Something that a destructor ends."""

    def __init__(self, folder):
        self.folder = folder

    def __del__(self):
        note(self.folder, "destructor")


def keep_in_state(state, folder, _):
    state["resource"] = Resource(folder)
    state["folder"] = tempfile.TemporaryDirectory()
    return os.getpid(), state["folder"].name


@pytest.mark.contract("11 exit functions")
@pytest.mark.parametrize("end", ["map", "join", "terminate"])
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_what_the_state_holds_goes_with_its_worker(start_method, end, tmp_path):
    with WorkerPool(2, start_method=start_method, use_worker_state=True, keep_alive=end != "map") as pool:
        found = pool.map(keep_in_state, [(str(tmp_path), i) for i in range(2)], chunk_size=1)
        if end == "join":
            pool.stop_and_join()
    assert noted(tmp_path, "destructor") == sorted(pid for pid, _ in found)
    assert [folder for _, folder in found if os.path.exists(folder)] == []


def start_thread(folder, _):
    release = threading.Event()

    def work():
        release.wait(50)
        note(folder, "thread")

    threading.Thread(target=work).start()
    atexit.register(note, folder, "after the threads")
    # The main thread is over when it waits for the others: nothing else sets this.
    threading.Thread(target=lambda: (threading.main_thread().join(), release.set()), daemon=True).start()
    return os.getpid()


@pytest.mark.contract("11 exit functions")
def test_a_worker_waits_for_its_threads(process_method, tmp_path):
    with WorkerPool(1, start_method=process_method) as pool:
        (pid,) = pool.map(start_thread, [(str(tmp_path), 0)])
    assert noted(tmp_path, "thread") == noted(tmp_path, "after the threads") == [pid]


def register_hang(how, value):
    if how == "atexit":
        atexit.register(time.sleep, 600)
    elif how == "stubborn":  # no signal but one ends it
        atexit.register(signal.pthread_sigmask, signal.SIG_SETMASK, range(1, signal.NSIG))
        atexit.register(time.sleep, 600)
    else:
        threading.Thread(target=time.sleep, args=(600,)).start()
    return value * 2


@pytest.mark.contract("11 exit functions")
@pytest.mark.parametrize("how", ["atexit", "thread"])
def test_an_end_that_hangs_is_cut_short_and_nothing_is_lost(process_method, how):
    before = descendants(os.getpid())
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        assert pool.map(register_hang, [(how, i) for i in range(2)], chunk_size=1, worker_exit=os.getpid) == [0, 2]
        with pytest.warns(RuntimeWarning, match=r"Worker-0, Worker-1 were killed: what a worker runs at its end"):
            pool.stop_and_join()
        assert len(set(pool.get_exit_results())) == 2
        assert descendants(os.getpid()) == before
        assert pool.map(tasks.double, [1, 2]) == [2, 4]


@pytest.mark.contract("2 terminate", "11 exit functions")
def test_terminate_waits_for_an_end_that_hangs_as_for_a_task(process_method):
    before = descendants(os.getpid())
    with WorkerPool(1, start_method=process_method, keep_alive=True) as pool:
        assert pool.map(register_hang, [("stubborn", 1)]) == [2]
        began = time.monotonic()
        pool.terminate()
        assert time.monotonic() - began < 30
    assert descendants(os.getpid()) == before


FAILS = """
import atexit, os, sys
from multiprocessing import util
from tercio import WorkerPool

def register(value):
    atexit.register(int, "neither here")
    util.Finalize(None, int, ("nor there",), exitpriority=1)
    return value * 2

if __name__ == "__main__":
    with WorkerPool(1, start_method=sys.argv[1]) as pool:
        print(pool.map(register, [1, 2], worker_exit=os.getpid, chunk_size=2), len(pool.get_exit_results()))
"""


@pytest.mark.contract("11 exit functions")
def test_an_end_that_fails_is_printed_and_harms_nothing(process_method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FAILS, encoding="utf-8")
    done = run(program, process_method)
    assert (done.stdout, done.returncode) == ("[2, 4] 1\n", 0)
    assert done.stderr.count("invalid literal for int() with base 10: 'neither here'") == 2
    assert done.stderr.count("invalid literal for int() with base 10: 'nor there'") == 2


WORDS = """
import atexit, logging, sys
import tercio

def say(words):
    print(words)
    logging.getLogger("ending").warning(words)

def register(value):
    atexit.register(say, f"last words {value}")

if __name__ == "__main__":
    tercio.enable_worker_logging()
    logging.basicConfig(format="%(name)s %(message)s", stream=sys.stderr)
    with tercio.WorkerPool(1, start_method=sys.argv[1]) as pool:
        pool.map(register, [1, 2])
    logging.getLogger("ending").warning("the end")
"""


@pytest.mark.contract("11 exit functions", "10 output")
def test_what_is_printed_and_logged_at_the_end_arrives(process_method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(WORDS, encoding="utf-8")
    done = run(program, process_method)
    assert sorted(done.stdout.splitlines()) == ["last words 1", "last words 2"]
    lines = done.stderr.splitlines()
    assert sorted(lines[:-1]) == ["ending last words 1", "ending last words 2"]
    assert lines[-1] == "ending the end"


def use_shared(shared, folder):
    note(folder, f"shared {shared['value']}")


def register_use_of_shared(shared, folder):
    atexit.register(use_shared, shared, folder)
    return os.getpid()


@pytest.mark.contract("11 exit functions", "2 arguments")
def test_shared_objects_are_there_until_the_end(process_method, tmp_path):
    with WorkerPool(1, start_method=process_method, shared_objects={"value": 5}) as pool:
        (pid,) = pool.map(register_use_of_shared, [str(tmp_path)])
    assert noted(tmp_path, "shared 5") == [pid]


def register_slow(folder, _):
    atexit.register(note, folder, "slow")
    atexit.register(time.sleep, 1)
    return os.getpid()


@pytest.mark.contract("3 exit_timeout", "11 exit functions")
def test_the_limit_of_worker_exit_is_that_of_worker_exit_alone(process_method, tmp_path):
    with WorkerPool(1, start_method=process_method) as pool:
        (pid,) = pool.map(register_slow, [(str(tmp_path), 0)], worker_exit=tasks.exit_constant, worker_exit_timeout=0.5)
    assert noted(tmp_path, "slow") == [pid]


def register_and_die(folder, _):
    register(folder)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.contract("11 exit functions")
def test_a_killed_worker_runs_nothing_more(process_method, tmp_path):
    with WorkerPool(1, start_method=process_method) as pool, pytest.raises(WorkerDiedError):
        pool.map(register_and_die, [(str(tmp_path), 0)])
    for kind in KINDS:
        assert noted(tmp_path, kind) == []
