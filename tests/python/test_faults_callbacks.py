"""The user's own code inside ours: callbacks, iterables, init and exit functions that raise, block, call or close."""

from __future__ import annotations

import sys
import threading

import faults
import pytest
import tasks
from tercio import WorkerPool


@pytest.fixture
def pool(start_method):
    with WorkerPool(2, start_method=start_method) as made:
        yield made


@pytest.fixture
def unraisable(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: seen.append(what.exc_value))
    return seen


def aloud(error):
    def raiser(*_):
        raise error

    return raiser


# ---- Callbacks -----------------------------------------------------------------------------------------------------


def test_callbacks_that_raise(pool, unraisable):
    good, bad = [], []
    results = [
        pool.apply_async(tasks.double, i, callback=aloud(LookupError("mine")) if i % 2 else good.append)
        for i in range(8)
    ]
    results.append(pool.apply_async(tasks.fail, 1, error_callback=aloud(SystemExit(3))))
    results.append(pool.apply_async(tasks.fail, 2, error_callback=bad.append))
    assert [result.get(50) for result in results[:8]] == [0, 2, 4, 6, 8, 10, 12, 14]
    for result in results[8:]:
        with pytest.raises(ValueError, match="no good"):
            result.get(50)
    assert sorted(good) == [0, 4, 8, 12]
    assert len(bad) == 1
    assert sorted(map(type, unraisable), key=str) == [LookupError] * 4 + [SystemExit]


def test_a_callback_that_gives_the_pool_more_work(pool):
    total, done = [], threading.Event()

    def more(value):
        total.append(value)
        if value < 64:
            pool.apply_async(tasks.double, value, callback=more, error_callback=total.append)
        else:
            done.set()

    pool.apply_async(tasks.double, 1, callback=more, error_callback=total.append)
    assert done.wait(50)
    assert total == [2, 4, 8, 16, 32, 64]
    assert pool.apply(tasks.double, 4) == 8


def test_a_callback_that_waits_for_another_task(pool):
    first, second = [], threading.Event()

    def wait(value):
        first.append(pool.apply_async(tasks.double, value))
        first.append(first[0].get(50))
        second.set()

    pool.apply_async(tasks.double, 1, callback=wait)
    assert second.wait(50)
    assert first[1] == 4


def test_a_callback_that_maps(pool):
    found, done = [], threading.Event()

    def run(value):
        try:
            found.append(pool.map(tasks.double, range(value)))
        except BaseException as error:
            found.append(error)
        done.set()

    pool.apply_async(tasks.double, 2, callback=run)
    assert done.wait(50)
    assert found == [[0, 2, 4, 6]] or isinstance(found[0], RuntimeError)
    pool.stop_and_join()


@pytest.mark.parametrize("how", ["terminate", "stop_and_join"])
def test_a_callback_that_ends_the_pool(start_method, how):
    pool = WorkerPool(2, start_method=start_method)
    errors, done = [], threading.Event()

    def end(_):
        try:
            getattr(pool, how)()
        except RuntimeError as error:
            errors.append(str(error))
        done.set()

    later = [pool.apply_async(tasks.slowly, (i, 0.01)) for i in range(10)]
    pool.apply_async(tasks.double, 1, callback=end)
    assert done.wait(50)
    pool.terminate()
    if how == "stop_and_join":  # it would wait for itself
        assert errors == ["a callback can't wait for the end of the pool that called it"]
    for result in later:
        try:
            assert result.get(50) < 10
        except RuntimeError as error:
            assert "Pool was terminated" in str(error)
    with pool:
        assert pool.map(tasks.double, [1]) == [2]


def test_a_callback_that_blocks_delays_no_worker(pool):
    gate, done = threading.Event(), []
    pool.apply_async(tasks.double, 1, callback=lambda _: gate.wait(50))
    results = [pool.apply_async(tasks.double, i, callback=done.append) for i in range(20)]
    timer = threading.Timer(0.05, gate.set)
    timer.start()
    assert [result.get(50) for result in results] == [2 * i for i in range(20)]
    timer.join()
    assert sorted(done) == [2 * i for i in range(20)]


# ---- Iterables -----------------------------------------------------------------------------------------------------


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError("mine"), Stop("mine"), KeyboardInterrupt("mine")], ids=repr)
@pytest.mark.parametrize("name", ["map", "imap_unordered"])
def test_an_iterable_that_raises(pool, error, name):
    def broken():
        yield from range(10)
        raise error

    with pytest.raises(type(error), match="mine"):
        list(getattr(pool, name)(tasks.double, broken(), iterable_len=100, chunk_size=2))
    assert pool.map(tasks.double, [1]) == [2]


def test_an_iterable_that_calls_back(pool):
    seen = []

    def curious():
        yield 1
        for call in (lambda: pool.map(tasks.double, [5]), lambda: list(pool.imap(tasks.double, [5]))):
            with pytest.raises(RuntimeError, match="Cannot call 'map' while another"):
                call()
            seen.append(1)
        yield pool.apply(tasks.double, 4)

    assert pool.map(tasks.double, curious(), iterable_len=2, chunk_size=1) == [2, 16]
    assert seen == [1, 1]


