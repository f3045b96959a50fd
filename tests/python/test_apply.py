"""The apply family, under each start method."""

from __future__ import annotations

import multiprocessing
import threading

import pytest
import tasks
import values
from tercio import WorkerPool
from tercio.async_result import AsyncResult


@pytest.fixture
def pool(start_method):
    with WorkerPool(2, start_method=start_method) as made:
        yield made


@pytest.mark.contract("4 apply")
def test_apply(pool):
    assert pool.apply(tasks.add, (1, 2)) == 3
    assert pool.apply(tasks.add, 1, {"b": 5}) == 6
    assert pool.apply(tasks.everything) == ((), {})


@pytest.mark.parametrize(
    ("args", "expected"), [((1, 2), (1, 2)), ([1], (1,)), ("ab", ("ab",)), (b"ab", (b"ab",)), (5, (5,)), ({7: 8}, (7,))]
)
@pytest.mark.contract("4 args")
def test_what_args_means(args, expected):
    with WorkerPool(1, start_method="threading") as pool:
        assert pool.apply(tasks.everything, args)[0] == expected


@pytest.mark.parametrize("what", ["enum", "metaclass", "indexed", "record"])
@pytest.mark.contract("4 whole")
def test_apply_passes_whole_what_map_passes_whole(pool, what):
    whole = values.wholes()[what]
    assert pool.map(tasks.everything, [whole]) == [((whole,), {})]
    assert pool.apply(tasks.everything, whole) == ((whole,), {})
    assert pool.apply_async(tasks.everything, whole).get(20) == ((whole,), {})


def test_an_argument_that_fails_to_iterate_is_an_error_at_once(pool):
    with pytest.raises(LookupError, match="no items"):
        pool.apply(tasks.everything, values.Broken())


@pytest.mark.contract("4 AsyncResult")
def test_async_results(pool):
    results = [pool.apply_async(tasks.double, i) for i in range(50)]
    assert all(isinstance(result, AsyncResult) for result in results)
    assert [result.get(20) for result in results] == [2 * i for i in range(50)]
    assert all(result.ready() and result.successful() for result in results)
    assert results[0].get() == 0


@pytest.mark.contract("4 AsyncResult", "10 texts")
def test_too_early(pool):
    result = pool.apply_async(tasks.slowly, (1, 1))
    assert not result.ready()
    with pytest.raises(ValueError, match="is not ready"):
        result.successful()
    with pytest.raises(TimeoutError):
        result.get(0.01)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0)
    result.wait(20)
    assert result.successful()
    assert result.get() == 1


@pytest.mark.contract("4 isolation")
def test_a_failed_task_touches_no_other(pool):
    results = [pool.apply_async(tasks.reciprocal, i) for i in range(4)]
    with pytest.raises(ZeroDivisionError):
        results[0].get(20)
    assert not results[0].successful()
    assert [result.get(20) for result in results[1:]] == [1.0, 0.5, 1 / 3]


@pytest.mark.contract("5 died", "4 isolation")
def test_a_dead_worker_fails_its_task_alone(process_method):
    from tercio.exception import WorkerDiedError

    with WorkerPool(2, start_method=process_method) as pool:
        bad = pool.apply_async(tasks.die, 1)
        good = [pool.apply_async(tasks.double, i) for i in range(10)]
        with pytest.raises(WorkerDiedError):
            bad.get(20)
        assert [result.get(20) for result in good] == [2 * i for i in range(10)]


@pytest.mark.contract("4 callbacks")
def test_callbacks_have_run_before_get_returns(pool):
    seen, failed = [], []
    good = pool.apply_async(tasks.double, 4, callback=seen.append, error_callback=failed.append)
    assert good.get(20) == 8
    assert seen == [8]
    bad = pool.apply_async(tasks.fail, 4, callback=seen.append, error_callback=failed.append)
    with pytest.raises(ValueError, match="no good"):
        bad.get(20)
    assert [type(error) for error in failed] == [ValueError]
    assert seen == [8]


@pytest.mark.contract("4 callbacks")
def test_callbacks_run_though_nobody_waits(pool):
    done = threading.Event()
    pool.apply_async(tasks.double, 4, callback=lambda _: done.set())
    assert done.wait(20)


@pytest.mark.contract("4 callback raises")
def test_a_callback_that_raises_stops_nothing(pool, monkeypatch):
    reports = []
    monkeypatch.setattr("sys.unraisablehook", reports.append)
    result = pool.apply_async(tasks.double, 4, callback=lambda _: 1 / 0)
    assert result.get(20) == 8
    assert [report.exc_type for report in reports] == [ZeroDivisionError]
    del reports[:]


