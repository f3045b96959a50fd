"""Helpers that are of use without a pool as well."""

from __future__ import annotations

import os
import time

from tercio import _numpy
from tercio._chunking import chunk_tasks, get_n_chunks
from tercio._core import usable_cpu_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

__all__ = [
    "TimeIt",
    "apply_numpy_chunking",
    "chunk_tasks",
    "cpu_count",
    "format_seconds",
    "get_n_chunks",
    "make_single_arguments",
    "set_cpu_affinity",
    "usable_cpu_count",
]


def cpu_count() -> int:
    """The machine's CPUs, whether this process may use them or not.

    Returns
    -------
    int
        At least 1.

    See Also
    --------
    usable_cpu_count : what ``n_jobs=None`` takes.

    Examples
    --------
    >>> from tercio import cpu_count, usable_cpu_count
    >>> cpu_count() >= 1
    True
    """
    return os.cpu_count() or 1


def set_cpu_affinity(pid: int, mask: Sequence[int]) -> None:
    """Set the CPUs that a process may use. Does nothing where the system has no such call.

    Parameters
    ----------
    pid : int
        The process; 0: this thread.
    mask : sequence of int
        The CPUs' numbers.

    Raises
    ------
    OSError
        If the system refuses.

    Examples
    --------
    >>> import os
    >>> from tercio.utils import set_cpu_affinity
    >>> set_cpu_affinity(0, sorted(os.sched_getaffinity(0)))
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, mask)


def make_single_arguments(iterable_of_args: Iterable[Any], generator: bool = True) -> Iterable[tuple[Any]]:
    """Wrap each element, so that a map call passes it whole instead of unpacking it.

    Parameters
    ----------
    iterable_of_args : iterable
        The elements.
    generator : bool
        Return a generator (the default) or a list.

    Returns
    -------
    generator or list
        Of 1-tuples.

    Examples
    --------
    >>> from tercio.utils import make_single_arguments
    >>> make_single_arguments([(1, 2), (3, 4)], generator=False)
    [((1, 2),), ((3, 4),)]
    """
    singles = ((element,) for element in iterable_of_args)
    return singles if generator else list(singles)


def apply_numpy_chunking(
    iterable_of_args: Any,
    iterable_len: int | None = None,
    chunk_size: float | None = None,
    n_splits: int | None = None,
    n_jobs: int | None = None,
) -> tuple[Iterator[tuple[Any]], int, int, None]:
    """Cut an array along its first axis into pieces that are tasks of their own.

    Parameters
    ----------
    iterable_of_args : numpy.ndarray
        The array, of shape ``(n, ...)``.
    iterable_len : int, optional
        Rows to take. Default: all.
    chunk_size : int or float, optional
        Rows a piece.
    n_splits : int, optional
        Number of pieces. Default: four for each of `n_jobs`.
    n_jobs : int, optional
        Number of workers. Default: the machine's CPUs.

    Returns
    -------
    tuple
        ``(pieces, number of pieces, 1, None)``: iterable, length, chunk size and splits for a map call. The pieces
        are 1-tuples that hold a view of the array.

    Examples
    --------
    >>> import numpy
    >>> from tercio.utils import apply_numpy_chunking
    >>> pieces, number, chunk_size, n_splits = apply_numpy_chunking(numpy.arange(10), n_splits=3)
    >>> number, chunk_size, n_splits
    (3, 1, None)
    >>> [piece.tolist() for (piece,) in pieces]
    [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    """
    if not _numpy.is_array(iterable_of_args):
        raise TypeError(f"iterable_of_args must be a numpy array, not {type(iterable_of_args).__name__}")
    number = get_n_chunks(iterable_of_args, iterable_len, chunk_size, n_splits, n_jobs)
    if number == 0:
        return iter(()), 0, 1, None
    pieces = chunk_tasks(iterable_of_args, iterable_len, chunk_size, None if chunk_size is not None else number)
    return ((piece,) for piece in pieces), number, 1, None


def format_seconds(seconds: float | None, with_milliseconds: bool = True) -> str:
    """A duration for people.

    Parameters
    ----------
    seconds : int, float or None
        The duration in seconds.
    with_milliseconds : bool
        Show three decimals, where there are any.

    Returns
    -------
    str
        ``h:mm:ss`` or ``h:mm:ss.mmm``, with days in front where there are; empty for None.

    Examples
    --------
    >>> from tercio.utils import format_seconds
    >>> format_seconds(79.123)
    '0:01:19.123'
    >>> format_seconds(90061, with_milliseconds=False)
    '1 day, 1:01:01'
    """
    if seconds is None:
        return ""
    if with_milliseconds:
        # Cut, not rounded, like the seconds without milliseconds: a duration never shows as more than it was.
        milliseconds = int(abs(seconds) * 1000 + 1e-6)
    else:
        milliseconds = int(abs(seconds)) * 1000
    sign = "-" if seconds < 0 and milliseconds else ""
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    whole, fraction = divmod(milliseconds, 1000)
    text = f"{hours}:{minutes:02d}:{whole:02d}"
    if with_milliseconds and seconds != int(seconds):
        text += f".{fraction:03d}"
    if days:
        text = f"{days} day{'s' if days != 1 else ''}, {text}"
    return sign + text


class TimeIt:
    """Adds the time spent in a ``with`` block to an entry of an array.

    Parameters
    ----------
    cum_time_array : mutable sequence of float, or None
        Where to add the seconds; None: nowhere.
    array_idx : int
        The entry.
    max_time_array : list of tuple, optional
        A heap of the longest ``(seconds, arguments)``; its smallest entry makes way for a longer one.
    format_args_func : callable, optional
        Gives the arguments' text for `max_time_array`; called without arguments.

    Examples
    --------
    >>> from tercio.utils import TimeIt
    >>> seconds = [0.0]
    >>> with TimeIt(seconds, 0):
    ...     _ = sum(range(1000))
    >>> seconds[0] > 0
    True
    """

    def __init__(
        self,
        cum_time_array: Any,
        array_idx: int,
        max_time_array: list[tuple[float, str]] | None = None,
        format_args_func: Callable[[], str] | None = None,
    ) -> None:
        self.cum_time_array = cum_time_array
        self.array_idx = array_idx
        self.max_time_array = max_time_array
        self.format_args_func = format_args_func
        self.start_time = 0.0

    def __enter__(self) -> TimeIt:
        self.start_time = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self.cum_time_array is None and self.max_time_array is None:
            return
        duration = time.perf_counter() - self.start_time
        if self.cum_time_array is not None:
            self.cum_time_array[self.array_idx] += duration
        if self.max_time_array is not None and (not self.max_time_array or duration > self.max_time_array[0][0]):
            import heapq

            text = self.format_args_func() if self.format_args_func is not None else ""
            heapq.heappushpop(self.max_time_array, (duration, text))
