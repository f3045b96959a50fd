"""Workers that are replaced, kept, and given work in turn or with a bound."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import tasks
from tercio import WorkerPool

LONG = bool(os.environ.get("TERCIO_LONG"))


def who(worker_id, _):
    # Numbers of processes are used again, within a thousand on a busy machine; not in the same tick of the clock.
    born = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return worker_id, (os.getpid(), born)


@pytest.mark.contract("3 lifespan", "10 exit results")
def test_a_worker_a_task(start_method):
    times = 1000 if LONG else 6 if start_method == "spawn" else 20
    with WorkerPool(2, start_method=start_method, pass_worker_id=True) as pool:
        results = pool.map(who, range(times), chunk_size=1, worker_lifespan=1, worker_exit=exit_id)
        assert len(results) == times
        assert {worker_id for worker_id, *_ in results} <= {0, 1}
        if start_method != "threading":
            assert len({process for _, process in results}) == times
        exits = pool.get_exit_results()
        assert len(exits) == times
        assert sorted(exits) == sorted(worker_id for worker_id, *_ in results)
        assert sum(worker["tasks"] for worker in pool.stats()) == times


def exit_id(worker_id):
    return worker_id


@pytest.mark.contract("3 lifespan")
def test_the_chunk_is_finished_first(start_method):
    with WorkerPool(1, start_method=start_method, use_worker_state=True) as pool:
        assert pool.map(tasks.with_state, range(8), chunk_size=4, worker_lifespan=2) == [1, 2, 3, 4] * 2
        assert pool.map(tasks.with_state, range(4), chunk_size=1, worker_lifespan=3) == [1, 2, 3, 1]


@pytest.mark.contract("2 keep_alive", "3 usable")
def test_every_kind_of_map_after_every_other(start_method):
    kinds = ["map", "map_unordered", "imap", "imap_unordered"]
    with WorkerPool(2, start_method=start_method, keep_alive=True) as pool:
        before = {worker["pid"] for worker in pool.stats()}
        for first in kinds:
            for second in kinds:
                for number, kind in enumerate((first, second)):
                    function = (tasks.double, tasks.identity)[number]
                    results = list(getattr(pool, kind)(function, range(9), chunk_size=number + 1))
                    assert sorted(results) == [function(i) for i in range(9)]
                    if number == 0:
                        with pytest.raises(ValueError, match="no good"):
                            list(getattr(pool, kind)(tasks.fail, range(3)))
        assert not before
        assert sum(worker["restarts"] for worker in pool.stats()) == 0


@pytest.mark.contract("10 kept init", "10 exit results")
def test_kept_workers_run_init_once_and_the_last_exit_function(start_method):
    with WorkerPool(1, start_method=start_method, keep_alive=True, use_worker_state=True) as pool:
        assert pool.map(tasks.with_state, range(2), worker_init=tasks.init_state, worker_exit=exit_none) == [101, 102]
        with pytest.warns(RuntimeWarning, match="worker_exit changed"):
            assert pool.map(tasks.with_state, [0], worker_init=tasks.init_state, worker_exit=tasks.exit_state) == [103]
        assert pool.get_exit_results() == []
        pool.stop_and_join()
        assert pool.get_exit_results() == [103]
        pool.map(tasks.with_state, [0])
        assert pool.get_exit_results() == []


def exit_none(state):
    return None


@pytest.mark.contract("3 init and exit")
def test_a_worker_without_a_task_runs_neither(start_method):
    with WorkerPool(3, start_method=start_method, use_worker_state=True, order_tasks=True) as pool:
        pool.map(tasks.with_state, [1], chunk_size=1, worker_init=tasks.init_state, worker_exit=tasks.exit_state)
        assert pool.get_exit_results() == [101]


@pytest.mark.contract("3 order_tasks")
def test_chunks_in_turn_whatever_they_cost(start_method):
    with WorkerPool(2, start_method=start_method, pass_worker_id=True, order_tasks=True) as pool:
        items = [(i, 0.05 if i == 0 else 0) for i in range(9)]
        results = pool.map(id_slowly, items, chunk_size=1)
        assert results == [i % 2 for i in range(9)]
        assert list(pool.imap(id_slowly, items, chunk_size=3)) == [0] * 3 + [1] * 3 + [0] * 3


def id_slowly(worker_id, value, seconds):
    tasks.slowly(value, seconds)
    return worker_id


@pytest.mark.contract("3 max_tasks_active")
@pytest.mark.parametrize("call", ["map", "map_unordered", "imap", "imap_unordered"])
def test_never_more_tasks_active(start_method, call):
    taken, finished, most = [0], [0], [0]

    def items():
        for i in range(60):
            taken[0] += 1
            most[0] = max(most[0], taken[0] - finished[0])
            yield i

    with WorkerPool(2, start_method=start_method) as pool:
        lazy = pool.imap_unordered if "unordered" in call else pool.imap
        if call.startswith("imap"):
            for _ in lazy(tasks.double, items(), chunk_size=2, max_tasks_active=6):
                finished[0] += 1  # handed out: at least so many are finished
            assert most[0] <= 4 * 6 + 2  # results that wait for their turn are bounded, too
        else:
            assert len(getattr(pool, call)(tasks.double, items(), chunk_size=2, max_tasks_active=6)) == 60


@pytest.mark.contract("3 max_tasks_active")
def test_results_behind_a_slow_one_are_bounded(start_method, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    taken = [0]

    def items():
        for i in range(1000):
            taken[0] += 1
            yield i, str(gate) if i == 0 else ""

    with WorkerPool(2, start_method=start_method) as pool:
        lazy = pool.imap(wait_for_gate, items(), chunk_size=1, max_tasks_active=5)
        # Long enough to take all thousand if nothing held them back; that it does is true at any moment.
        opener = threading.Timer(0.5, gate.write_text, ("",))
        opener.start()
        assert next(lazy) == 0
        assert taken[0] <= 4 * 5
        assert list(lazy) == list(range(1, 1000))
        opener.join()


def wait_for_gate(value, gate):
    if gate:
        with open(gate):
            pass
    return value


def count_up(state, number):
    state["n"] = state.get("n", 0) + 1
    return number


def leave_much(state):
    return {f"key {i}": i for i in range(20_000)}


@pytest.mark.contract("10 exit results")
@pytest.mark.parametrize("lifespan", [None, 3])
def test_large_exit_results(start_method, lifespan):
    """They are too large for a ring, and are read when their workers and those workers' memory are gone."""
    with WorkerPool(2, use_worker_state=True, start_method=start_method) as pool:
        assert pool.map(count_up, range(12), chunk_size=1, worker_exit=leave_much, worker_lifespan=lifespan) == [
            *range(12)
        ]
        results = pool.get_exit_results()
    assert len(results) >= (1 if lifespan is None else 4)
    assert all(result == leave_much(None) for result in results)