@pytest.mark.contract("2 stop_and_join")
def test_stop_and_join_waits_for_all(pool):
    results = [pool.apply_async(tasks.slowly, (i, 0.02)) for i in range(10)]
    pool.stop_and_join()
    assert [result.get() for result in results] == list(range(10))
    assert pool.apply(tasks.double, 1) == 2


def test_stop_and_join_may_keep_the_workers(process_method):
    with WorkerPool(1, start_method=process_method) as pool:
        first = pool.apply(tasks.where_am_i, 1)
        pool.stop_and_join(keep_alive=True)
        assert pool.apply(tasks.where_am_i, 1) == first


@pytest.mark.contract("10 first apply")
def test_init_and_exit_of_the_first_apply_stay(start_method):
    with WorkerPool(1, use_worker_state=True, start_method=start_method) as pool:
        first = {"worker_init": tasks.init_state, "worker_exit": tasks.exit_state}
        assert pool.apply(tasks.with_state, 1, **first) == 101
        assert pool.apply(tasks.with_state, 1) == 102
        pool.stop_and_join()
        assert pool.get_exit_results() == [102]


@pytest.mark.leaves_threads
@pytest.mark.contract("4 terminated", "10 texts")
def test_results_of_a_terminated_pool_raise_at_once(pool):
    result = pool.apply_async(tasks.slowly, (1, 30))
    pool.terminate()
    with pytest.raises(RuntimeError, match="Pool was terminated"):
        result.get()
    assert pool.apply(tasks.double, 1) == 2


@pytest.mark.contract("4 cancel")
def test_cancel(pool):
    blockers = [pool.apply_async(tasks.slowly, (i, 0.3)) for i in range(2)]
    queued = [pool.apply_async(tasks.slowly, (i, 0)) for i in range(20)]
    assert queued[-1].cancel()
    with pytest.raises(Exception, match="cancel"):
        queued[-1].get(20)
    assert [result.get(20) for result in blockers + queued[:-1]] == [0, 1, *range(19)]
    assert not blockers[0].cancel()


@pytest.mark.contract("4 cancel")
def test_cancel_what_runs(start_method):
    with WorkerPool(1, start_method=start_method) as pool:
        pool.apply(tasks.double, 1)
        result = pool.apply_async(tasks.loop_for_ever, (1,))
        behind = pool.apply_async(tasks.double, 4)
        assert result.cancel()
        with pytest.raises(Exception, match="cancel"):
            result.get(45)
        assert behind.get(45) == 8


@pytest.mark.contract("5 on_error", "4 callbacks")
def test_a_returned_error_is_a_result(pool):
    seen, failed = [], []
    result = pool.apply_async(tasks.fail, 1, on_error="return", callback=seen.append, error_callback=failed.append)
    assert type(result.get(20)) is ValueError
    assert result.successful()
    assert (seen, failed) == ([result.get()], [])


@pytest.mark.contract("4 apply")
def test_a_map_after_apply_keeps_the_workers(pool):
    assert pool.apply(tasks.double, 1) == 2
    assert pool.map(tasks.double, range(5)) == [0, 2, 4, 6, 8]
    assert pool.apply(tasks.double, 2) == 4


@pytest.mark.contract("5 on_error")
def test_on_error_return(pool):
    assert isinstance(pool.apply(tasks.fail, 1, on_error="return"), ValueError)


def test_apply_from_many_threads(pool):
    results = {}

    def work(name):
        results[name] = [pool.apply(tasks.add, (name, i)) for i in range(20)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {name: [name + i for i in range(20)] for name in range(4)}


@pytest.mark.contract("4 await")
def test_asyncio(pool):
    import asyncio

    async def both():
        return await asyncio.gather(*(as_coroutine(pool.apply_async(tasks.double, i)) for i in range(5)))

    async def as_coroutine(result):
        return await result

    assert asyncio.run(asyncio.wait_for(both(), 20)) == [0, 2, 4, 6, 8]


def test_a_repeated_apply_sees_what_changed_since(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        for value in range(3):
            assert pool.apply(tasks.everything, (value,)) == ((value,), {})
        assert pool.apply(tasks.everything, (1,), {"b": 2}) == ((1,), {"b": 2})
        assert pool.apply_async(tasks.identity, ("other",)).get() == "other"
        assert pool.apply(tasks.everything, (4,)) == ((4,), {})
        for wrong in ({"task_timeout": -1}, {"max_retries": -1}, {"on_error": "?"}, {"callback": 1}, {"kwargs": 1}):
            with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
                pool.apply(tasks.everything, (1,), **wrong)
        pool.pass_on_worker_id()
        assert pool.apply(tasks.everything, (5,))[0][0] in (0, 1)
        pool.stop_and_join()
        pool.pass_on_worker_id(False)
        assert pool.apply(tasks.everything, (6,)) == ((6,), {})
        pool.terminate()
        assert pool.apply_async(tasks.everything, (7,)).get() == ((7,), {})
