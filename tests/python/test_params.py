"""Parameters: what is refused is refused by name, before any worker starts."""

from __future__ import annotations

import os
import pickle
import sys
import warnings

import numpy as np
import pytest
from support import descendants
from tasks import double, everything, identity
from tercio import WorkerPool
from tercio.context import DEFAULT_START_METHOD, FORK_AVAILABLE


@pytest.mark.parametrize(
    ("given", "error", "name"),
    [
        ({"n_jobs": -1}, ValueError, "n_jobs"),
        ({"n_jobs": 2.0}, TypeError, "n_jobs"),
        ({"n_jobs": "2"}, TypeError, "n_jobs"),
        ({"start_method": "foo"}, ValueError, "fork.*spawn.*forkserver.*threading"),
        ({"start_method": 3}, TypeError, "start_method"),
        ({"cpu_ids": [0, 0, 0]}, ValueError, "cpu_ids"),
        ({"cpu_ids": [-1]}, ValueError, "cpu_ids"),
        ({"cpu_ids": [100000]}, ValueError, "cpu_ids"),
        ({"cpu_ids": ["0"]}, TypeError, "cpu_ids"),
        ({"cpu_ids": 3}, TypeError, "cpu_ids"),
        ({"cpu_ids": [[0, "1"]]}, TypeError, "cpu_ids"),
        ({"serializer": "json"}, ValueError, "serializer"),
        ({"serializer": "pickle", "use_dill": True}, ValueError, "serializer"),
        ({"preload": ["json"]}, ValueError, "preload"),
    ],
)
@pytest.mark.contract("3 parameters", "2 cpu_ids errors", "10 n_jobs", "1 names")
def test_pool_parameters(given, error, name):
    with pytest.raises(error, match=name):
        WorkerPool(**{"n_jobs": 2, **given})


@pytest.mark.parametrize(
    ("given", "error", "name"),
    [
        ({"chunk_size": 0}, ValueError, "chunk_size"),
        ({"chunk_size": 0.5}, ValueError, "chunk_size"),
        ({"chunk_size": float("nan")}, ValueError, "chunk_size"),
        ({"chunk_size": "1"}, TypeError, "chunk_size"),
        ({"n_splits": 0}, ValueError, "n_splits"),
        ({"n_splits": 1.5}, TypeError, "n_splits"),
        ({"iterable_len": -1}, ValueError, "iterable_len"),
        ({"iterable_len": 3.0}, TypeError, "iterable_len"),
        ({"max_tasks_active": 0}, ValueError, "max_tasks_active"),
        ({"max_tasks_active": "1"}, TypeError, "max_tasks_active"),
        ({"worker_lifespan": 0}, ValueError, "worker_lifespan"),
        ({"worker_lifespan": 1.0}, TypeError, "worker_lifespan"),
        ({"task_timeout": 0}, ValueError, "task_timeout"),
        ({"task_timeout": float("nan")}, ValueError, "task_timeout"),
        ({"worker_init_timeout": -1}, ValueError, "worker_init_timeout"),
        ({"worker_exit_timeout": "1"}, TypeError, "worker_exit_timeout"),
        ({"worker_init": 3}, TypeError, "worker_init"),
        ({"worker_exit": 3}, TypeError, "worker_exit"),
        ({"progress_bar_options": 3}, TypeError, "progress_bar_options"),
        ({"progress_bar_style": "foo"}, ValueError, "progress_bar_style"),
        ({"progress_bar": True, "progress_bar_options": {"position": "a"}}, TypeError, "position"),
        ({"progress_bar_options": {"position": "a"}}, TypeError, "position"),
        ({"progress_bar_options": {"bla": 2}}, KeyError, "bla"),
        ({"progress_bar": True, "progress_bar_options": {1: 2}}, TypeError, "progress_bar_options"),
        ({"progress_bar": True, "progress_bar_options": {"bla": 2}}, KeyError, "bla"),
        ({"on_worker_death": "ignore"}, ValueError, "on_worker_death"),
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
    ],
)
@pytest.mark.parametrize("call", ["map", "map_unordered", "imap", "imap_unordered"])
@pytest.mark.contract("3 parameters")
def test_map_parameters(call, given, error, name):
    before = descendants(os.getpid())
    pool = WorkerPool(2)
    with pytest.raises(error, match=name):
        list(getattr(pool, call)(identity, range(3), **given))
    assert descendants(os.getpid()) == before


@pytest.mark.contract("3 parameters")
def test_what_can_be_neither_called_nor_iterated():
    pool = WorkerPool(2)
    with pytest.raises(TypeError, match="func"):
        pool.map(3, range(3))
    with pytest.raises(TypeError, match="iterable_of_args"):
        pool.map(identity, 3)
    with pytest.raises(TypeError, match="iterable_of_args"):
        pool.map(identity, pytest.importorskip("numpy").array(3))
    with pytest.raises(TypeError, match="func"):
        pool.apply(3)
    with pytest.raises(TypeError, match="kwargs"):
        pool.apply(identity, (), [1])
    with pytest.raises(TypeError, match="error_callback"):
        pool.apply_async(identity, error_callback=1)


