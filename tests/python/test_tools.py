"""Tools that watch a program, and its workers with it: coverage.py, faulthandler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tasks
from tercio import WorkerPool

HERE = Path(__file__).parent


def run(folder, *command, **environment):
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, timeout=55, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )  # fmt: skip


def program_in(folder, body):
    Path(folder, "program.py").write_text(body, encoding="utf-8")


# ---- coverage.py ------------------------------------------------------------------------------------------------

MEASURED = """\
import sys
from tercio import WorkerPool

def task(value):
    doubled = value * 2
    return doubled

def more(value):
    tripled = value * 3
    return tripled

def use(pool, end):
    assert pool.map(task, range(4), chunk_size=1) == [0, 2, 4, 6]
    assert pool.apply(more, 2) == 6
    if end == "join":
        pool.stop_and_join()

if __name__ == "__main__":
    method, end = sys.argv[1:]
    with WorkerPool(2, start_method=method, keep_alive=True) as pool:
        use(pool, end)
"""
BY_WORKERS = {5, 6, 9, 10}
WAYS = {
    "concurrency": ("concurrency = multiprocessing,thread\n", {}),
    "subprocess": ("patch = subprocess\n", {}),
    "fork": ("patch = subprocess,fork,_exit\n", {}),
    "fork alone": ("patch = fork\n", {}),
    "_exit alone": ("patch = _exit\n", {}),
    "sys.monitoring": ("concurrency = multiprocessing,thread\n", {"COVERAGE_CORE": "sysmon"}),
    "sys.settrace": ("concurrency = multiprocessing,thread\n", {"COVERAGE_CORE": "pytrace"}),
}
MEASURES_FRESH = ("concurrency", "subprocess", "fork", "sys.monitoring", "sys.settrace")


def lines_run(folder, method, end, way):
    """The lines of the program that coverage.py has counted, in all of its processes."""
    settings, environment = WAYS[way]
    Path(folder, "settings.ini").write_text(f"[run]\nparallel = true\nsource = .\n{settings}", encoding="utf-8")
    program_in(folder, MEASURED)
    coverage = ("-m", "coverage")
    done = run(folder, *coverage, "run", "--rcfile=settings.ini", "program.py", method, end, **environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    for command in (("combine", "-q"), ("json", "-q", "-o", "report.json")):
        done = run(folder, *coverage, *command, "--rcfile=settings.ini")
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
    return set(report["files"]["program.py"]["executed_lines"])


def has_patches():
    import coverage

    return coverage.version_info >= (7, 11)


@pytest.mark.contract("11 tools")
@pytest.mark.parametrize("way", WAYS)
def test_coverage_counts_what_workers_run(start_method, way, tmp_path):
    pytest.importorskip("coverage")
    if WAYS[way][0].startswith("patch") and not has_patches():
        pytest.skip("this coverage.py has no such patches")
    if way == "sys.monitoring" and sys.version_info < (3, 12):
        pytest.skip("this Python has no sys.monitoring")
    counted = lines_run(tmp_path, start_method, "join", way) & BY_WORKERS
    assert counted == (BY_WORKERS if start_method in ("fork", "threading") or way in MEASURES_FRESH else set())


@pytest.mark.contract("11 tools")
@pytest.mark.parametrize("way", ["concurrency", "subprocess"])
def test_coverage_counts_what_terminated_workers_ran(process_method, way, tmp_path):
    pytest.importorskip("coverage")
    if way == "subprocess" and not has_patches():
        pytest.skip("this coverage.py has no such patches")
    assert lines_run(tmp_path, process_method, "terminate", way) >= BY_WORKERS


PATCHED = """
import multiprocessing.process as process, os, sys
from multiprocessing import spawn

def note(what):
    with open("notes", "a") as file:
        file.write(f"{what} {os.getpid()}\\n")

original, get_data = process.BaseProcess._bootstrap, spawn.get_preparation_data

def bootstrap(self, *arguments, **keywords):
    note(f"{self.name} begins in")
    try:
        if how == "raises":
            raise RuntimeError("the patch fails")
        return original(self, *arguments, **keywords)
    finally:
        note("ends in")

class Patch:
    def __reduce__(self):
        return patch, (how,)

def data_with_patch(name):
    return {**get_data(name), "a patch": Patch()}

def patch(given):
    global how
    how = given
    process.BaseProcess._bootstrap = bootstrap
    spawn.get_preparation_data = data_with_patch
"""
USES_PATCHED = """
import os, sys
from tercio import WorkerPool

def where(_):
    import multiprocessing
    parent = multiprocessing.parent_process()
    return os.getpid(), multiprocessing.current_process().name, parent.pid, parent.is_alive(), sys.stdin.read()

