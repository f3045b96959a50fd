"""What is encoded comes back as it was: equal, of the same type, floats to the last bit."""

from __future__ import annotations

import array
import datetime
import decimal
import fractions
import math
import struct

import numpy as np
import pytest
import tasks
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tercio import WorkerPool, _core
from values import Colour, Number, Pair, Point, Record, Text

LARGE = 32 * 1024  # from here on bytes travel beside the head


def same(a, b):
    """Equal in value and type, all the way down. NaN is equal to a NaN of the same bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, Record):
        return same((a.name, a.values), (b.name, b.values))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def test_same_can_tell():
    pairs = [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ((1,), [1]),
        (Number(1), 1),
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
        ("a", Text("a")),
    ]
    assert not any(same(a, b) for a, b in pairs)
    assert same(math.nan, math.nan)


_anything_in_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too
_any_bits = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0])
_hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    _anything_in_text,
    st.binary(),
    st.dates(),
    st.builds(Number, st.integers()),
)
_leaf = st.one_of(
    _hashable,
    st.floats(),
    _any_bits,
    st.complex_numbers(),
    st.integers(-(2**63) - 2, -(2**63) + 2) | st.integers(2**31 - 2, 2**31 + 2) | st.integers(2**63 - 2, 2**64),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.datetimes(),
    st.timedeltas(),
    st.uuids(),
    st.binary().map(bytearray),
    st.builds(Text, _anything_in_text),
    st.just(Colour.RED),
    st.sets(st.integers()),
    st.frozensets(_anything_in_text),
    st.lists(st.integers(-128, 127)).map(lambda values: array.array("b", values)),
)
anything = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(Pair),
        st.dictionaries(_hashable, inner),
        st.builds(Point, inner, inner),
        st.builds(Record, _anything_in_text, st.lists(inner).map(tuple)),
    ),
    max_leaves=20,
)
plain = st.recursive(  # what has tags of its own
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), _any_bits, st.text(), st.binary()),
    lambda inner: st.lists(inner, max_size=6).map(tuple),
    max_leaves=20,
)
_hashable_plain = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(), st.binary())
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(anything)
def test_what_is_encoded_comes_back(value):
    assert same(_core.decode(_core.encode(value)), value)


@quick
@given(plain)
def test_small_plain_values_are_not_pickled(value):
    parts = _core.encode(value)
    assert len(parts) == 1 and (parts[0][:1] not in b"pPQ" or deep(value) > 8)
    assert same(_core.decode(parts), value)


@quick
@given(st.lists(plain, max_size=20) | st.dictionaries(_hashable_plain, plain, max_size=20))
def test_an_outermost_list_or_dict_of_them_is_not_pickled(value):
    parts = _core.encode(value)
    inside = [*value, *value.values()] if type(value) is dict else value
    assert len(parts) == 1 and (parts[0][:1] not in b"pPQ" or max(map(deep, inside), default=0) > 7)
    assert same(_core.decode(parts), value)


def test_what_is_there_twice_stays_one():
    """A list or dict inside of another value may be changed through one of its places."""
    for inner in ([1], {"a": 1}):
        for outer in ([inner, inner], (inner, inner), {"a": inner, "b": inner}):
            back = _core.decode(_core.encode(outer))
            first, second = back.values() if type(back) is dict else back
            assert first is second and same(back, outer)
    loop = []
    loop.append(loop)
    back = _core.decode(_core.encode(loop))
    assert back[0] is back
    for many in (
        list(range(1000)),
        dict.fromkeys(range(1000)),
        ["x" * 30_000] * 3,
        {"a": "x" * 30_000, "b": "y" * 40_000},
    ):
        assert same(_core.decode(_core.encode(many)), many)


def deep(value):
    return 1 + max(map(deep, value), default=0) if type(value) is tuple else 0


@quick
@given(plain, st.data())
def test_bytes_that_make_no_sense_are_an_error(value, data):
    head = bytearray(_core.encode(value)[0])
    assume(head[:1] not in b"pPQ")
    cut = data.draw(st.integers(0, len(head)))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(head) - 1), st.integers(0, 255)), max_size=3)):
        head[at] = byte
    assume(head[:1] not in b"pPQ")  # a pickle is believed by its nature
    for broken in (bytes(head[:cut]), bytes(head), bytes(head) + b"N"):
        try:
            _core.decode([broken])
        except (ValueError, UnicodeDecodeError):
            continue


def test_a_head_that_is_cut_off_or_too_long_is_an_error():
    for value in (1, 2**40, 1.5, "text", b"bytes", (1, ("a", None))):
        (head,) = _core.encode(value)
        for broken in [head[:n] for n in range(len(head))] + [head + b"N"]:
            with pytest.raises(ValueError):
                _core.decode([broken])
    for broken in (b"z", b"S", b"Y", b"(\xff\xff\xff\xffN", b"s\xff\xff\xff\xff", b"P\xff\xff\xff\xff"):
        with pytest.raises(ValueError):
            _core.decode([broken])


@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, LARGE + 1, 100_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, str, "é".__mul__, "\ud800".__mul__, np.zeros, "tuple"])
def test_sizes_around_the_limits(kind, size):
    if kind is str:
        value = "x" * size
    elif kind == "tuple":
        value = tuple(range(size))
    else:
        value = kind(size)
    for wrapped in (value, (value, 1), [value, {"key": value}]):
        assert same(_core.decode(_core.encode(wrapped)), wrapped)


@pytest.mark.parametrize("depth", [1, 7, 8, 9, 100])
def test_nesting(depth):
    value = ("bottom", 1.5)
    for _ in range(depth):
        value = (value,)
    assert same(_core.decode(_core.encode(value)), value)


def test_what_refers_to_itself():
    loop = [1]
    loop.append(loop)
    back = _core.decode(_core.encode(loop))
    assert back[1] is back
    shared = [0]
    left, right = _core.decode(_core.encode([shared, shared]))
    assert left is right


@pytest.mark.parametrize("serializer", ["pickle", "dill", "cloudpickle"])
def test_every_serializer(serializer):
    for value in (1, "text", {"a": [1.5, None]}, decimal.Decimal("1.10"), fractions.Fraction(1, 3), np.arange(9000.0)):
        assert same(_core.decode(_core.encode(value, serializer), serializer), value)
    if serializer != "pickle":
        secret = object.__hash__
        assert _core.decode(_core.encode(lambda x: (x, secret is not None), serializer), serializer)(2) == (2, True)


def test_what_cannot_be_pickled_says_so():
    for value in (lambda: 0, (1, (x for x in ())), [open]):
        if value == [open]:
            assert _core.decode(_core.encode(value)) == value
        else:
            with pytest.raises(Exception, match=r"pickle"):
                _core.encode(value)
    assert _core.decode(_core.encode("and the next one")) == "and the next one"


def test_many_buffers_in_one_value():
    value = [np.full(LARGE // 8, float(i)) for i in range(600)]  # more than travel beside the head
    parts = _core.encode(value)
    assert 500 < len(parts) < 600
    assert same(_core.decode(parts), value)


VALUES = [
    None, True, False, 0, -1, 2**31, -(2**63), 2**64, 0.0, -0.0, math.inf, 5e-324, "", "é", "\ud800", "x" * LARGE,
    b"", b"\0" * LARGE, bytearray(b"ab"), (), ((),), (1, "a", (2.5, None)), [1, [2]], {1: {2: 3}}, {1, 2}, Number(7),
    Text("t"), Point(1, 2), Record("r", (1,)), Colour.RED, 1j, datetime.date(2020, 2, 29), decimal.Decimal("0.10"),
    np.arange(5), np.arange(10_000.0), tuple(range(100_000)), range(5), frozenset("ab"), NotImplemented, ..., int,
]  # fmt: skip


def test_through_a_pool(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        wrapped = [(value,) for value in VALUES]
        for chunk_size in (1, 7):
            back = pool.map(tasks.identity, wrapped, chunk_size=chunk_size, concatenate_numpy_output=False)
            assert all(map(same, back, VALUES))
        assert all(same(pool.apply(tasks.identity, (value,)), value) for value in VALUES)


def test_integers_around_every_power_of_two():
    for bits in range(130):
        for value in (2**bits - 1, 2**bits, 2**bits + 1, -(2**bits) - 1, -(2**bits), -(2**bits) + 1):
            assert same(_core.decode(_core.encode(value)), value)
            assert same(_core.decode(_core.encode((value, [value]))), (value, [value]))
