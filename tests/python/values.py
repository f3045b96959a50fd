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
