"""How many applied tasks a pool holds: `apply_async` waits at the bound, and whatever ends that wait."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest
import tasks
from tercio import WorkerPool

BOUND = 3
LONG = 40  # seconds, against a hang


def pass_gate(path, value):
    """Ends when a byte is written to the fifo."""
    with open(path, "rb", buffering=0) as fifo:
        fifo.read(1)
    return value


def init_behind_gate(path):
    pass_gate(path, None)
    raise LookupError("this worker does not want to")


def apply_many(n):
    with WorkerPool(1, start_method="threading", max_pending=2) as inner:
        return sum(result.get(LONG) for result in [inner.apply_async(tasks.double, i) for i in range(n)])


def apply_many_forked(n):
    with WorkerPool(1, start_method="fork", max_pending=2) as inner:
        return sum(result.get(LONG) for result in [inner.apply_async(tasks.double, i) for i in range(n)])


class Gate:
    """Tasks wait there."""

    def __init__(self, folder):
        self.path = str(folder / "fifo")
        os.mkfifo(self.path)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def open(self, n):
        os.write(self.fd, b"x" * n)


@pytest.fixture
def gate(tmp_path):
    made = Gate(tmp_path)
    yield made
    os.close(made.fd)


class UntilItStands:
    """Interrupts the main thread once a list of at least so many has not grown from one tick of a clock to the next."""

    def __init__(self, watched, least):
        self.watched, self.least, self.seen = watched, least, -1

    def tick(self, *_):
        if len(self.watched) == self.seen >= self.least:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.raise_signal(signal.SIGINT)
        self.seen = len(self.watched)

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


def apply_without_end(pool, results, *args):
    while True:
        results.append(pool.apply_async(*args))


# ---- The bound ----------------------------------------------------------------------------------------------------


@pytest.mark.contract("4 max_pending")
def test_apply_async_waits_at_the_bound_and_ctrl_c_ends_the_wait(start_method, gate):
    results = []
    with WorkerPool(2, start_method=start_method, max_pending=BOUND) as pool:
        with UntilItStands(results, BOUND), pytest.raises(KeyboardInterrupt):
            apply_without_end(pool, results, pass_gate, (gate.path, 7))
        assert len(results) == BOUND
        gate.open(BOUND)
        assert [result.get(LONG) for result in results] == [7] * BOUND
        assert pool.apply(tasks.double, 4) == 8


def test_one_that_is_finished_makes_room_though_nobody_takes_its_result(start_method, gate):
    with WorkerPool(1, start_method=start_method, max_pending=1) as pool:
        first = pool.apply_async(pass_gate, (gate.path, 0))
        done = threading.Event()

        def apply_next():
            pool.apply_async(tasks.double, 1)
            done.set()

        thread = threading.Thread(target=apply_next)
        thread.start()
        gate.open(1)
        assert done.wait(LONG)
        thread.join()
        assert first.get(LONG) == 0


def test_a_long_loop_of_quick_tasks(start_method):
    told = []
    with WorkerPool(2, start_method=start_method, max_pending=BOUND) as pool:
        results = [pool.apply_async(tasks.double, i, callback=told.append) for i in range(2000)]
        assert [result.get(LONG) for result in results] == [2 * i for i in range(2000)]
    assert sorted(told) == [2 * i for i in range(2000)]


@pytest.mark.contract("4 max_pending")
def test_a_default_bound(gate):
    results = []
    with WorkerPool(1, start_method="threading") as pool:
        assert pool.pool_params.max_pending is None
        with UntilItStands(results, 10_000), pytest.raises(KeyboardInterrupt):
            apply_without_end(pool, results, pass_gate, (gate.path, 7))
        assert len(results) == 10_000
        for result in results[1:]:
            result.cancel()
        gate.open(1)
        pool.stop_and_join()


def test_memory_is_bounded_too(process_method, gate):
    """Large arguments: many fewer than the bound, so that what waits stays below 256 MiB, more or less."""
    results, size = [], 4 << 20
    with WorkerPool(1, start_method=process_method) as pool:
        results.append(pool.apply_async(pass_gate, (gate.path, 7)))
        with UntilItStands(results, 32), pytest.raises(KeyboardInterrupt):
            apply_without_end(pool, results, len, (bytes(size),))
        assert len(results) <= 80
        gate.open(1)
        assert [result.get(LONG) for result in results] == [7] + [size] * (len(results) - 1)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_what_max_pending_may_be(value, error):
    with pytest.raises(error, match="max_pending"):
        WorkerPool(1, max_pending=value)


def test_max_pending_is_a_keyword_and_may_be_huge(start_method):
    with WorkerPool(1, start_method=start_method, max_pending=int(1e30)) as pool:
        assert pool.apply(tasks.double, 2) == 4
    with pytest.raises(TypeError):
        WorkerPool(1, True, None, None, False, False, "fork", False, False, False, False, 5)


# ---- What ends a wait ------------------------------------------------------------------------------------------------


class Applying(threading.Thread):
    """Applies until it fails."""

    def __init__(self, pool, *args):
        super().__init__()
        self.pool, self.args, self.results, self.error = pool, args, [], None
        self.full = threading.Event()
        self.start()

    def run(self):
        try:
            while True:
                self.results.append(self.pool.apply_async(*self.args))
                if len(self.results) == BOUND:
                    self.full.set()
        except BaseException as error:
            self.error = error


@pytest.mark.contract("4 max_pending")
def test_terminate_ends_every_wait(start_method):
    with WorkerPool(1, start_method=start_method, max_pending=BOUND) as pool:
        first = Applying(pool, tasks.loop_for_ever, (0,))
        assert first.full.wait(LONG)
        second = Applying(pool, tasks.loop_for_ever, (0,))
        pool.terminate()
        for thread in (first, second):
            thread.join(LONG)
            assert isinstance(thread.error, RuntimeError), thread.error
        assert len(first.results) == BOUND
        assert second.results == []


def test_a_pool_that_fails_ends_every_wait(process_method, gate):
    with WorkerPool(1, start_method=process_method, max_pending=BOUND) as pool:
        thread = Applying(pool, tasks.double, (0,), None, None, None, InitOf(gate.path))
        assert thread.full.wait(LONG)
        gate.open(8)
        thread.join(LONG)
        assert isinstance(thread.error, (LookupError, RuntimeError)), thread.error


class InitOf:
    """`init_behind_gate` of a path, for workers of any kind."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        init_behind_gate(self.path)


