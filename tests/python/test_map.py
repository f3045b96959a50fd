"""The map family, under each start method."""

from __future__ import annotations

import itertools
import os
import threading
import time

import numpy as np
import pytest
import tasks
from support import descendants
from tercio import WorkerPool


@pytest.fixture
def pool(start_method):
    with WorkerPool(2, start_method=start_method) as made:
        yield made


@pytest.fixture
def kept(start_method):
    with WorkerPool(2, start_method=start_method, keep_alive=True) as made:
        yield made


@pytest.mark.parametrize("call", ["map", "map_unordered", "imap", "imap_unordered"])
@pytest.mark.parametrize("chunk_size", [None, 1, 2.5, 100])
@pytest.mark.contract("3 order", "3 chunk_size")
def test_every_element_once_and_in_order_where_promised(pool, call, chunk_size):
    results = list(getattr(pool, call)(tasks.double, range(57), chunk_size=chunk_size))
    if "unordered" in call:
        results.sort()
    assert results == [2 * i for i in range(57)]


@pytest.mark.contract("3 iterable_len")
def test_nothing_to_do(pool):
    assert pool.map(tasks.double, []) == []
    assert list(pool.imap(tasks.double, iter(()), chunk_size=1)) == []
    assert pool.map(tasks.double, iter(range(5)), iterable_len=0) == []


@pytest.mark.contract("3 iterable_len")
def test_iterable_len_limits_what_is_taken(pool):
    source = iter(range(100))
    assert pool.map(tasks.double, source, iterable_len=5) == [0, 2, 4, 6, 8]
    assert next(source) == 5


@pytest.mark.contract("10 huge length")
def test_a_length_beyond_machine_words(pool):
    assert pool.map(tasks.double, iter(range(5)), iterable_len=int(1e30), chunk_size=2) == [0, 2, 4, 6, 8]


def test_endless_iterable_is_read_only_as_far_as_needed(pool):
    taken = itertools.count()
    lazy = pool.imap_unordered(tasks.double, taken, chunk_size=1, max_tasks_active=4)
    assert all(next(lazy) % 2 == 0 for _ in range(10))
    lazy.close()
    assert next(taken) <= 100  # finished tasks that wait to be fetched don't count as active


@pytest.mark.contract("3 lazy")
def test_lazy_map_starts_at_first_next_and_closing_stops_it(process_method):
    before = descendants(os.getpid())
    with WorkerPool(2, start_method=process_method) as pool:
        lazy = pool.imap(tasks.slowly, range(1000), chunk_size=1)
        assert descendants(os.getpid()) == before
        assert next(lazy) == 0
        assert len(descendants(os.getpid()) - before) >= 2
        lazy.close()
        assert descendants(os.getpid()) == before
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("3 lazy")
def test_dropping_a_lazy_map_frees_the_pool(kept):
    for value in kept.imap(tasks.double, range(100), chunk_size=1):
        if value == 4:
            break
    del value
    assert kept.map(tasks.double, [1, 2]) == [2, 4]


@pytest.mark.parametrize("second", ["map", "map_unordered", "imap", "imap_unordered"])
@pytest.mark.contract("3 one map", "10 texts")
def test_one_map_at_a_time(pool, second):
    lazy = pool.imap(tasks.double, range(10), chunk_size=1)
    assert next(lazy) == 0
    with pytest.raises(RuntimeError, match="Cannot call 'map' while another 'map' is running"):
        list(getattr(pool, second)(tasks.double, range(3)))
    assert list(lazy) == [2 * i for i in range(1, 10)]
    assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("4 beside a lazy map")
def test_apply_beside_a_lazy_map(pool):
    lazy = pool.imap(tasks.double, range(10), chunk_size=1)
    assert next(lazy) == 0
    assert pool.apply(tasks.add, (1, 2)) == 3
    assert list(lazy) == [2 * i for i in range(1, 10)]


@pytest.mark.contract("10 lazy terminated", "10 texts")
def test_a_lazy_map_of_a_terminated_pool_raises(pool):
    lazy = pool.imap(tasks.slowly, range(50), chunk_size=1)
    assert next(lazy) == 0
    pool.terminate()
    with pytest.raises(RuntimeError, match="Pool was terminated"):
        list(lazy)
    assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("3 iterable raises", "3 usable")
