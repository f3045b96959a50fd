"""An AsyncResult that is awaited, and awaits that are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from pathlib import Path

import pytest
import tasks
from tercio import WorkerPool

BOUND = 40  # against a hang; what a task would take if nobody stopped it


def stay(pool, marker, **options):
    return pool.apply_async(tasks.mark_and_stay, (str(marker), 3 * BOUND), **options)


async def begun(marker):
    await asyncio.sleep(0)  # what is awaited is awaited by now
    while not Path(marker).exists():
        await asyncio.sleep(0.001)


async def as_coroutine(result):
    return await result


def run(main):
    return asyncio.run(asyncio.wait_for(main, BOUND))


@pytest.fixture
def pool(start_method):
    with WorkerPool(1, start_method=start_method) as pool:
        pool.apply(tasks.double, (1,))
        yield pool


async def give_up_by_wait_for(result, marker):
    await begun(marker)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(result, 0.01)


async def give_up_by_timeout(result, marker):
    await begun(marker)
    with contextlib.suppress(asyncio.TimeoutError):
        async with asyncio.timeout(0.01):
            await result


async def give_up_by_cancel(result, marker):
    task = asyncio.ensure_future(as_coroutine(result))
    await begun(marker)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def give_up_by_gather(result, marker):
    both = asyncio.gather(as_coroutine(result), asyncio.sleep(BOUND))
    await begun(marker)
    both.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await both


async def give_up_by_group(result, marker):
    async def fails():
        await begun(marker)
        raise ValueError("the group is cancelled")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(as_coroutine(result))
            group.create_task(fails())
    except BaseException as error:  # a group of exceptions
        assert type(error.exceptions[0]) is ValueError


async def give_up_at_the_loops_end(result, marker):
    global _kept
    _kept = asyncio.ensure_future(as_coroutine(result))
    await begun(marker)


WAYS = [give_up_by_wait_for, give_up_by_cancel, give_up_by_gather, give_up_at_the_loops_end]
if sys.version_info >= (3, 11):
    WAYS += [give_up_by_timeout, give_up_by_group]


@pytest.mark.contract("4 await cancelled")
@pytest.mark.parametrize("give_up", WAYS)
def test_a_task_is_cancelled_with_its_await(pool, give_up, tmp_path):
    results, errors = [], []
    result = stay(pool, tmp_path / "begun", callback=results.append, error_callback=errors.append)
    run(give_up(result, tmp_path / "begun"))
    assert pool.apply_async(tasks.double, (4,)).get(BOUND) == 8  # by the one worker
    with pytest.raises(Exception, match="cancel") as raised:
        result.get(BOUND)
    assert (results, errors) == ([], [raised.value])


@pytest.mark.contract("4 await cancelled")
def test_a_queued_task_is_cancelled_with_its_await(pool, tmp_path):
    first = stay(pool, tmp_path / "first")
    queued = stay(pool, tmp_path / "queued")

    async def give_up():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queued, 0.01)

    run(give_up())
    with pytest.raises(Exception, match="cancel"):
        queued.get(BOUND)
    assert first.cancel()
    assert pool.apply(tasks.double, (4,)) == 8
    assert not (tmp_path / "queued").exists()


@pytest.mark.contract("4 await cancelled")
def test_a_shielded_task_goes_on(pool):
    async def main():
        result = pool.apply_async(tasks.slowly, (5, 0.2))
        for _ in range(2):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(result), 0.001)
        return await result

    assert run(main()) == 5


@pytest.mark.contract("4 await cancelled")
def test_others_that_await_a_cancelled_task(pool, tmp_path):
    async def main():
        result = stay(pool, tmp_path / "begun")
        one, other = (asyncio.ensure_future(as_coroutine(result)) for _ in range(2))
        await begun(tmp_path / "begun")
        one.cancel()
        return await asyncio.gather(one, other, return_exceptions=True)

    one, other = run(main())
    assert type(one) is asyncio.CancelledError
    assert "cancel" in str(other)


def test_an_await_that_is_cancelled_when_the_result_is_there(pool):
    async def main():
        result = pool.apply_async(tasks.double, (3,))
        task = asyncio.ensure_future(as_coroutine(result))
        await asyncio.sleep(0)
        result.wait(BOUND)  # the loop has not heard of it yet
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return result

    assert run(main()).get(0) == 6


def test_a_loop_that_is_closed_under_an_await(pool):
    loop = asyncio.new_event_loop()
    result = pool.apply_async(tasks.slowly, (2, 0.1))
    coroutine = as_coroutine(result)
    coroutine_of_the_loop = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert result.get(BOUND) == 2  # nobody has cancelled it
    coroutine_of_the_loop._log_destroy_pending = False
    coroutine.close()


def test_awaits_in_several_loops(pool, tmp_path):
    result = pool.apply_async(tasks.slowly, (7, 0.2))
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(run(as_coroutine(result)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [7, 7, 7]
