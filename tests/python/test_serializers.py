"""What can be sent with which serializer."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import tasks
from tercio import WorkerPool
from tercio.utils import make_single_arguments


class Point(NamedTuple):
    x: int
    y: int


class Tuple(tuple):
    pass


class Dict(dict):
    pass


class Adder:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return x + self.n


@pytest.mark.contract("2 serializer")
@pytest.mark.parametrize("serializer", ["dill", "cloudpickle"])
def test_lambdas_closures_and_local_classes(start_method, serializer):
    offset = 3

    class Local:
        def __init__(self, value):
            self.value = value

    class LocalError(Exception):
        pass

    def fail(x):
        raise LocalError(x, "here")

    with WorkerPool(2, start_method=start_method, serializer=serializer, keep_alive=True) as pool:
        assert pool.map(lambda x: x + offset, range(4)) == [3, 4, 5, 6]
        made = pool.map(lambda local: Local(local.value * 2), make_single_arguments([Local(1), Local(2)], False))
        assert [local.value for local in made] == [2, 4]
        assert pool.map(lambda f: f(2), make_single_arguments([lambda x: x * 5], False)) == [10]
        assert pool.apply(lambda x: lambda: x, 7)() == 7
        with pytest.raises(Exception, match="here") as caught:
            pool.map(fail, [1])
        assert type(caught.value).__name__ == "LocalError"
        assert caught.value.args == (1, "here")
        assert pool.map(lambda x: x, [1], worker_init_timeout=20) == [1]


@pytest.mark.contract("2 serializer")
def test_use_dill_is_short_for_it():
    with WorkerPool(1, start_method="spawn", use_dill=True) as pool:
        assert pool.pool_params.serializer == "dill"
        assert pool.map(lambda x: -x, [1, 2]) == [-1, -2]


@pytest.mark.contract("3 unpacking", "10 keywords")
def test_callables_and_types_of_elements(start_method):
    with WorkerPool(2, start_method=start_method, keep_alive=True) as pool:
        assert pool.map(Adder(5), [1, 2]) == [6, 7]
        assert pool.map(functools.partial(tasks.add, b=1), [1, 2]) == [2, 3]
        assert pool.map(str.upper, ["a", "b"]) == ["A", "B"]
        assert pool.map(tasks.everything, [(), {}]) == [((), {}), ((), {})]
        assert pool.map(tasks.everything, [Point(1, 2), Tuple((3,)), Dict(a=4), {5}, iter([6, 7])]) == [
            ((1, 2), {}), ((3,), {}), ((), {"a": 4}), ((5,), {}), ((6, 7), {}),
        ]  # fmt: skip
        for wrong in ({"c": 1}, {}):
            with pytest.raises(TypeError, match=r"add\(\)") as caught:
                pool.map(tasks.add, [wrong])
            assert "Worker-" in str(caught.value.__cause__)


@pytest.mark.contract("3 single arguments")
def test_single_arguments_are_passed_whole(start_method):
    elements = [Point(1, 2), Tuple((3,)), Dict(a=4), [5, 6], {"k": 7}]
    with WorkerPool(2, start_method=start_method) as pool:
        results = pool.map(tasks.identity, make_single_arguments(elements), iterable_len=5)
    assert results == elements
    assert [type(result) for result in results] == [type(element) for element in elements]


@pytest.mark.contract("5 keyword-only")
def test_what_is_keyword_only():
    import inspect

    for name in ("map", "map_unordered", "imap", "imap_unordered", "apply", "apply_async"):
        parameters = inspect.signature(getattr(WorkerPool, name)).parameters
        for parameter in ("on_worker_death", "max_retries", "on_error"):
            assert parameters[parameter].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.signature(WorkerPool).parameters["serializer"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.contract("3 unknown length")
def test_an_unknown_length(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        with pytest.warns(RuntimeWarning, match="iterable_len"):
            assert pool.map(tasks.double, iter(range(300))) == [2 * i for i in range(300)]