def test_an_iterable_that_ends_the_pool(start_method):
    pool = WorkerPool(2, start_method=start_method)

    def ending():
        yield 1
        pool.terminate()
        yield 2

    with pytest.raises(RuntimeError, match="Pool was terminated"):
        pool.map(tasks.double, ending(), iterable_len=2, chunk_size=1)
    with pool:
        assert pool.map(tasks.double, [1]) == [2]


def test_an_iterable_that_waits_for_results(pool):
    arrived = threading.Event()

    def patient():
        yield 1
        assert arrived.wait(50)
        yield 2

    applied = pool.apply_async(tasks.double, 4, callback=lambda _: arrived.set())
    assert pool.map(tasks.double, patient(), iterable_len=2, chunk_size=1) == [2, 4]
    assert applied.get(50) == 8


def test_a_lazy_map_that_its_own_consumer_closes(pool):
    for stop_after in (0, 1, 3):
        results = pool.imap(tasks.double, range(1000), chunk_size=1)
        for _ in range(stop_after):
            next(results)
        results.close()
        assert list(results) == []
    kept = pool.imap(tasks.double, range(10), chunk_size=1)
    assert next(kept) == 0
    with pytest.raises(RuntimeError, match="Cannot call 'map' while another"):
        pool.map(tasks.double, [1])
    assert list(kept) == [2 * i for i in range(1, 10)]


def test_a_length_that_lies(pool):
    class Liar(list):
        def __len__(self):
            raise LookupError("no len")

    with pytest.raises(LookupError, match="no len"):
        pool.map(tasks.double, Liar([1, 2]))
    assert pool.map(tasks.double, iter([1, 2, 3]), iterable_len=10, chunk_size=1) == [2, 4, 6]


@pytest.mark.parametrize("options", [{"nonsense": 1}, {"position": "top"}, {"desc": faults.Refuses("repr", "raise")}])
def test_bar_options_that_fail(pool, options):
    try:
        found = pool.map(tasks.double, [1, 2], progress_bar=True, progress_bar_options=options)
    except Exception:
        pass
    else:
        assert found == [2, 4]
    assert pool.map(tasks.double, [1]) == [2]


# ---- Init and exit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["demands", "text", "holds", "recursion", "exit"])
def test_init_functions_that_raise_oddly(start_method, kind):
    with WorkerPool(2, start_method=start_method) as pool:
        with pytest.raises(BaseException) as caught:
            pool.map(tasks.double, range(4), worker_init=INITS[kind])
        assert not isinstance(caught.value, AssertionError)
        assert pool.map(tasks.double, [1]) == [2]


INITS = {kind: getattr(faults, f"init_{kind}") for kind in ("demands", "text", "holds", "recursion", "exit")}


@pytest.mark.leaves_threads
def test_an_init_function_that_blocks(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        with pytest.raises(TimeoutError, match=r"worker_init timed out \(timeout=0.2\)"):
            pool.map(tasks.double, range(4), worker_init=faults.block, worker_init_timeout=0.2)
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.leaves_threads
def test_an_exit_function_that_blocks(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        with pytest.raises(TimeoutError, match=r"worker_exit timed out \(timeout=0.2\)"):
            pool.map(tasks.double, range(4), worker_exit=faults.block, worker_exit_timeout=0.2)
        assert pool.map(tasks.double, [1]) == [2]


def test_functions_that_use_the_pool_they_work_for(process_method):
    """A forked worker has the pool's object; it is another process's there."""
    with WorkerPool(2, start_method=process_method) as pool:
        with pytest.raises((RuntimeError, TypeError, NotImplementedError)):
            pool.apply(faults.use_pool, (pool,))
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.parametrize("kind", ["map", "imap", "imap_unordered", "apply_async"])
def test_a_result_that_ends_the_pool_while_it_is_unpickled(process_method, kind, monkeypatch):
    """Others lie behind it, in the same memory; whoever asked is told, and nothing that was freed is read."""
    with WorkerPool(2, start_method=process_method) as pool:
        monkeypatch.setattr(faults.Ender, "pool", pool)
        tasks_ = [(number, 30) for number in range(100)]
        with pytest.raises(RuntimeError, match="Pool was terminated"):
            if kind == "apply_async":
                for result in [pool.apply_async(faults.make_ender, task) for task in tasks_]:
                    result.get()
            elif kind == "map":
                pool.map(faults.make_ender, tasks_, chunk_size=50)
            else:
                for _ in getattr(pool, kind)(faults.make_ender, tasks_, chunk_size=50):
                    pass
        monkeypatch.setattr(faults.Ender, "pool", None)
        assert [each.number for each in pool.map(faults.make_ender, tasks_, chunk_size=50)] == list(range(100))