if __name__ == "__main__":
    import multiprocessing
    import patched
    patched.patch(sys.argv[2])
    with WorkerPool(1, start_method=sys.argv[1]) as pool:
        ((pid, *facts),) = pool.map(where, [1])
        assert facts == ["Worker-0", os.getpid(), True, ""], facts
    print(pid, open("notes").read().split("\\n") == [f"Worker-0 begins in {pid}", f"ends in {pid}", ""])
    multiprocessing.set_start_method("spawn")  # the pool has left that open
"""


@pytest.mark.contract("11 tools", "2 process")
@pytest.mark.parametrize("how", ["works", "raises"])
def test_a_worker_goes_through_what_is_patched_into_multiprocessing(process_method, how, tmp_path):
    program_in(tmp_path, USES_PATCHED)
    Path(tmp_path, "patched.py").write_text(PATCHED, encoding="utf-8")
    done = run(tmp_path, "program.py", process_method, how)
    assert ("the patch fails" in done.stderr) == (how == "raises")
    assert done.stdout.split()[1:] == ["True"], done.stderr
    assert done.returncode == 0


# ---- Hooks of threading -----------------------------------------------------------------------------------------


@pytest.mark.contract("11 tools")
@pytest.mark.parametrize("hook", ["trace", "profile"])
@pytest.mark.parametrize("method", ["threading"])
def test_a_worker_thread_has_the_hooks_of_threading(method, hook):
    seen = set()

    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_name == "double":
            seen.add(threading.current_thread().name)
        return watch

    def set_hook(function):
        getattr(threading, f"set{hook}")(function)

    before = getattr(threading, f"_{hook}_hook")
    set_hook(watch)
    try:
        with WorkerPool(2, start_method=method) as pool:
            assert pool.map(tasks.double, range(4), chunk_size=1) == [0, 2, 4, 6]
    finally:
        set_hook(before)
    assert seen == {"Worker-0", "Worker-1"}


# ---- faulthandler -----------------------------------------------------------------------------------------------

CRASHES = """
import faulthandler, os, signal, sys
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

def crash_here(how):
    if how == "in the worker":
        faulthandler.enable(open("crash", "w"))
    elif how == "and off again":
        faulthandler.enable(open("crash", "w"))
        faulthandler.disable()
    if how == "of the stack":
        faulthandler._stack_overflow()
    elif how == "by abort":
        os.abort()
    else:
        faulthandler._sigsegv()

if __name__ == "__main__":
    method, how = sys.argv[1:]
    if how == "in the parent":
        faulthandler.enable(open("crash", "w"))
    before = faulthandler.is_enabled()
    with WorkerPool(1, start_method=method) as pool:
        for _ in range(2):  # the second one in a replacement
            try:
                pool.apply(crash_here, how)
            except WorkerDiedError as error:
                assert "Fatal Python error" in error.stack and "in crash_here" in error.stack, error.stack
                assert error.signal == (signal.SIGABRT if how == "by abort" else signal.SIGSEGV), error.signal
                print("died")
    assert faulthandler.is_enabled() == before
"""


def crash(folder, method, how, *flags):
    program_in(folder, CRASHES)
    done = run(folder, *flags, "program.py", method, how)
    assert (done.stdout, done.returncode) == ("died\ndied\n", 0), done.stderr
    return done.stderr


@pytest.mark.contract("11 tools")
@pytest.mark.parametrize("how", ["plain", "by abort", "of the stack", "and off again"])
def test_a_crash_has_its_stack_in_the_error(process_method, how, tmp_path):
    assert crash(tmp_path, process_method, how) == ""


@pytest.mark.contract("11 tools")
def test_a_crash_goes_where_the_worker_asked_as_well(process_method, tmp_path):
    assert crash(tmp_path, process_method, "in the worker") == ""
    assert "in crash_here" in Path(tmp_path, "crash").read_text(encoding="utf-8")


@pytest.mark.contract("11 tools")
@pytest.mark.parametrize("method", ["fork"])
def test_a_crash_of_a_fork_goes_where_the_parent_asked_as_well(method, tmp_path):
    assert crash(tmp_path, method, "in the parent") == ""
    assert Path(tmp_path, "crash").read_text(encoding="utf-8").count("in crash_here") == 2


@pytest.mark.contract("11 tools")
def test_a_crash_goes_where_the_interpreter_was_asked_as_well(process_method, tmp_path):
    error = crash(tmp_path, process_method, "plain", "-X", "faulthandler")
    assert error.count("in crash_here") == 2


STRAY = """
import faulthandler, os, signal, sys
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

def crash_a_child(_):
    child = os.fork()
    if child == 0:
        faulthandler._sigsegv()
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    with WorkerPool(1, start_method=sys.argv[1]) as pool:
        try:
            pool.apply(crash_a_child, 1)
        except WorkerDiedError as error:
            print(repr(error.stack))
"""


@pytest.mark.contract("11 tools")
def test_a_crash_of_what_a_task_forked_is_not_the_workers(process_method, tmp_path):
    program_in(tmp_path, STRAY)
    done = run(tmp_path, "program.py", process_method)
    assert (done.stderr, done.stdout) == ("", "''\n")
