"""How a number of tasks is cut into chunks."""

from __future__ import annotations

import itertools
import math

from tercio import _numpy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

SPLITS_PER_JOB = 64  # of an iterable of known length
PIECES_PER_JOB = 4  # of a numpy array


def length_of(iterable: Iterable[Any], iterable_len: int | None) -> int | None:
    """The number of tasks, None if it can't be told."""
    try:
        length = len(iterable)  # type: ignore[arg-type]
    except TypeError:
        return iterable_len
    return length if iterable_len is None else min(length, iterable_len)


def sizes(n_tasks: int, n_splits: int) -> Iterator[int]:
    """Sizes of `n_splits` chunks that differ by one at most, the remainder spread; none of them is 0."""
    n_splits = min(n_splits, n_tasks)
    end = 0
    for i in range(1, n_splits + 1):
        begin, end = end, -(-i * n_tasks // n_splits)  # in integers: a length may exceed what a float can tell apart
        yield end - begin


def chunk_tasks(
    iterable_of_args: Iterable[Any],
    iterable_len: int | None = None,
    chunk_size: float | None = None,
    n_splits: int | None = None,
) -> Iterator[Collection[Any]]:
    """Cut tasks into chunks.

    Parameters
    ----------
    iterable_of_args : iterable
        The tasks. A numpy array is cut along its first axis, into views.
    iterable_len : int, optional
        Number of tasks to take; needed when the iterable has no length and `chunk_size` is not given.
    chunk_size : int or float, optional
        Tasks a chunk, at least 1. A fraction is spread: 2.5 gives chunks of 3 and 2 in turn.
    n_splits : int, optional
        Number of chunks; ignored when `chunk_size` is given.

    Yields
    ------
    tuple or numpy.ndarray
        The chunks, none of them empty.

    Raises
    ------
    ValueError
        If neither `chunk_size` nor `n_splits` is given, or the length is needed and unknown.

    Examples
    --------
    >>> from tercio.utils import chunk_tasks
    >>> [len(chunk) for chunk in chunk_tasks(range(10), chunk_size=2.5)]
    [3, 2, 3, 2]
    >>> list(chunk_tasks(range(10), n_splits=3))
    [(0, 1, 2, 3), (4, 5, 6), (7, 8, 9)]
    """
    if chunk_size is None and n_splits is None:
        raise ValueError("chunk_tasks needs chunk_size or n_splits; both are None")
    n_tasks = length_of(iterable_of_args, iterable_len)
    steps: Iterable[int]
    if chunk_size is not None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size!r}, but must be at least 1")
        steps = _spread(chunk_size)
    else:
        assert n_splits is not None
        if n_splits < 1:
            raise ValueError(f"n_splits is {n_splits!r}, but must be at least 1")
        if n_tasks is None:
            raise ValueError("n_splits needs a length: give iterable_len, or an iterable that has a len()")
        steps = sizes(n_tasks, n_splits)
    if _numpy.is_array(iterable_of_args):
        yield from _slices(iterable_of_args, n_tasks or 0, steps)
        return
    tasks = iter(iterable_of_args)
    left = math.inf if n_tasks is None else n_tasks
    for step in steps:
        chunk = tuple(itertools.islice(tasks, int(min(step, left))))
        if not chunk:
            return
        yield chunk
        left -= len(chunk)
        if len(chunk) < step or left <= 0:
            return


def _spread(chunk_size: float) -> Iterator[int]:
    end = 0
    for i in itertools.count(1):
        begin, end = end, math.ceil(i * chunk_size)
        yield end - begin


def _slices(array: Any, n_tasks: int, steps: Iterable[int]) -> Iterator[Any]:
    begin = 0
    for step in steps:
        if begin >= n_tasks:
            return
        end = min(begin + step, n_tasks)
        yield array[begin:end]
        begin = end


def get_n_chunks(
    iterable_of_args: Iterable[Any],
    iterable_len: int | None = None,
    chunk_size: float | None = None,
    n_splits: int | None = None,
    n_jobs: int | None = None,
) -> int:
    """Number of chunks that tasks are cut into.

    Parameters
    ----------
    iterable_of_args : iterable
        The tasks.
    iterable_len : int, optional
        Number of tasks; needed when the iterable has no length.
    chunk_size : int or float, optional
        Tasks a chunk; wins over `n_splits`.
    n_splits : int, optional
        Number of chunks. Default: four for each of `n_jobs`.
    n_jobs : int, optional
        Number of workers. Default: the machine's CPUs.

    Returns
    -------
    int
        Never more than there are tasks.

    Raises
    ------
    ValueError
        If the length is unknown.

    Examples
    --------
    >>> from tercio.utils import get_n_chunks
    >>> get_n_chunks(range(100), chunk_size=7)
    15
    >>> get_n_chunks(range(100), n_jobs=2)
    8
    """
    n_tasks = length_of(iterable_of_args, iterable_len)
    if n_tasks is None:
        raise ValueError("the length is unknown: give iterable_len, or an iterable that has a len()")
    if chunk_size is not None:
        if isinstance(chunk_size, int):
            return -(-n_tasks // chunk_size)
        return min(n_tasks, math.ceil(n_tasks / chunk_size))
    if n_splits is None:
        if not n_jobs:
            import os

            n_jobs = os.cpu_count() or 1
        n_splits = n_jobs * PIECES_PER_JOB
    return min(n_tasks, n_splits)
