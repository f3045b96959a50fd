"""What can't travel between processes: an error of that task with its name, and the pool lives on."""

from __future__ import annotations

import gc
import os
import pickle
import sys

import faults
import pytest
import tasks
from tercio import WorkerPool
from tercio.exception import CannotPickleExceptionError, WorkerDiedError

UNPICKLABLE = (TypeError, pickle.PicklingError)


@pytest.fixture(scope="module", params=("fork", "spawn", "forkserver"))
def pool(request):
    # One pool for all: that it goes on after each of these is what is tested.
    with WorkerPool(2, start_method=request.param, keep_alive=True) as made:
        made.map(tasks.double, [1])
        yield made


@pytest.fixture
def nothing_left_behind():
    """The module's pool stays from test to test: its own end is looked at by the other files."""


@pytest.fixture(autouse=True)
def lives_on(pool):
    before = [worker["restarts"] for worker in pool.stats()]
    yield
    assert pool.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]
    assert pool.apply(tasks.double, 4) == 8
    if before:
        assert [worker["restarts"] for worker in pool.stats()] == before  # and no worker was lost by it


REFUSALS = [
    pytest.param(lambda: lambda: 0, id="lambda"),
    pytest.param(lambda: faults.Refuses("reduce", "raise"), id="reduce raises"),
    pytest.param(lambda: faults.Refuses("reduce", "recurse"), id="reduce recurses"),
    pytest.param(lambda: faults.Getstate("getstate", "raise"), id="getstate raises"),
    pytest.param(lambda: faults.Getstate("getstate", "recurse"), id="getstate recurses"),
    pytest.param(lambda: (i for i in ()), id="generator"),
    pytest.param(faults.lock_of, id="lock"),
    pytest.param(lambda: sys._getframe(), id="frame"),
]


@pytest.mark.parametrize("make", REFUSALS)
@pytest.mark.parametrize("place", [0, 3, 7])
def test_arguments(pool, make, place):
    items = [(i,) for i in range(8)]
    items[place] = (make(),)
    with pytest.raises((*UNPICKLABLE, RecursionError)) as caught:
        pool.map(faults.type_name, items, chunk_size=8)
    assert "type_name" in str(caught.value)
    assert f"task {place}" in str(caught.value)


def test_an_argument_of_apply_and_of_a_lazy_map(pool):
    bad = pool.apply_async(faults.type_name, (lambda: 0,))
    good = pool.apply_async(faults.type_name, (1,))
    with pytest.raises(UNPICKLABLE, match="type_name"):
        bad.get(50)
    assert good.get(50) == "int"
    found = []
    with pytest.raises(UNPICKLABLE, match="type_name"):
        for name in pool.imap(faults.type_name, [1, 2, 3, faults.lock_of()], chunk_size=2):
            found.append(name)
    assert found in ([], ["int"] * 2, ["int"] * 3)


def test_a_deep_argument(pool):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    try:
        with pytest.raises((*UNPICKLABLE, RecursionError), match="type_name"):
            pool.map(faults.type_name, [(deep,)])
    finally:
        while deep:
            deep = deep.pop()


RESULTS = [("lambda",), ("refuses", "reduce", "raise"), ("refuses", "reduce", "recurse"),
           ("getstate", "getstate", "raise"), ("getstate", "getstate", "recurse")]  # fmt: skip


@pytest.mark.parametrize("kind", RESULTS, ids=" ".join)
def test_results(pool, kind):
    for bad in (0, 3, 7):
        with pytest.raises((*UNPICKLABLE, RecursionError)) as caught:
            pool.map(faults.bad_result_at, [(i, bad, *kind) for i in range(8)], chunk_size=8)
        assert "bad_result_at" in str(caught.value)
        assert f"Arg 0: {bad}" in str(caught.value.__cause__)
    found = pool.map(faults.bad_result_at, [(i, 3, *kind) for i in range(8)], chunk_size=8, on_error="return")
    assert [i for i, result in enumerate(found) if isinstance(result, Exception)] == [3]


def test_what_can_be_sent_and_not_be_received(pool):
    with pytest.raises(LookupError, match="no load"):
        pool.map(faults.type_name, [1, 2, faults.Reloads(), 4], chunk_size=4)
    with pytest.raises(LookupError, match="no load"):
        pool.map(faults.bad_result_at, [(i, 2, "reloads") for i in range(4)], chunk_size=4)
    found = pool.map(faults.type_name, [1, faults.Reloads(), 3], chunk_size=3, on_error="return")
    assert found[0] == found[2] == "int"
    assert isinstance(found[1], LookupError)