def test_lazy_maps_complain_at_the_first_next():
    pool = WorkerPool(2)
    lazy = pool.imap(identity, range(3), chunk_size=0)
    with pytest.raises(ValueError, match="chunk_size"):
        next(lazy)


@pytest.mark.contract("2 constructor")
def test_all_positions_of_the_constructor():
    pool = WorkerPool(3, False, [0], "shared", True, True, "threading", True, False, True, True)
    params = pool.pool_params
    assert (params.n_jobs, params.daemon, params.cpu_ids, params.shared_objects) == (3, False, [[0]] * 3, "shared")
    assert (params.pass_worker_id, params.use_worker_state, params.start_method) == (True, True, "threading")
    assert (params.keep_alive, params.use_dill, params.enable_insights, params.order_tasks) == (True, False, True, True)
    assert "n_jobs=3" in repr(params)


@pytest.mark.contract("10 n_jobs", "1 names")
def test_defaults():
    assert FORK_AVAILABLE
    assert DEFAULT_START_METHOD == "fork"
    assert WorkerPool(0).pool_params.n_jobs == WorkerPool().pool_params.n_jobs >= 1


@pytest.mark.contract("2 serializer missing")
def test_missing_serializer_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dill", None)
    with pytest.raises(ImportError, match=r"tercio\[dill\]"):
        WorkerPool(2, use_dill=True)


def test_unknown_length_warns_and_a_length_does_not():
    with WorkerPool(2, start_method="threading") as pool:
        with pytest.warns(RuntimeWarning, match="iterable_len"):
            assert pool.map(double, iter(range(9))) == [2 * i for i in range(9)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pool.map(double, iter(range(9)), iterable_len=9) == [2 * i for i in range(9)]
            assert pool.map(double, iter(range(9)), chunk_size=2) == [2 * i for i in range(9)]


@pytest.mark.contract("3 unpacking")
def test_unpacking_and_order_of_arguments(start_method):
    elements = [{"a": 1}, (1, 2), [3], "text", b"bytes", 5, None, np.arange(2)]
    with WorkerPool(2, start_method=start_method) as pool:
        results = pool.map(everything, elements, chunk_size=3)
    assert results[:7] == [
        ((), {"a": 1}), ((1, 2), {}), ((3,), {}), (("text",), {}), ((b"bytes",), {}), ((5,), {}), ((None,), {}),
    ]  # fmt: skip
    (array,), nothing = results[7]
    assert array.tolist() == [0, 1]
    assert nothing == {}


@pytest.mark.contract("10 pickled pool")
def test_a_pool_cannot_be_pickled():
    with pytest.raises(NotImplementedError, match="can't be pickled"):
        pickle.dumps(WorkerPool(2))


@pytest.mark.contract("10 pickled pool")
def test_a_pool_does_nothing_in_a_fork():
    with WorkerPool(2, start_method="fork", keep_alive=True) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                pool.map(double, [1])
            except RuntimeError as error:
                code = 0 if "fork" in str(error) else 2
            pool.terminate()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.map(double, [3]) == [6]


def test_ints_of_numpy_are_ints(start_method):
    with WorkerPool(np.int64(2), start_method=start_method) as pool:
        found = pool.map(
            abs, iter(range(-9, 0)), iterable_len=np.int32(4), max_tasks_active=np.int64(8), n_splits=np.int8(2),
            worker_lifespan=np.uint16(50), max_retries=np.int64(1),
        )  # fmt: skip
        assert found == [9, 8, 7, 6]
        assert pool.pool_params.n_jobs == 2


@pytest.mark.parametrize("most", [10**12, sys.maxsize, 10**20])
def test_a_window_larger_than_memory_is_no_limit(start_method, most):
    with WorkerPool(2, start_method=start_method) as pool:
        assert pool.map(abs, range(-5, 0), max_tasks_active=most) == [5, 4, 3, 2, 1]
        assert list(pool.imap(abs, range(-5, 0), max_tasks_active=most)) == [5, 4, 3, 2, 1]


def test_cpus_as_a_range():
    cpu = min(os.sched_getaffinity(0))
    with WorkerPool(1, cpu_ids=range(cpu, cpu + 1)) as pool:
        assert pool.apply(os.sched_getaffinity, (0,)) == {cpu}


def _raise(*_):
    raise ValueError("at once")


@pytest.mark.parametrize("where", ["worker_init", "worker_exit"])
def test_the_cause_names_the_function_that_raised(start_method, where):
    with pytest.raises(ValueError, match="at once") as caught, WorkerPool(1, start_method=start_method) as pool:
        pool.map(abs, [1], **{where: _raise})
    assert "Worker-0, in _raise" in str(caught.value.__cause__)
