"""Types for those who check their programs; imported by type checkers alone."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar


class ArrayLike(Protocol):
    """A numpy array, told without numpy."""

    def __array_finalize__(self, obj: Any, /) -> None:
        """Only arrays have it."""


R = TypeVar("R")
A = TypeVar("A", bound=ArrayLike)