def test_what_ends_who_receives_it(pool):
    if pool.pool_params.start_method != "fork":
        pytest.skip("once is enough")
    with WorkerPool(2) as other:
        with pytest.raises(WorkerDiedError):
            other.map(faults.type_name, [1, faults.Kills(), 3], chunk_size=3)
        assert other.map(tasks.double, [1]) == [2]


def test_odd_objects_pass(pool):
    for method in ("repr", "eq"):
        for how in ("raise", "recurse"):
            assert pool.map(faults.type_name, [(faults.Refuses(method, how),)]) == ["Refuses"]
            with pytest.raises(ValueError) as caught:
                pool.map(faults.raise_with, [(faults.Refuses("repr", how),)])
            assert caught.value.args[0] == "holds"
            assert "raise_with" in str(caught.value.__cause__)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_argument_whose_end_raises(pool, capfd):
    assert pool.map(faults.type_name, [(faults.Dies(),)] * 3) == ["Dies"] * 3
    gc.collect()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("demands", CannotPickleExceptionError),
        ("text", (faults.BadText, CannotPickleExceptionError)),
        ("holds", CannotPickleExceptionError),
        ("note", ValueError),
        ("cycle", ValueError),
        ("class", Exception),  # by value, where a module for that is in use
        ("recursion", RecursionError),
        ("memory", MemoryError),
        ("stop", StopIteration),
        ("exit", GeneratorExit),
    ],
)
def test_exceptions(pool, kind, expected):
    with pytest.raises(BaseException) as caught:
        pool.apply(faults.raise_odd, (kind,))
    assert isinstance(caught.value, expected)
    assert "raise_odd" in str(caught.value.__cause__)
    with pytest.raises(BaseException) as caught:
        pool.map(faults.raise_odd, [kind])
    # StopIteration must not look like the end of the results.
    assert isinstance(caught.value, expected)


@pytest.mark.parametrize("what", ["func", "worker_init", "worker_exit"])
def test_functions(pool, what):
    if pool.pool_params.start_method == "fork":
        pytest.skip("inherited")
    held = faults.lock_of()
    functions = {"func": tasks.double, what: held.acquire}
    func = functions.pop("func")
    with WorkerPool(2, start_method=pool.pool_params.start_method) as other:
        with pytest.raises(UNPICKLABLE, match=what):
            other.map(func, [1], **functions)
        assert other.map(tasks.double, [1]) == [2]


def test_shared_objects(pool):
    method = pool.pool_params.start_method
    if method == "fork":
        pytest.skip("inherited")
    for shared in (faults.lock_of(), faults.Refuses("reduce", "recurse")):
        with WorkerPool(2, start_method=method, shared_objects=shared) as other:
            with pytest.raises((*UNPICKLABLE, RecursionError), match="shared_objects"):
                other.map(tasks.shared_and_value, [1])
            other.set_shared_objects("now")
            assert other.map(tasks.shared_and_value, [1]) == [("now", 1)]
    with WorkerPool(2, start_method=method, shared_objects=faults.Reloads()) as other:
        with pytest.raises(LookupError, match="no load"):
            other.map(tasks.shared_and_value, [1])
        other.set_shared_objects("now")
        assert other.map(tasks.shared_and_value, [1]) == [("now", 1)]


def test_exit_results(pool):
    method = pool.pool_params.start_method
    with WorkerPool(2, start_method=method) as other:
        with pytest.raises(UNPICKLABLE, match="lock"):
            other.map(tasks.double, range(4), worker_exit=faults.lock_of)
        assert other.map(tasks.double, [1], worker_exit=tasks.exit_constant) == [2]
        assert "bye" in other.get_exit_results()


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.skipif(os.environ.get("TERCIO_LONG") != "1", reason="takes 2 GiB and more")
def test_two_gigabytes_and_more():
    size = (2 << 30) + 12345
    with WorkerPool(1, start_method="fork") as other:
        result = other.apply(bytes, size)
        assert len(result) == size
        assert other.apply(len, (result,)) == size
