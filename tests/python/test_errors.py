"""What a failure looks like to the caller, under each start method."""

from __future__ import annotations

import errno
import pickle
import signal
import sys
import time

import pytest
import raised
import tasks
from tercio import WorkerPool
from tercio.exception import CannotPickleExceptionError, WorkerDiedError


@pytest.fixture
def pool(start_method):
    with WorkerPool(2, start_method=start_method) as made:
        yield made


def failure(pool, func, *args, **how):
    with pytest.raises(BaseException) as caught:
        pool.map(func, [args], **how)
    return caught.value


@pytest.mark.parametrize("call", ["map", "map_unordered", "imap", "imap_unordered"])
@pytest.mark.contract("5 original", "3 usable")
def test_type_arguments_and_traceback(pool, call):
    with pytest.raises(ValueError, match="no good") as caught:
        list(getattr(pool, call)(tasks.fail_at, [(i, 3) for i in range(20)], chunk_size=2))
    assert caught.value.args == ("no good", 3)
    text = str(caught.value.__cause__)
    assert "Worker-" in text
    assert "Arg 0: 3" in text
    assert "tasks.py" in text
    assert 'raise ValueError("no good", value)' in text
    assert "\x1b" not in text
    assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("5 original")
def test_arguments_by_name_and_cut(pool):
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        pool.map(tasks.reciprocal, [{"value": "x" * 100_000}])
    text = str(caught.value.__cause__)
    assert "Arg value: 'xxx" in text
    assert len(text) < 10_000


def test_an_exception_may_be_large(pool):
    with pytest.raises(ValueError, match="no good") as caught:
        pool.map(tasks.fail, ["x" * 1_000_000])
    assert len(caught.value.args[1]) == 1_000_000


@pytest.mark.contract("5 built-in")
def test_custom_constructor_keeps_everything(pool):
    error = failure(pool, tasks.raise_picky, 3)
    assert type(error) is tasks.Picky
    assert error.args == ("code 3",)
    assert (error.code, error.detail) == (3, {"why": "because"})


@pytest.mark.contract("5 built-in")
def test_os_error_and_decode_error(pool):
    error = failure(pool, tasks.raise_os_error, "/does/not/exist")
    assert type(error) is FileNotFoundError
    assert (error.errno, error.filename) == (errno.ENOENT, "/does/not/exist")
    error = failure(pool, tasks.raise_decode, b"ab\xff")
    assert type(error) is UnicodeDecodeError
    assert (error.object, error.start, error.end, error.encoding) == (b"ab\xff", 2, 3, "ascii")


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("opaque", "_held", "inside"),
        ("changing", "args", ("text",)),
        ("slotted", "code", 17),
        ("refusing", "args", ("text",)),
        ("long", "args", (10**6000,)),
        ("http", "filename", "http://127.0.0.1/x"),
        ("http", "code", 404),
        ("import", "path", "/nowhere"),
        ("unicode", "object", "é"),
    ],
)
@pytest.mark.parametrize("how", ["raise", "return"])
@pytest.mark.contract("5 loads")
def test_what_pickles_and_loads_comes_home_as_itself(pool, kind, name, expected, how):
    if how == "return":
        (error,) = pool.map(raised.raise_kind, [kind], on_error="return")
    else:
        error = failure(pool, raised.raise_kind, kind)
    assert type(error) is type(raised.MADE[kind]())
    assert getattr(error, name) == expected
    assert "raise_kind" in str(error.__cause__)


@pytest.mark.contract("5 loads")
def test_an_error_of_validation_comes_home(pool):
    pydantic = pytest.importorskip("pydantic")
    error = failure(pool, tasks.validate, "x")
    assert type(error) is pydantic.ValidationError
    assert error.errors()[0]["type"] == "int_parsing"


@pytest.mark.contract("5 built-in")
def test_chain(pool):
    error = failure(pool, tasks.raise_chained, 1)
    assert type(error) is RuntimeError
    assert "KeyError: 'first'" in str(error.__cause__)
    assert type(error.__context__) is KeyError


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes and groups came with 3.11")
@pytest.mark.contract("5 built-in")
def test_notes_and_groups(pool):
    assert failure(pool, tasks.raise_noted, 1).__notes__ == ["a note"]
    error = failure(pool, tasks.raise_group, 1)
    assert type(error).__name__ == "ExceptionGroup"
    assert error.message == "several"
    assert [type(member).__name__ for member in error.exceptions] == ["ValueError", "Picky"]
    assert error.exceptions[1].detail == "x"


@pytest.mark.contract("5 exits", "3 usable")
def test_system_exit_and_keyboard_interrupt_are_the_tasks_errors(pool):
    error = failure(pool, tasks.exit_with, 7)
    assert type(error) is SystemExit
    assert error.code == 7
    assert type(failure(pool, tasks.interrupt, 1)) is KeyboardInterrupt
    assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("5 unpicklable exception")
