"""Types whose objects travel; workers import this alone."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Colour(enum.Enum):
    RED = "red"


class Number(int):
    pass


class Text(str):
    pass


class Pair(tuple):
    pass


class Point(NamedTuple):
    x: object
    y: object


@dataclass(frozen=True)
class Record:
    name: str
    values: tuple


# ---- Arguments that look as if they could be taken apart ---------------------------------------------------------


class Listed(type):
    def __iter__(cls):
        return iter(())


class Registered(metaclass=Listed):
    def __eq__(self, other):
        return type(other) is type(self)

    __hash__ = None


class Indexed:
    """The old sequence protocol, as data sets have it."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return range(2)[index]

    __eq__ = Registered.__eq__
    __hash__ = None


class Broken:
    def __iter__(self):
        raise LookupError("no items")


def wholes():
    """Each is one argument, of a map and of an apply."""
    import numpy

    record = numpy.array([(1, 2.0)], dtype=[("a", int), ("b", float)])[0]
    return {"enum": Colour.RED, "metaclass": Registered(), "indexed": Indexed(), "record": record}
