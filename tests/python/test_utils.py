"""Contract section 8: what is of use without a pool, and where it is imported from."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tercio
from tercio import utils


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("tercio", "WorkerPool cpu_count usable_cpu_count"),
        ("tercio.utils", "set_cpu_affinity"),
        ("tercio.utils", "chunk_tasks make_single_arguments apply_numpy_chunking get_n_chunks format_seconds TimeIt"),
        ("tercio.async_result", "AsyncResult"),
        ("tercio.exception", "CannotPickleExceptionError WorkerDiedError TimeoutError"),
        ("tercio.exception", "highlight_traceback remove_highlighting"),
        ("tercio.context", "DEFAULT_START_METHOD FORK_AVAILABLE RUNNING_WINDOWS RUNNING_MACOS MP_CONTEXTS"),
        ("tercio.signal", "DelayedKeyboardInterrupt DisableKeyboardInterruptSignal ignore_keyboard_interrupt"),
        ("tercio.params", "WorkerPoolParams"),
        ("tercio.tqdm_utils", "PROGRESS_BAR_DEFAULT_STYLE get_tqdm"),
        ("tercio.insights", "get_insights"),
        ("tercio.pool", "WorkerPool"),
    ],
)
@pytest.mark.contract("8 paths")
def test_import_paths(module, names):
    for name in names.split():
        assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.contract("8 paths", "1 names")
def test_constants():
    from tercio.context import DEFAULT_START_METHOD, FORK_AVAILABLE
    from tercio.tqdm_utils import PROGRESS_BAR_DEFAULT_STYLE

    assert (DEFAULT_START_METHOD, FORK_AVAILABLE, PROGRESS_BAR_DEFAULT_STYLE) == ("fork", True, "std")


@pytest.mark.contract("8 paths")
def test_names_that_mpires_manual_leaves_out():
    import platform

    from tercio.context import MP_CONTEXTS, RUNNING_MACOS, RUNNING_WINDOWS

    assert (RUNNING_WINDOWS, RUNNING_MACOS) == (platform.system() == "Windows", platform.system() == "Darwin")
    assert {name: context.get_start_method() for name, context in MP_CONTEXTS["mp"].items()} == {
        name: name for name in ("fork", "spawn", "forkserver")
    }
    with MP_CONTEXTS["threading"].Lock():
        pass
    code = "import sys, tercio.context; print('multiprocessing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == "False"


def test_delayed_interrupt_comes_at_the_blocks_end():
    from tercio.signal import DelayedKeyboardInterrupt

    reached = False
    with pytest.raises(KeyboardInterrupt), DelayedKeyboardInterrupt():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_helpers_do_nothing_in_another_thread():
    from tercio.signal import DelayedKeyboardInterrupt, DisableKeyboardInterruptSignal

    seen = []

    def use():
        with DelayedKeyboardInterrupt(), DisableKeyboardInterruptSignal():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_affinity_is_set_by_its_helper():
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; from tercio.utils import *; set_cpu_affinity(0, [{cpu}]); print(os.sched_getaffinity(0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == str({cpu})


@pytest.mark.contract("8 cpu counts")
def test_cpu_counts():
    assert utils.cpu_count() == tercio.cpu_count() == os.cpu_count()
    assert 1 <= tercio.usable_cpu_count() <= len(os.sched_getaffinity(0))


@pytest.mark.contract("8 cpu counts", "10 n_jobs")
def test_usable_cpus_follow_affinity():
    cpu = min(os.sched_getaffinity(0))
    code = f"import os, tercio; os.sched_setaffinity(0, [{cpu}]); print(tercio.usable_cpu_count(), tercio.cpu_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split() == ["1", str(os.cpu_count())]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python 3.13 has the option first")
@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("way", ["option", "variable"])
@pytest.mark.contract("8 cpu counts", "10 n_jobs")
def test_usable_cpus_follow_the_interpreters_option(way, number):
    options = ["-X", f"cpu_count={number}"] if way == "option" else []
    variables = {"PYTHON_CPU_COUNT": str(number)} if way == "variable" else {}
    code = (
        "import os, tercio\n"
        "n_jobs = tercio.WorkerPool(start_method='threading').pool_params.n_jobs\n"
        "print(tercio.usable_cpu_count(), n_jobs, tercio.WorkerPool(0, start_method='threading').pool_params.n_jobs,\n"
        "      os.process_cpu_count(), tercio.cpu_count())"
    )
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.split() == [str(number)] * 5


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"chunk_size": 2.5}, [3, 2, 3, 2]),
        ({"n_splits": 3}, [4, 3, 3]),
        ({"chunk_size": 4}, [4, 4, 2]),
        ({"chunk_size": 100}, [10]),
        ({"n_splits": 100}, [1] * 10),
        ({"n_splits": 3, "iterable_len": 4}, [2, 1, 1]),
        ({"chunk_size": 3, "iterable_len": 5}, [3, 2]),
        ({"chunk_size": 2, "n_splits": 7}, [2] * 5),
    ],
)
@pytest.mark.contract("8 chunk_tasks")
def test_chunk_tasks(given, sizes):
    for tasks in (range(10), list(range(10)), np.arange(10)):
        chunks = list(utils.chunk_tasks(tasks, **given))
        assert [len(chunk) for chunk in chunks] == sizes
        assert [int(task) for chunk in chunks for task in chunk] == list(range(sum(sizes)))
    length = {"iterable_len": 10, **given}
    assert [len(chunk) for chunk in utils.chunk_tasks(iter(range(10)), **length)] == sizes


@pytest.mark.contract("8 chunk_tasks")
def test_chunk_tasks_takes_no_more_than_wanted():
    tasks = iter(range(10))
    assert list(utils.chunk_tasks(tasks, iterable_len=3, chunk_size=2)) == [(0, 1), (2,)]
    assert next(tasks) == 3
    assert list(utils.chunk_tasks(iter([]), chunk_size=2)) == list(utils.chunk_tasks([], n_splits=2)) == []


@pytest.mark.parametrize(
    "given", [{}, {"chunk_size": 0}, {"chunk_size": 0.5}, {"n_splits": 0}, {"n_splits": 2}], ids=str
)
@pytest.mark.contract("8 chunk_tasks")
def test_chunk_tasks_refuses(given):
    tasks = iter(range(10)) if given == {"n_splits": 2} else range(10)
    with pytest.raises(ValueError):
        list(utils.chunk_tasks(tasks, **given))


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({}, min(100, (os.cpu_count() or 1) * 4)),
        ({"chunk_size": 7}, 15),
        ({"n_splits": 3}, 3),
        ({"n_splits": 300}, 100),
        ({"n_jobs": 2}, 8),
        ({"n_jobs": 2, "iterable_len": 5}, 5),
    ],
)
@pytest.mark.contract("8 get_n_chunks")
def test_get_n_chunks(given, number):
    assert utils.get_n_chunks(range(100), **given) == number
    if "iterable_len" not in given:
        assert utils.get_n_chunks(iter(range(100)), iterable_len=100, **given) == number
    with pytest.raises(ValueError, match="length"):
        utils.get_n_chunks(iter(range(100)), chunk_size=2)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"n_splits": 3}, [4, 3, 3]),
        ({"chunk_size": 4}, [4, 4, 2]),
        ({"n_jobs": 1}, [3, 2, 3, 2]),
        ({"iterable_len": 5, "n_jobs": 1}, [2, 1, 1, 1]),
    ],
)
@pytest.mark.contract("8 numpy chunking")
def test_apply_numpy_chunking(given, sizes):
    array = np.arange(20).reshape(10, 2)
    pieces, number, chunk_size, n_splits = utils.apply_numpy_chunking(array, **given)
    pieces = list(pieces)
    assert (number, chunk_size, n_splits) == (len(sizes), 1, None)
    assert all(isinstance(piece, tuple) and np.shares_memory(piece[0], array) for piece in pieces)
    assert [len(piece) for (piece,) in pieces] == sizes
    assert np.array_equal(np.concatenate([piece for (piece,) in pieces]), array[: sum(sizes)])


@pytest.mark.contract("8 numpy chunking")
def test_apply_numpy_chunking_of_nothing():
    pieces, number, *_ = utils.apply_numpy_chunking(np.empty((0, 3)), n_splits=3)
    assert list(pieces) == [] and number == 0
    with pytest.raises(TypeError, match="array"):
        utils.apply_numpy_chunking([1, 2, 3])


@pytest.mark.parametrize(
    ("seconds", "with_them", "without"),
    [
        (None, "", ""),
        (0, "0:00:00", "0:00:00"),
        (1.0, "0:00:01", "0:00:01"),
        (1.5, "0:00:01.500", "0:00:01"),
        (59.9999, "0:00:59.999", "0:00:59"),
        (79.123, "0:01:19.123", "0:01:19"),
        (0.0004, "0:00:00.000", "0:00:00"),
        (3600, "1:00:00", "1:00:00"),
        (90061, "1 day, 1:01:01", "1 day, 1:01:01"),
        (200000.5, "2 days, 7:33:20.500", "2 days, 7:33:20"),
        (-1.5, "-0:00:01.500", "-0:00:01"),
    ],
)
@pytest.mark.contract("8 format_seconds")
def test_format_seconds(seconds, with_them, without):
    assert utils.format_seconds(seconds, with_milliseconds=True) == utils.format_seconds(seconds) == with_them
    assert utils.format_seconds(seconds, False) == without


@pytest.mark.contract("8 single arguments")
def test_make_single_arguments():
    given = [1, (2, 3), {"a": 4}]
    assert utils.make_single_arguments(given, generator=False) == [(1,), ((2, 3),), ({"a": 4},)]
    lazy = utils.make_single_arguments(iter(given))
    assert next(lazy) == (1,) and iter(lazy) is lazy


@pytest.mark.contract("8 TimeIt")
def test_time_it():
    seconds = [0.0, 1.0]
    longest = [(0.0, "none"), (1e9, "long")]
    with utils.TimeIt(seconds, 1, longest, lambda: "mine"):
        sum(range(1000))
    assert seconds[0] == 0 and seconds[1] > 1
    assert sorted(text for _, text in longest) == ["long", "mine"]
    with utils.TimeIt(seconds, 0, [(1e9, "long")], lambda: pytest.fail("not among the longest")):
        pass
    with utils.TimeIt(None, 0):
        pass
    with pytest.raises(KeyError), utils.TimeIt(seconds, 0):
        raise KeyError
    assert seconds[0] > 0


def test_import_is_light():
    """Section 10: nothing happens at import but definitions, and what is heavy is left for later."""
    code = """
import os, sys, threading
before = set(sys.modules), threading.active_count(), len(os.listdir("/proc/self/fd"))
import tercio, tercio.utils, tercio.pool
heavy = {"multiprocessing", "numpy", "tqdm", "asyncio", "pickle", "typing", "subprocess"} & set(sys.modules)
print(sorted(heavy - before[0]), threading.active_count() - before[1], len(os.listdir("/proc/self/fd")) - before[2])
"""
    where = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(tercio.__file__))}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=where)
    assert done.stdout == "[] 0 0\n", done.stdout + done.stderr


def test_the_longest_times_without_a_sum():
    longest = [(0.0, "")]
    with utils.TimeIt(None, 0, longest, lambda: "this one"):
        sum(range(1000))
    assert longest[0][0] > 0
    assert longest[0][1] == "this one"
