"""Contract section 3: arrays as tasks, and arrays as results, under each start method."""

from __future__ import annotations

import numpy as np
import pytest
import tasks
from tercio import WorkerPool


def shape(piece):
    return piece.shape


def ragged(n):
    return np.zeros((2, n))


def sometimes(n):
    return np.zeros(2) if n != 1 else None


def test_pieces_and_concatenation(start_method):
    table = np.arange(22.0).reshape(11, 2)
    with WorkerPool(2, start_method=start_method, keep_alive=True) as pool:
        assert np.array_equal(pool.map(tasks.array_double, table), table * 2)
        assert pool.map(shape, table) == [(2, 2), (1, 2), (2, 2), (1, 2), (1, 2), (2, 2), (1, 2), (1, 2)]
        assert pool.map(shape, table, n_splits=3) == [(4, 2), (4, 2), (3, 2)]
        assert pool.map(shape, table, chunk_size=5) == [(5, 2), (5, 2), (1, 2)]
        assert pool.map(shape, table, iterable_len=4, n_splits=2) == [(2, 2), (2, 2)]
        assert list(pool.imap(shape, table, n_splits=2)) == [(6, 2), (5, 2)]
        assert sorted(pool.map_unordered(shape, table, n_splits=2)) == [(5, 2), (6, 2)]
        pieces = pool.map(tasks.array_double, table, n_splits=2, concatenate_numpy_output=False)
        assert [piece.shape for piece in pieces] == [(6, 2), (5, 2)]
        # Whatever the input was.
        assert np.array_equal(pool.map(np.arange, [1, 3]), [0, 0, 1, 2])
        # Elements that are arrays are not unpacked.
        assert pool.map(shape, [np.zeros((2, 3)), np.zeros(4)]) == [(2, 3), (4,)]
        assert pool.apply(shape, np.zeros((2, 3))) == (2, 3)


@pytest.mark.parametrize(
    ("function", "items"), [(ragged, [1, 2]), (sometimes, range(3)), (np.array, [1, 2])], ids=["ragged", "mixed", "0-d"]
)
def test_what_does_not_fit_comes_as_a_list(function, items):
    with WorkerPool(1, start_method="threading") as pool:
        with pytest.warns(RuntimeWarning, match="concatenated"):
            results = pool.map(function, items)
        assert isinstance(results, list) and len(results) == len(items)


def test_nothing(start_method):
    with WorkerPool(1, start_method=start_method) as pool:
        assert pool.map(tasks.array_double, np.empty((0, 2))) == []


def test_kinds_of_arrays(start_method):
    strided = np.arange(24).reshape(4, 6)[:, ::2]
    structured = np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    arrays = [strided, np.asfortranarray(strided), structured, np.array([{"x": 1}, None], dtype=object), np.array(7)]
    with WorkerPool(2, start_method=start_method) as pool:
        back = pool.map(tasks.identity, arrays, concatenate_numpy_output=False)
        for given, got in zip(arrays, back):
            assert got.dtype == given.dtype and got.shape == given.shape and np.array_equal(got, given)
        back[0][0, 0] = 99  # results are the caller's own
        assert back[0][0, 0] == 99