def test_the_iterables_own_error_comes_out_and_the_pool_lives(kept):
    def broken():
        yield 1
        yield 2
        raise LookupError("no third")

    with pytest.raises(LookupError, match="no third"):
        kept.map(tasks.double, broken(), chunk_size=1)
    assert kept.map(tasks.double, [1, 2]) == [2, 4]


@pytest.mark.contract("2 keep_alive")
def test_workers_end_with_the_call_unless_kept(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        first = set(pool.map(tasks.where_am_i, range(20), chunk_size=1))
        assert not set(pool.map(tasks.where_am_i, range(20), chunk_size=1)) & first
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        first = set(pool.map(tasks.where_am_i, range(20), chunk_size=1))
        assert set(pool.map(tasks.where_am_i, range(20), chunk_size=1)) <= {worker["pid"] for worker in pool.stats()}
        pool.set_shared_objects(None)
        assert not set(pool.map(tasks.where_am_i, range(20), chunk_size=1)) & first


@pytest.mark.contract("2 keep_alive")
def test_kept_workers_take_new_functions(kept):
    assert kept.map(tasks.double, [1, 2]) == [2, 4]
    assert kept.map(tasks.add, [1, 2]) == [11, 12]
    assert kept.map(tasks.double, [1, 2], chunk_size=2, max_tasks_active=1) == [2, 4]


@pytest.mark.parametrize("method", ["fork", "threading"])
def test_functions_without_a_name(method):
    offset = 5
    with WorkerPool(2, start_method=method, keep_alive=True) as pool:
        assert pool.map(lambda x: x + offset, range(3)) == [5, 6, 7]
        assert pool.map(lambda x: x - offset, range(3)) == [-5, -4, -3]


def test_a_bound_method_is_called_as_its_object_is_now(kept):
    counter = tasks.Counter()
    assert kept.map(counter.plus, [1, 2]) == [1, 2]
    counter.base = 10
    assert kept.map(counter.plus, [1, 2]) == [11, 12]


@pytest.mark.contract("2 arguments")
def test_order_of_arguments(start_method):
    with WorkerPool(2, True, None, "shared", True, True, start_method) as pool:
        results = pool.map(tasks.all_arguments, range(8), chunk_size=1)
    assert {worker_id for worker_id, *_ in results} <= {0, 1}
    assert [rest for _, *rest in results] == [["shared", "dict", i] for i in range(8)]


@pytest.mark.contract("2 setters")
def test_setters(start_method):
    with WorkerPool(2, start_method=start_method, keep_alive=True) as pool:
        assert pool.map(tasks.double, [1]) == [2]
        pool.set_shared_objects(7)
        assert pool.map(tasks.shared_and_value, [1]) == [(7, 1)]
        pool.pass_on_worker_id()
        pool.set_use_worker_state()
        assert pool.map(tasks.all_arguments, [1])[0][1:] == (7, "dict", 1)
        pool.pass_on_worker_id(False)
        pool.set_use_worker_state(False)
        pool.set_shared_objects()
        assert pool.map(tasks.double, [1]) == [2]


@pytest.mark.contract("3 order_tasks")
def test_order_tasks_gives_chunks_in_turn(start_method):
    with WorkerPool(3, pass_worker_id=True, start_method=start_method, order_tasks=True, keep_alive=True) as pool:
        for _ in range(2):
            results = pool.map(tasks.everything, range(12), chunk_size=2)
            assert [args[0] for args, _ in results] == [i // 2 % 3 for i in range(12)]


@pytest.mark.contract("3 init and exit", "10 exit results")
def test_worker_state_init_and_exit(start_method):
    with WorkerPool(2, use_worker_state=True, start_method=start_method) as pool:
        results = pool.map(
            tasks.with_state, range(10), chunk_size=1, worker_init=tasks.init_state, worker_exit=tasks.exit_state
        )
        assert min(results) == 101
        exits = pool.get_exit_results()
        assert sum(count - 100 for count in exits) == 10
        assert 1 <= len(exits) <= 2


@pytest.mark.contract("10 exit results", "2 stop_and_join")
def test_exit_results_of_kept_workers_come_at_the_end(kept):
    kept.map(tasks.double, range(20), chunk_size=1, worker_exit=tasks.exit_constant)
    assert kept.get_exit_results() == []
    kept.stop_and_join()
    exits = kept.get_exit_results()
    assert 1 <= len(exits) <= 2
    assert set(exits) == {"bye"}


@pytest.mark.contract("10 kept init")
def test_changed_init_of_kept_workers_warns(kept):
    kept.map(tasks.double, range(20), chunk_size=1)
    with pytest.warns(RuntimeWarning, match="worker_exit changed"):
        kept.map(tasks.double, range(20), chunk_size=1, worker_exit=tasks.exit_constant)
    kept.stop_and_join()
    assert set(kept.get_exit_results()) == {"bye"}


@pytest.mark.contract("3 lifespan")
def test_worker_lifespan_replaces_workers(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        pids = pool.map(tasks.where_am_i, range(20), chunk_size=1, worker_lifespan=2, worker_exit=tasks.exit_constant)
        assert all(pids.count(pid) <= 2 for pid in set(pids))
        assert len(pool.get_exit_results()) == len(set(pids))


@pytest.mark.contract("3 numpy")
def test_numpy_in_and_out(pool):
    array = np.arange(20, dtype=float).reshape(10, 2)
    assert (pool.map(tasks.array_double, array) == array * 2).all()
    pieces = pool.map(tasks.array_double, array, n_splits=3, concatenate_numpy_output=False)
    assert [len(piece) for piece in pieces] == [4, 3, 3]
    assert sum(pool.map(tasks.array_sum, array, chunk_size=4)) == array.sum()
    assert [len(piece) for piece in pool.imap(tasks.array_double, array, chunk_size=4)] == [4, 4, 2]
    assert pool.map(tasks.array_double, np.array([])) == []


@pytest.mark.contract("3 numpy")
def test_results_that_cannot_be_joined(pool):
    with pytest.warns(RuntimeWarning, match="concatenated"):
        results = pool.map(np.ones, [(2,), (3,)] and [((2, 2),), ((2, 3),)])
    assert [result.shape for result in results] == [(2, 2), (2, 3)]


def test_large_arrays_travel_both_ways(pool):
    arrays = [np.full(300_000, i, dtype=float) for i in range(6)]
    results = pool.map(tasks.array_double, [(array,) for array in arrays], chunk_size=1, concatenate_numpy_output=False)
    assert [result[-1] for result in results] == [0, 2, 4, 6, 8, 10]
    results[0][0] = 1.0  # what comes back is the caller's own, to write to as well


@pytest.mark.contract("1 shared buffers")
def test_shared_array_is_copied_on_write(process_method):
    array = np.arange(200_000, dtype=float)
    with WorkerPool(2, shared_objects=array, start_method=process_method) as pool:
        assert pool.map(tasks.shared_total, range(4)) == [array.sum() + i for i in range(4)]
        pool.map(tasks.write_shared, range(4))
    assert array[0] == 0


@pytest.mark.contract("2 inheritance", "10 ctx")
def test_shared_locks_and_values(start_method):
    pool = WorkerPool(2, start_method=start_method)
    shared = (pool.ctx.Lock(), pool.ctx.Value("i", 0))
    with pool:
        pool.set_shared_objects(shared)
        pool.map(tasks.locked_increment, range(100), chunk_size=1)
    assert shared[1].value == 100


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.contract("2 wrong context")
def test_a_lock_of_the_wrong_context_says_which_is_right(method):
    import multiprocessing

    with (
        WorkerPool(2, shared_objects=multiprocessing.get_context("fork").Lock(), start_method=method) as pool,
        pytest.raises(RuntimeError, match=method),
    ):
        pool.map(tasks.shared_and_value, range(3))


@pytest.mark.contract("2 inheritance")
def test_a_manager_works_under_every_method(process_method):
    import multiprocessing

    with multiprocessing.get_context("spawn").Manager() as manager:
        box = manager.list()
        with WorkerPool(2, shared_objects=box, start_method=process_method) as pool:
            pool.map(tasks.append_to, range(6), chunk_size=1)
        assert sorted(box) == list(range(6))


@pytest.mark.contract("2 process")
def test_what_multiprocessing_believes(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        for name, daemon, parent in pool.map(tasks.process_facts, range(4)):
            assert name in ("Worker-0", "Worker-1")
            assert daemon
            assert parent == os.getpid()


@pytest.mark.contract("2 daemon")
def test_daemons_have_no_children_and_others_may(process_method):
    with WorkerPool(2, start_method=process_method) as pool, pytest.raises(AssertionError):
        pool.map(tasks.start_child, range(2))
    with WorkerPool(2, start_method=process_method) as pool, pytest.raises(AssertionError):
        pool.map(tasks.nested, [([1], "spawn")])
    with WorkerPool(2, daemon=False, start_method=process_method) as pool:
        assert pool.map(tasks.start_child, range(2)) == [None, None]


@pytest.mark.parametrize("inner", ["fork", "spawn", "forkserver", "threading"])
@pytest.mark.contract("2 nested")
def test_nested_pools(start_method, inner):
    with WorkerPool(2, daemon=False, start_method=start_method) as pool:
        assert pool.map(tasks.nested, [([1, 2], inner), ([3], inner)]) == [[2, 4], [6]]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.contract("10 environment")
def test_workers_know_the_environment_as_it_is_now(method, monkeypatch, tmp_path):
    monkeypatch.setenv("TERCIO_TEST", "here")
    monkeypatch.chdir(tmp_path)
    with WorkerPool(1, start_method=method) as pool:
        assert pool.map(tasks.environment, ["TERCIO_TEST"]) == [("here", str(tmp_path))]


@pytest.mark.contract("10 spread", "10 ctx")
def test_every_worker_gets_its_first_chunk_before_any_gets_ahead(start_method):
    pool = WorkerPool(3, start_method=start_method)
    with pool:
        pool.set_shared_objects(pool.ctx.Barrier(3))
        assert pool.map(tasks.wait_for_all, range(3), chunk_size=1) == [0, 1, 2]


@pytest.mark.contract("2 cpu_ids")
def test_cpu_ids(start_method):
    cpu = min(os.sched_getaffinity(0))
    with WorkerPool(2, cpu_ids=[cpu], start_method=start_method) as pool:
        assert pool.map(tasks.affinity, range(4)) == [{cpu}] * 4


def test_insights(start_method):
    with WorkerPool(2, start_method=start_method, enable_insights=True) as pool:
        pool.map(tasks.slowly, [(i, 0.01) for i in range(10)], chunk_size=1)
        insights = pool.get_insights()
        assert sum(insights["n_completed_tasks"]) == 10
        assert len(insights["working_time"]) == 2
        ratios = [insights[f"{kind}_ratio"] for kind in ("start_up", "init", "waiting", "working", "exit")]
        assert sum(ratios) == pytest.approx(1, abs=1e-3)
        assert [worker["tasks"] for worker in pool.stats()] == insights["n_completed_tasks"]
        with WorkerPool(1) as other:
            assert other.get_insights() == {}


def test_two_pools_and_two_threads_at_once(start_method):
    results = {}

    def work(name):
        with WorkerPool(2, start_method=start_method) as pool:
            results[name] = pool.map(tasks.double, range(200), chunk_size=5)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {name: [2 * i for i in range(200)] for name in range(2)}


def test_a_progress_bar_reaches_its_total(pool, capsys):
    assert pool.map(tasks.double, range(30), progress_bar=True) == [2 * i for i in range(30)]
    assert "30/30" in capsys.readouterr().err
    options = {"desc": "lazily"}
    assert len(list(pool.imap(tasks.double, range(30), progress_bar=True, progress_bar_options=options))) == 30
    shown = capsys.readouterr().err
    assert "30/30" in shown
    assert "lazily" in shown
    assert options == {"desc": "lazily"}


@pytest.mark.leaves_threads
@pytest.mark.contract("2 terminate", "10 texts")
def test_terminate_from_another_thread_ends_a_map(pool):
    started = threading.Event()

    def numbers():
        yield 0
        started.set()
        while True:
            yield 60

    def stop():
        started.wait(20)
        pool.terminate()

    stopper = threading.Thread(target=stop)
    stopper.start()
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="Pool was terminated"):
        pool.map(tasks.slowly, ((0, seconds) for seconds in numbers()), chunk_size=1, max_tasks_active=4)
    stopper.join(20)
    assert time.monotonic() - began < 25
