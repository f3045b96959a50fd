"""Several threads that use one pool: each hears of what is its own, whoever else is asleep."""

from __future__ import annotations

import os
import threading
import time

import pytest
from tercio import WorkerPool

BOUND = 20.0


def read_from(path):
    """Ends when somebody has opened the fifo to write."""
    with open(path) as fifo:
        return fifo.read()


def double(x):
    return 2 * x


def again(x):
    return 2 * x


class Slow:
    """Unpickled in the caller's process, by whoever reads the answer; that lets other threads run meanwhile."""

    begun = threading.Event()
    goes_on = threading.Event()

    def __reduce__(self):
        return make_slowly, ()


def make_slowly():
    Slow.begun.set()
    assert Slow.goes_on.wait(BOUND)
    return "made"


@pytest.fixture
def fifo(tmp_path):
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    return path


def start(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def end(*threads):
    for thread in threads:
        thread.join(BOUND)
        assert not thread.is_alive()


def release(path):
    with open(path, "w"):
        pass


@pytest.mark.parametrize("lazy", [False, True])
def test_a_callback_comes_though_a_map_is_asleep(start_method, fifo, lazy):
    """The map's task ends after it."""
    with WorkerPool(2, start_method=start_method) as pool:
        pool.map(double, range(4))

        def consume():
            list(pool.imap(read_from, [fifo])) if lazy else pool.map(read_from, [fifo], chunk_size=1)

        for _ in range(10):
            consumer = start(consume)
            opened = os.open(fifo, os.O_WRONLY)  # it waits in its task now
            came = threading.Event()
            pool.apply_async(double, (1,), callback=lambda _: came.set())
            assert came.wait(BOUND)
            os.close(opened)
            end(consumer)


def test_a_cancelled_task_is_told_at_once(start_method, fifo):
    with WorkerPool(1, start_method=start_method) as pool:
        first = pool.apply_async(read_from, (fifo,))
        opened = os.open(fifo, os.O_WRONLY)
        told = threading.Event()
        later = [pool.apply_async(double, (1,), error_callback=lambda _: told.set()) for _ in range(4)]
        assert later[-1].cancel()
        assert told.wait(BOUND)
        os.close(opened)
        assert first.get(BOUND) == ""
        assert [result.get(BOUND) for result in later[:-1]] == [2] * 3


def after(path, kind):
    read_from(path)
    return Slow() if kind == "slow" else None


def hear_of_both(pool, gates):
    """Returns whether it was the thread that waits for the second result that ran the callback of the first."""
    entered, leaves, got, who = threading.Event(), threading.Event(), [], []

    def stay(_):
        who.append(threading.get_ident())
        entered.set()
        assert leaves.wait(BOUND)

    Slow.begun.clear()
    Slow.goes_on.clear()
    pool.apply_async(after, (gates[0], ""), callback=stay)
    result = pool.apply_async(after, (gates[1], "slow"))
    getter = start(lambda: got.append(result.get()))
    release(gates[0])
    assert entered.wait(BOUND)
    was_getter = who == [getter.ident]
    release(gates[1])
    if was_getter:
        assert Slow.begun.wait(BOUND)
    leaves.set()
    Slow.goes_on.set()
    end(getter)
    assert got == ["made"]
    return was_getter


def test_a_result_that_another_thread_reads(process_method, fifo, tmp_path):
    """The supervisor reads it, while who waits for it is in a callback and then asleep beside a lazy map."""
    gates = [str(tmp_path / name) for name in "ab"]
    for gate in gates:
        os.mkfifo(gate)
    with WorkerPool(3, start_method=process_method) as pool:
        list(pool.imap(double, range(6)))
        consumer = start(lambda: list(pool.imap(read_from, [fifo])))
        opened = os.open(fifo, os.O_WRONLY)
        try:
            assert any(hear_of_both(pool, gates) for _ in range(50))
        finally:
            os.close(opened)
        end(consumer)


def test_a_getter_rests_while_the_supervisor_is_in_a_callback(start_method, fifo):
    """What came for another function is the supervisor's: who waits for its own result sleeps on."""
    leaves = threading.Event()
    with WorkerPool(3, start_method=start_method) as pool:
        pool.map(double, range(6))
        entered = threading.Event()
        pool.apply_async(double, (1,), callback=lambda _: (entered.set(), leaves.wait(BOUND)))
        assert entered.wait(BOUND)
        other = pool.apply_async(again, (1,))
        result = pool.apply_async(read_from, (fifo,))
        opened = os.open(fifo, os.O_WRONLY)
        used = []

        def get():
            before = time.thread_time()
            result.get()
            used.append(time.thread_time() - before)

        getter = start(get)
        getter.join(1.0)
        assert getter.is_alive()
        os.close(opened)
        end(getter)
        assert used[0] < 0.5  # seconds of CPU; it would have been all of the second
        leaves.set()
        assert other.get(BOUND) == 2


def leave():
    return sum(range(300_000))


@pytest.mark.parametrize("n", [2, 3])
def test_all_who_stop_and_join_come_back(start_method, n):
    for _ in range(5 if start_method in ("spawn", "forkserver") else 20):
        pool = WorkerPool(2, start_method=start_method)
        pool.map(double, range(4), worker_exit=leave)
        results = [pool.apply_async(double, (i,)) for i in range(3)]
        raised = []

        def stop(pool=pool, raised=raised):
            try:
                pool.stop_and_join()
            except Exception as exc:
                raised.append(exc)

        end(*[start(stop) for _ in range(n)])
        assert raised == []
        assert [result.get(0) for result in results] == [0, 2, 4]
