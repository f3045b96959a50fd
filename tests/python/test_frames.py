"""Functions that look at the frame of their caller, as the function of a task."""

from __future__ import annotations

import inspect
import sys
import types
import warnings
from functools import partial

import pytest
from tercio import WorkerPool

RECURSION = """
def count(n):
    return n and 1 + count(n - 1)
found.append(count(len("abc")))
"""


@pytest.mark.contract("3 own namespace")
def test_what_looks_at_its_caller_finds_an_empty_namespace(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        assert pool.map(eval, ["1 + 1", "2 * 3"]) == [2, 6]
        assert pool.map(eval, [("a + b", {"a": 1, "b": 2})]) == [3]
        assert pool.map(vars, [types.SimpleNamespace(a=1)]) == [{"a": 1}]
        assert [pool.apply(function) for function in (dir, vars, globals, locals)] == [[], {}, {}, {}]
        assert pool.apply(eval, ("dir()",)) == ["__builtins__"]  # eval puts it there
        assert pool.apply(eval, ("__name__",)) == "builtins"
        assert pool.apply(eval, ("[len, print]",)) == [len, print]
        assert pool.apply(exec, ("import math\nmath.sqrt(4)",)) is None
        assert pool.apply(partial(partial(eval), "x"), ({"x": 5},)) == 5


@pytest.mark.contract("3 own namespace")
def test_no_task_sees_the_names_of_another(start_method):
    with WorkerPool(1, start_method=start_method, keep_alive=True) as pool:
        assert pool.map(exec, ["name = 1", "assert 'name' not in globals()"], chunk_size=2) == [None, None]
        assert pool.map(eval, ["'name' in globals()"]) == [False]


def test_names_of_executed_code_are_global_to_its_functions(start_method):
    code = f"found = []{RECURSION}assert found == [3], found"
    with WorkerPool(1, start_method=start_method) as pool:
        assert pool.apply(exec, (code,)) is None


@pytest.mark.contract("1 same")
def test_a_thread_executes_in_the_namespace_that_it_is_given():
    names = {"found": []}
    with WorkerPool(1, start_method="threading") as pool:
        pool.apply(exec, (RECURSION, names))
        assert names["found"] == [3]


def test_init_and_exit_functions_may_look_as_well(start_method):
    with WorkerPool(1, start_method=start_method, keep_alive=True) as pool:
        init, leave = partial(exec, "import math"), partial(eval, "sorted(dir())")
        assert pool.map(abs, [-1], worker_init=init, worker_exit=leave) == [1]
        pool.stop_and_join()
        assert pool.get_exit_results() == [["__builtins__"]]


def test_callbacks_may_look_as_well(start_method):
    with WorkerPool(1, start_method=start_method) as pool:
        names = {"found": []}
        pool.apply_async(str, ("found.append(1)",), callback=partial(_evaluate, names)).get()
        pool.apply_async(str, ("1",), callback=eval).get()
        pool.apply_async(_code, (RECURSION,), callback=exec, error_callback=exec).get()
        assert names["found"] == [1]


def _evaluate(names, text):
    eval(text, names)


def _code(text):
    return f"found = []{text}"


def test_an_error_names_the_function_that_was_given(start_method):
    with WorkerPool(1, start_method=start_method) as pool:
        with pytest.raises(ZeroDivisionError) as raised:
            pool.apply(eval, ("1 / 0",))
        assert ", in eval, called with:\nArg 0: '1 / 0'" in str(raised.value.__cause__)


@pytest.mark.parametrize("function", [sys._getframe, inspect.currentframe, inspect.stack])
def test_a_thread_hands_out_frames(function):
    with WorkerPool(1, start_method="threading") as pool:
        found = pool.apply(function)
    frame = found[0].frame if isinstance(found, list) else found
    assert (frame.f_globals, frame.f_code.co_filename) == ({}, "<task>")


def test_a_warning_comes_from_the_task(start_method):
    with WorkerPool(1, start_method=start_method) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        source = "warnings.filterwarnings('error'); warnings.warn('no good')"
        with pytest.raises(UserWarning, match="no good"):
            pool.apply(exec, (f"import warnings\nwith warnings.catch_warnings():\n  {source}",))


def test_super_says_what_it_misses(start_method):
    with WorkerPool(1, start_method=start_method) as pool, pytest.raises(RuntimeError, match="super"):
        pool.apply(super)