def test_exceptions_that_cannot_travel(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        error = failure(pool, tasks.raise_unpicklable, 1)
        assert type(error) is CannotPickleExceptionError
        assert "holds a lock" in str(error)
        assert "Arg 0: 1" in str(error.__cause__)


@pytest.mark.contract("5 unpicklable data")
def test_results_that_cannot_travel(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        with pytest.raises((TypeError, pickle.PicklingError), match="unpicklable"):
            pool.map(tasks.unpicklable, range(3))
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("5 unpicklable data")
def test_arguments_that_cannot_travel(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        with pytest.raises((TypeError, pickle.PicklingError), match="identity"):
            pool.map(tasks.identity, [1, lambda: None, 3])
        with pytest.raises((TypeError, pickle.PicklingError), match="identity"):
            pool.apply_async(tasks.identity, (lambda: None,)).get(20)
        assert pool.apply(tasks.double, 1) == 2


@pytest.mark.contract("5 on_error")
def test_on_error_return_puts_it_in_place(pool):
    results = pool.map(tasks.fail_at, [(i, 3) for i in range(6)], on_error="return", chunk_size=2)
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
    assert type(results[3]) is ValueError
    assert "Arg 0: 3" in str(results[3].__cause__)


@pytest.mark.contract("5 died", "10 texts")
def test_a_killed_worker(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        with pytest.raises(WorkerDiedError, match=r"Worker-\d was killed") as caught:
            pool.map(tasks.die_at, [(i, 7) for i in range(20)], chunk_size=1)
        error = caught.value
        assert isinstance(error, RuntimeError)
        assert error.signal == signal.SIGKILL
        assert error.exit_code is None
        assert error.worker_id in (0, 1)
        assert "Arg 0: 7" in error.args_repr
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.args, copy.pid, copy.signal) == (error.args, error.pid, error.signal)
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("5 died")
def test_a_worker_that_left(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        error = failure(pool, tasks.leave_with, 3)
        assert type(error) is WorkerDiedError
        assert (error.exit_code, error.signal) == (3, None)


@pytest.mark.contract("5 retry")
def test_retry(process_method, tmp_path):
    with WorkerPool(2, start_method=process_method) as pool:
        items = [(i, str(tmp_path / f"died{i}")) for i in range(6)]
        results = pool.map(tasks.die_once, items, chunk_size=2, on_worker_death="retry", max_retries=1)
        assert results == list(range(6))


@pytest.mark.contract("10 init raises", "3 usable")
def test_init_and_exit_that_raise(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        with pytest.raises(LookupError, match="no init") as caught:
            pool.map(tasks.double, range(4), worker_init=tasks.init_fails)
        assert "init_fails" in str(caught.value.__cause__)
        with pytest.raises(LookupError, match="no exit"):
            pool.map(tasks.double, range(4), worker_exit=tasks.exit_fails)
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.leaves_threads
@pytest.mark.contract("3 task_timeout")
def test_task_timeout(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"Worker-\d task timed out \(timeout=0.1\)"):
            pool.map(tasks.slowly, [(i, 20 if i == 3 else 0) for i in range(6)], chunk_size=1, task_timeout=0.1)
        assert time.monotonic() - began < 15


@pytest.mark.contract("3 task_timeout")
def test_apply_timeout_fails_that_task_alone(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        slow = pool.apply_async(tasks.slowly, (1, 20), task_timeout=0.1)
        quick = [pool.apply_async(tasks.slowly, (i, 0)) for i in range(4)]
        with pytest.raises(TimeoutError, match="task timed out"):
            slow.get(15)
        assert [result.get(15) for result in quick] == [0, 1, 2, 3]


def test_a_main_module_without_guard_is_told_so(tmp_path):
    import subprocess

    script = tmp_path / "unguarded.py"
    script.write_text(
        "from tercio import WorkerPool\n"
        "def f(x):\n    return x\n"
        "pool = WorkerPool(2, start_method='spawn')\n"
        "print(pool.map(f, range(3)))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode != 0
    assert "__name__ == '__main__'" in done.stderr


def stop(value):
    raise StopIteration(value)


@pytest.mark.contract("5 original")
def test_stop_iteration_is_an_error_and_no_end(pool):
    import asyncio

    with pytest.raises(StopIteration) as caught:
        pool.map(stop, [5])
    assert caught.value.value == 5
    for lazy in (pool.imap, pool.imap_unordered):
        with pytest.raises(RuntimeError, match="a task raised StopIteration") as told:
            list(lazy(stop, [5]))
        assert told.value.__cause__.args == (5,)

    async def wait():
        await pool.apply_async(stop, (5,))

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(asyncio.wait_for(wait(), 50))