def test_a_worker_that_dies_makes_room(process_method):
    with WorkerPool(1, start_method=process_method, max_pending=1) as pool:
        results = [pool.apply_async(tasks.die, i) for i in range(4)]
        assert pool.apply(tasks.double, 5) == 10
        for result in results:
            with pytest.raises(RuntimeError, match="killed"):
                result.get(LONG)


def test_a_cancelled_task_makes_room(start_method, gate):
    with WorkerPool(1, start_method=start_method, max_pending=2) as pool:
        first, second = (pool.apply_async(pass_gate, (gate.path, i)) for i in range(2))
        third = []
        thread = threading.Thread(target=lambda: third.append(pool.apply_async(tasks.double, 1)))
        thread.start()
        assert second.cancel()
        thread.join(LONG)
        assert not thread.is_alive()
        gate.open(1)
        assert (first.get(LONG), third[0].get(LONG)) == (0, 2)


# ---- Those who must not wait -----------------------------------------------------------------------------------------


@pytest.mark.contract("4 max_pending")
def test_a_callback_never_waits(start_method, gate):
    """Whatever thread it runs in: none of the tasks that it applies ends before it returns."""
    more, applied = [], threading.Event()

    def apply_more(_):
        more.extend(pool.apply_async(pass_gate, (gate.path, i)) for i in range(20))
        gate.open(20)
        applied.set()

    with WorkerPool(1, start_method=start_method, max_pending=1) as pool:
        pool.apply_async(tasks.double, 1, callback=apply_more)  # in the supervisor's thread
        assert applied.wait(LONG)
        assert [result.get(LONG) for result in more] == list(range(20))
        more.clear()
        pool.apply(tasks.double, (1,), callback=apply_more)  # in this one
        assert [result.get(LONG) for result in more] == list(range(20))


def test_a_task_in_a_thread_of_the_pool_never_waits(gate):
    def apply_more(_):
        return [pool.apply_async(tasks.double, i) for i in range(20)]

    with WorkerPool(1, start_method="threading", max_pending=1) as pool:
        results = pool.apply_async(apply_more, (0,)).get(LONG)
        assert [result.get(LONG) for result in results] == [2 * i for i in range(20)]


# ---- Others that wait ------------------------------------------------------------------------------------------------


def test_several_threads(start_method):
    found = {}

    def apply_all(first):
        results = [pool.apply_async(tasks.double, i) for i in range(first, first + 300)]
        found[first] = [result.get(LONG) for result in results]

    with WorkerPool(2, start_method=start_method, max_pending=BOUND) as pool:
        threads = [threading.Thread(target=apply_all, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {1000 * n: [2 * (1000 * n + i) for i in range(300)] for n in range(4)}


@pytest.mark.parametrize("inner", [apply_many, apply_many_forked])
def test_nested_pools(process_method, inner):
    with WorkerPool(2, daemon=False, start_method=process_method, max_pending=1) as pool:
        results = [pool.apply_async(inner, 40) for _ in range(4)]
        assert [result.get(LONG) for result in results] == [sum(2 * i for i in range(40))] * 4


def test_a_loop_of_asyncio(start_method):
    async def all_at_once():
        return await asyncio.gather(*(pool.apply_async(tasks.double, i) for i in range(300)))

    with WorkerPool(2, start_method=start_method, max_pending=BOUND) as pool:
        assert asyncio.run(all_at_once()) == [2 * i for i in range(300)]


def test_a_map_beside_it(start_method):
    """Each element of an iterable applies a task of the same pool."""

    def elements():
        for i in range(100):
            applied.append(pool.apply_async(tasks.double, i))
            yield i

    applied = []
    with WorkerPool(2, start_method=start_method, max_pending=1) as pool:
        assert pool.apply(tasks.double, 1) == 2
        assert list(pool.imap(tasks.double, elements(), iterable_len=100, chunk_size=1)) == [2 * i for i in range(100)]
        assert [result.get(LONG) for result in applied] == [2 * i for i in range(100)]
