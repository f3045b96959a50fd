"""Open files that fresh workers get with their start.

The parent notes which of its descriptors they need (`Handed`), and the pool passes copies of these on by whatever way
its start method has; a worker takes its own by their place in that list. Nothing is opened by a path: /proc may be
missing, or belong to another user after a ``setuid``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_mine: list[int] = []  # in a worker: those that nobody has taken are -1 from then on


class Handed:
    """The descriptors for one pool's workers. Their owners keep them open until the pool has copied them."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        """Note one; its place is what a worker calls `take` with."""
        self.fds.append(fd)
        return len(self.fds) - 1


class Place:
    """What multiprocessing's objects are pickled with in place of a descriptor."""

    def __init__(self, place: int) -> None:
        self.place = place

    def detach(self) -> int:
        """Give the worker's own descriptor to the caller."""
        return take(self.place)


def enter(fds: Sequence[int]) -> None:
    """In a worker: these are what the parent has noted."""
    _mine[:] = fds


def take(place: int) -> int:
    """In a worker: its descriptor at a place, which belongs to the caller afterwards."""
    fd, _mine[place] = _mine[place], -1
    if fd < 0:
        raise OSError("the descriptor at this place was taken before")
    return fd
