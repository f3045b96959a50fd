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


class Measured(np.ndarray):
    """Has a unit, which travels with it; numpy knows nothing of that."""

    def __array_finalize__(self, given):
        self.unit = getattr(given, "unit", None)

    def __reduce__(self):
        make, arguments, state = super().__reduce__()
        return make, arguments, (state, self.unit)

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.unit = state[1]


class Converted(Measured):
    """Joins in its own way: in the unit of the first."""

    def __array_function__(self, function, types, arguments, keywords):
        if function is not np.concatenate:
            return super().__array_function__(function, types, arguments, keywords)
        (pieces,) = arguments
        scales = {"g": 1, "kg": 1000}
        first = pieces[0].unit
        joined = np.concatenate([piece.view(np.ndarray) * scales[piece.unit] / scales[first] for piece in pieces])
        return in_unit(joined, first, Converted)


class Slotted(np.ndarray):
    __slots__ = ("unit",)


def in_unit(data, unit, kind=Measured):
    array = np.asarray(data, dtype=float).view(kind)
    array.unit = unit
    return array


def masked(values):
    array = np.ma.masked_greater(np.array(values, dtype=float), 5)
    array.fill_value = -1
    return array


def matrix(values):
    return np.array(values).view(np.matrix)  # its constructor warns


def record(values):
    return np.rec.array([tuple(row) for row in values], dtype=[("a", "i8"), ("b", "f8")])


def same(a, b):
    if type(a) is not type(b) or a.dtype != b.dtype or a.shape != b.shape:
        return False
    if isinstance(a, np.ma.MaskedArray):
        return np.array_equal(a.mask, b.mask) and np.array_equal(a.filled(), b.filled())
    return np.array_equal(a, b) and getattr(a, "unit", None) == getattr(b, "unit", None)


KINDS = {
    "masked": ([masked([1, 7]), masked([9]), masked([2])], masked([1, 7, 9, 2])),
    "masked and plain": ([masked([1, 7]), np.array([8.0])], None),
    "matrix": ([matrix([[1, 2]]), matrix([[3, 4], [5, 6]])], matrix([[1, 2], [3, 4], [5, 6]])),
    "records": ([record([(1, 2.5)]), record([(3, 4.5)])], record([(1, 2.5), (3, 4.5)])),
    "with a unit": ([in_unit([1], "kg"), in_unit([2, 3], "kg")], in_unit([1, 2, 3], "kg")),
    "with a way to join": (
        [in_unit([1], "kg", Converted), in_unit([500], "g", Converted)],
        in_unit([1, 0.5], "kg", Converted),
    ),
}


@pytest.mark.contract("3 numpy")
@pytest.mark.parametrize("kind", KINDS)
def test_joined_arrays_keep_their_kind(start_method, kind):
    pieces, whole = KINDS[kind]
    with WorkerPool(2, start_method=start_method) as pool:
        joined = pool.map(tasks.identity, pieces, chunk_size=1)
    if whole is None:
        assert isinstance(joined, np.ma.MaskedArray)
        assert (joined.mask.tolist(), joined.fill_value) == ([False, True, False], -1)
    else:
        assert same(joined, whole)


@pytest.mark.contract("3 numpy")
@pytest.mark.parametrize("kind", ["masked", "matrix", "records", "with a unit"])
def test_an_array_that_is_cut_and_joined_keeps_its_kind(start_method, kind):
    whole = KINDS[kind][1]
    with WorkerPool(2, start_method=start_method) as pool:
        assert same(pool.map(tasks.identity, whole, n_splits=2), whole)


@pytest.mark.contract("3 numpy")
@pytest.mark.parametrize("method", ["threading"])  # numpy pickles a hard mask as a soft one
def test_a_hard_mask_stays_hard(method):
    hard = masked([1, 7])
    hard.harden_mask()
    with WorkerPool(1, start_method=method) as pool:
        assert pool.map(tasks.identity, [hard, hard]).hardmask
        assert not pool.map(tasks.identity, [hard, masked([1])]).hardmask


def with_rows(values):
    array = in_unit(values, "kg")
    array.weights = np.ones(len(values))
    return array


APART = {
    "units that differ": [in_unit([1], "kg"), in_unit([2], "m")],
    "unknown units": [in_unit([1], "kg", Converted), in_unit([2], "m", Converted)],
    "a plain array": [in_unit([1], "kg"), np.zeros(1)],
    "an attribute for each row": [with_rows([1]), with_rows([2])],
    "slots": [np.zeros(1).view(Slotted)] * 2,
}


@pytest.mark.contract("3 numpy")
@pytest.mark.parametrize("kind", APART)
def test_what_would_lose_its_kind_comes_as_a_list(kind):
    pieces = APART[kind]
    with WorkerPool(1, start_method="threading") as pool:
        with pytest.warns(RuntimeWarning, match="can't be concatenated"):
            results = pool.map(tasks.identity, pieces)
    assert isinstance(results, list)
    assert all(result is piece for result, piece in zip(results, pieces))


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
