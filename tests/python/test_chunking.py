"""utils: how tasks are cut up, and the rest of what is of use without a pool."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from tercio import cpu_count, usable_cpu_count, utils


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [
        (10, 2.5, [3, 2, 3, 2]),
        (10, 3, [3, 3, 3, 1]),
        (10, 1, [1] * 10),
        (3, 10, [3]),
        (0, 2, []),
        (7, 1.5, [2, 1, 2, 1, 1]),
    ],
)
def test_chunk_size(n, size, expected):
    chunks = list(utils.chunk_tasks(range(n), chunk_size=size))
    assert [len(chunk) for chunk in chunks] == expected
    assert [task for chunk in chunks for task in chunk] == list(range(n))


@pytest.mark.parametrize(
    ("n", "splits", "expected"), [(10, 3, [4, 3, 3]), (3, 5, [1, 1, 1]), (7, 2, [4, 3]), (0, 4, [])]
)
def test_n_splits(n, splits, expected):
    assert [len(chunk) for chunk in utils.chunk_tasks(range(n), n_splits=splits)] == expected


def test_length_limits_a_generator_and_takes_no_more():
    source = iter(range(100))
    assert list(utils.chunk_tasks(source, 5, chunk_size=2)) == [(0, 1), (2, 3), (4,)]
    assert next(source) == 5


def test_a_length_beyond_machine_words():
    chunks = utils.chunk_tasks(iter(range(5)), int(1e30), chunk_size=2)
    assert list(chunks) == [(0, 1), (2, 3), (4,)]
    assert utils.get_n_chunks(iter(()), 10**30, chunk_size=10) == 10**29


def test_chunking_needs_to_know_something():
    with pytest.raises(ValueError, match="chunk_size or n_splits"):
        list(utils.chunk_tasks(range(3)))
    with pytest.raises(ValueError, match="iterable_len"):
        list(utils.chunk_tasks(iter(range(3)), n_splits=2))
    with pytest.raises(ValueError, match="iterable_len"):
        utils.get_n_chunks(iter(range(3)))


def test_n_chunks():
    assert utils.get_n_chunks(range(1000), n_jobs=2) == 8
    assert utils.get_n_chunks(range(1000), chunk_size=7) == 143
    assert utils.get_n_chunks(range(1000), n_splits=7) == 7
    assert utils.get_n_chunks(range(1000)) == cpu_count() * 4
    assert utils.get_n_chunks(range(3), 100, chunk_size=3) == 1


@pytest.mark.parametrize(("how", "sizes"), [({"n_splits": 3}, [4, 3, 3]), ({"chunk_size": 3}, [3, 3, 3, 1])])
def test_numpy_chunking(how, sizes):
    array = np.arange(20).reshape(10, 2)
    pieces, number, chunk_size, n_splits = utils.apply_numpy_chunking(array, **how)
    pieces = list(pieces)
    assert (number, chunk_size, n_splits) == (len(sizes), 1, None)
    assert all(isinstance(piece, tuple) and len(piece) == 1 for piece in pieces)
    assert [len(piece) for (piece,) in pieces] == sizes
    assert (np.concatenate([piece for (piece,) in pieces]) == array).all()


def test_numpy_chunking_default_and_empty():
    assert utils.apply_numpy_chunking(np.arange(100), n_jobs=3)[1] == 12
    pieces, number, _, _ = utils.apply_numpy_chunking(np.array([]))
    assert (list(pieces), number) == ([], 0)


def test_single_arguments():
    assert list(utils.make_single_arguments([1, (2, 3)])) == [(1,), ((2, 3),)]
    assert utils.make_single_arguments(["a"], generator=False) == [("a",)]


@pytest.mark.parametrize(
    ("seconds", "fine", "coarse"),
    [
        (None, "", ""),
        (0, "0:00:00", "0:00:00"),
        (0.5, "0:00:00.500", "0:00:00"),
        (79.123, "0:01:19.123", "0:01:19"),
        (86405.5, "1 day, 0:00:05.500", "1 day, 0:00:05"),
        (200000, "2 days, 7:33:20", "2 days, 7:33:20"),
    ],
)
def test_format_seconds(seconds, fine, coarse):
    assert utils.format_seconds(seconds, True) == fine
    assert utils.format_seconds(seconds, False) == coarse


def test_time_it():
    total, longest = [0.0, 1.0], [(0.0, "")] * 2
    with utils.TimeIt(total, 1, longest, lambda: "args"):
        pass
    assert total[0] == 0.0
    assert total[1] > 1.0
    assert max(longest)[1] == "args"


def test_cpu_counts():
    assert cpu_count() == multiprocessing.cpu_count()
    assert 1 <= usable_cpu_count() <= cpu_count()
