"""Pools in pools: every method in every other, with errors, bars and Ctrl-C inside."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tasks
from tercio import WorkerPool

METHODS = ("fork", "spawn", "forkserver", "threading")
HERE = Path(__file__).parent
LONG = bool(os.environ.get("TERCIO_LONG"))


def nest(depth, methods, bad):
    """Pools in pools: the sum of the leaves, or an error from the lowest."""
    if depth == 0:
        if bad:
            raise ValueError("from the lowest")
        return 1
    method, *rest = methods
    with WorkerPool(2, daemon=False, start_method=method) as pool:
        return sum(pool.map(nest, [(depth - 1, rest, bad and i == 1) for i in range(2)], chunk_size=1))


@pytest.mark.contract("2 nested")
@pytest.mark.parametrize("inner", METHODS)
def test_pools_in_pools(start_method, inner):
    with WorkerPool(2, daemon=False, start_method=start_method) as pool:
        good, bad = pool.map(nest, [(1, [inner], False), (1, [inner], True)], chunk_size=1, on_error="return")
    assert good == 2
    assert (type(bad), bad.args) == (ValueError, ("from the lowest",))
    assert "Worker-" in str(bad.__cause__)


@pytest.mark.contract("2 nested")
@pytest.mark.parametrize("inner", METHODS)
def test_three_levels(start_method, inner):
    methods = [inner, start_method]
    with WorkerPool(1, daemon=False, start_method=start_method) as pool:
        good, bad = pool.map(nest, [(2, methods, False), (2, methods, True)], on_error="return")
    assert good == 4
    assert (type(bad), bad.args) == (ValueError, ("from the lowest",))


class ForeignContext:
    """A start method that a package gives to multiprocessing, as joblib's does in its workers."""

    def __enter__(self):
        from multiprocessing import context

        class Foreign(context.BaseContext):
            _name = "foreign"

        self.context, self.before = context, context._default_context._actual_context
        context._concrete_contexts["foreign"] = Foreign()
        context._default_context.set_start_method("foreign", force=True)

    def __exit__(self, *_):
        self.context._default_context._actual_context = self.before
        del self.context._concrete_contexts["foreign"]


def add_one(counter, _):
    with counter:
        counter.value += 1


@pytest.mark.contract("2 nested")
def test_pools_where_another_packages_start_method_is_the_default(process_method):
    with ForeignContext(), WorkerPool(2, start_method=process_method) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        counter = pool.ctx.Value("i", 0)
        pool.set_shared_objects(counter)
        pool.map(add_one, range(10))
        assert counter.value == 10


IN_JOBLIB = """
import sys
from joblib import Parallel, delayed
from tercio import WorkerPool

def with_lock(lock, x):
    with lock:
        return -x

def pool_of(method):
    with WorkerPool(2, start_method=method) as pool:
        pool.set_shared_objects(pool.ctx.Lock())
        return pool.map(with_lock, [-1, -2])

if __name__ == "__main__":
    print(Parallel(n_jobs=2)(delayed(pool_of)(method) for method in sys.argv[1:]))
"""


@pytest.mark.contract("2 nested")
def test_pools_in_joblibs_workers(process_method, tmp_path):
    pytest.importorskip("joblib")
    path = tmp_path / "program.py"
    path.write_text(IN_JOBLIB)
    command = [sys.executable, str(path), process_method, process_method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "[[1, 2], [1, 2]]\n"), done.stderr


def nest_in_known_thread(method):
    threading.current_thread()  # now threading knows this thread, and takes it for the main one in what is forked
    return tasks.nested([1], method)


@pytest.mark.contract("2 nested")
@pytest.mark.parametrize("inner", METHODS)
def test_workers_of_a_thread_end_without_a_word(inner, capfd):
    with WorkerPool(1, start_method="threading") as pool:
        assert pool.map(nest_in_known_thread, [(inner,)]) == [[2]]
    assert capfd.readouterr() == ("", "")


def count_loudly(method, n):
    with WorkerPool(1, start_method=method) as pool:
        return len(list(pool.imap(tasks.identity, range(n), progress_bar=True, progress_bar_options={"position": n})))


@pytest.mark.contract("2 nested", "6 nested")
@pytest.mark.parametrize("inner", METHODS)
def test_bars_inside(start_method, inner, capfd):
    with WorkerPool(2, daemon=False, start_method=start_method) as pool:
        assert pool.map(count_loudly, [(inner, 3), (inner, 4)], chunk_size=1, progress_bar=True) == [3, 4]
    shown = capfd.readouterr().err
    assert all(count in shown for count in ("2/2", "3/3", "4/4")), shown
    assert "Traceback" not in shown


# Each leaf says that it is there; then comes the interrupt, while all of them wait.
INTERRUPTED = """
import os, select, sys, time, warnings
import tasks
from support import descendants
from tercio import WorkerPool

def leaf(_):
    os.write(1, b"+")
    for _ in range(6000):
        time.sleep(0.01)

def inner(method):
    with WorkerPool(2, start_method=method) as pool:
        pool.map(leaf, range(2), chunk_size=1)

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    outer, method = sys.argv[1:]
    for each in (outer, method):
        with WorkerPool(1, start_method=each) as pool:
            pool.map(abs, [1])  # a forkserver lives as long as this process
    there = descendants(os.getpid())
    try:
        with WorkerPool(2, daemon=False, start_method=outer) as pool:
            pool.map(inner, [(method,)] * 2, chunk_size=1)
    except KeyboardInterrupt:
        if outer == "threading":  # its inner pools are ended by threads, which this one doesn't wait for
            for pid in descendants(os.getpid()) - there:
                try:
                    handle = os.pidfd_open(pid)
                except (ProcessLookupError, AttributeError):  # gone, or a Python without the call
                    continue
                select.select([handle], [], [], 40)  # against a hang
        print("caught", sorted(descendants(os.getpid()) - there), flush=True)
"""


@pytest.mark.contract("2 nested", "2 SIGINT")
@pytest.mark.parametrize("inner", METHODS)
def test_interrupted_while_nested(start_method, inner):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, start_method, inner],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True,
    ) as program:  # fmt: skip
        try:
            assert os.read(program.stdout.fileno(), 1) == b"+"
            for _ in range(3):
                assert os.read(program.stdout.fileno(), 1) == b"+"
            os.killpg(program.pid, signal.SIGINT)
            out, errors = program.communicate(timeout=50)
        finally:
            program.kill()
    assert (out, errors) == (b"caught []\n", b"")


@pytest.mark.contract("2 nested")
@pytest.mark.timeout(1200 if LONG else 60)
def test_a_storm_of_nested_pools(start_method):
    """Deadlocks of nested pools are rare: so many runs, each its own pair of methods, every third with an error."""
    choice = random.Random(os.environ.get("TERCIO_SEED", random.randrange(10**6)))
    for number in range(250 if LONG else 5):
        method, bad = choice.choice(METHODS), number % 3 == 2
        with WorkerPool(2, daemon=False, start_method=start_method) as pool:
            try:
                assert pool.map(nest, [(1, [method], bad)] * 2, chunk_size=1) == [2, 2]
                assert not bad
            except ValueError as error:
                assert bad and error.args == ("from the lowest",)
