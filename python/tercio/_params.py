"""Checks of parameters. Each error names the parameter and what is allowed; all come before a worker starts."""

from __future__ import annotations

import math
import os
import sys
from _operator import index

from tercio import _numpy
from tercio._chunking import SPLITS_PER_JOB, length_of
from tercio._core import METHODS, usable_cpu_count
from tercio._warn import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

SERIALIZERS = ("pickle", "dill", "cloudpickle")
UNKNOWN_LENGTH_CHUNK = 4
MOST_ACTIVE = 10**9  # more tasks than fit in memory are no limit


def check_int(name: str, value: Any, at_least: int) -> int | None:
    """None, or an int (numpy's are some, too) of at least `at_least`."""
    if value is None:
        return None
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}") from None
    if number < at_least:
        raise ValueError(f"{name} is {number}, but must be at least {at_least}")
    return number


def check_chunk_size(value: object) -> None:
    """None, or a finite number of at least 1."""
    if value is None:
        return
    if not isinstance(value, (int, float)):
        raise TypeError(f"chunk_size must be an int, a float or None, not {type(value).__name__}")
    if not (value >= 1 and value < math.inf):
        raise ValueError(f"chunk_size is {value}, but must be at least 1, and finite")


def check_timeout(name: str, value: object) -> float:
    """Seconds for the engine, in which 0 is no limit."""
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds (int or float) or None, not {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name} is {value}, but must be more than 0 seconds")
    return 0.0 if value == math.inf else float(value)


def check_function(name: str, value: object, none_allowed: bool = True) -> None:
    """A callable, or None where that is allowed."""
    if not callable(value) and not (none_allowed and value is None):
        raise TypeError(f"{name} must be callable{' or None' if none_allowed else ''}, not {type(value).__name__}")


def check_method(method: object) -> str:
    """The name of a start method that this platform has."""
    if not isinstance(method, str):
        raise TypeError(f"start_method must be a str, not {type(method).__name__}")
    if method not in METHODS:
        known = "not available on this platform" if method in ("fork", "forkserver", "spawn") else "unknown"
        raise ValueError(f"start_method {method!r} is {known}; there are: {', '.join(METHODS)}")
    return method


def check_n_jobs(n_jobs: Any) -> int:
    """Number of workers; None and 0 are all CPUs that this process may use."""
    if n_jobs is None:
        return usable_cpu_count()
    if isinstance(n_jobs, bool) or not hasattr(n_jobs, "__index__"):
        raise TypeError(f"n_jobs must be an int or None, not {type(n_jobs).__name__}")
    number = index(n_jobs)
    if number < 0:
        raise ValueError(f"n_jobs is {number}, but must be at least 1 (None or 0: all CPUs)")
    return number or usable_cpu_count()


def check_cpu_ids(cpu_ids: object, n_jobs: int) -> list[list[int]] | None:
    """A list of CPUs for each worker, None for no pinning."""
    if cpu_ids is None:
        return None
    if not isinstance(cpu_ids, (list, tuple, range)):
        raise TypeError(f"cpu_ids must be a list with an entry for each worker, or None, not {type(cpu_ids).__name__}")
    if not cpu_ids:
        return None
    entries: list[list[int]] = []
    for entry in cpu_ids:
        ids = list(entry) if isinstance(entry, (list, tuple, range)) else [entry]
        if not all(isinstance(cpu, int) and not isinstance(cpu, bool) for cpu in ids):
            raise TypeError(f"an entry of cpu_ids must be an int or a list of ints, not {entry!r}")
        if not ids:
            raise ValueError("an entry of cpu_ids is an empty list: a worker needs a CPU")
        entries.append(ids)
    if len(entries) == 1:
        entries *= n_jobs
    if len(entries) != n_jobs:
        raise ValueError(f"cpu_ids has {len(entries)} entries, but must have 1 or n_jobs ({n_jobs})")
    highest = _highest_cpu()
    for ids in entries:
        for cpu in ids:
            if not 0 <= cpu <= highest:
                raise ValueError(f"cpu_ids holds {cpu}, but this machine's CPUs are 0 to {highest}")
    return entries


def _highest_cpu() -> int:
    highest = (os.cpu_count() or 1) - 1
    # Where some CPUs are offline the numbers have gaps, and the count says too little.
    if hasattr(os, "sched_getaffinity"):
        highest = max(highest, *os.sched_getaffinity(0))
    return highest


def check_policy(on_worker_death: object, max_retries: object, on_error: object) -> tuple[int, bool]:
    """The engine's ``(retries, return_errors)`` for the keyword-only parameters of every call."""
    if on_worker_death not in ("raise", "retry"):
        raise ValueError(f"on_worker_death is {on_worker_death!r}, but must be 'raise' or 'retry'")
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error is {on_error!r}, but must be 'raise' or 'return'")
    if max_retries is None:
        raise TypeError("max_retries must be an int, not None")
    retries = check_int("max_retries", max_retries, 0)
    assert retries is not None
    return (retries if on_worker_death == "retry" else 0), on_error == "return"


def check_serializer(use_dill: bool, serializer: object) -> str:
    """The serializer's name, checked to be installed."""
    if serializer is None:
        serializer = "dill" if use_dill else "pickle"
    if serializer not in SERIALIZERS:
        if not isinstance(serializer, str):
            raise TypeError(f"serializer must be a str, not {type(serializer).__name__}")
        raise ValueError(f"serializer is {serializer!r}, but must be one of: {', '.join(SERIALIZERS)}")
    if use_dill and serializer != "dill":
        raise ValueError(f"use_dill=True contradicts serializer={serializer!r}")
    from tercio._serialize import require

    require(serializer)
    return serializer


class WorkerPoolParams:
    """What a pool was made with; ``pool.pool_params``."""

    FIELDS = (
        "n_jobs",
        "cpu_ids",
        "daemon",
        "shared_objects",
        "pass_worker_id",
        "use_worker_state",
        "start_method",
        "keep_alive",
        "use_dill",
        "enable_insights",
        "order_tasks",
        "serializer",
        "max_pending",
    )
    __slots__ = FIELDS

    def __init__(
        self,
        n_jobs: int | None,
        daemon: bool,
        cpu_ids: Sequence[int | Sequence[int]] | None,
        shared_objects: Any,
        pass_worker_id: bool,
        use_worker_state: bool,
        start_method: str,
        keep_alive: bool,
        use_dill: bool,
        enable_insights: bool,
        order_tasks: bool,
        serializer: str | None,
        max_pending: int | None = None,
    ) -> None:
        self.start_method = check_method(start_method)
        self.n_jobs = check_n_jobs(n_jobs)
        self.cpu_ids = check_cpu_ids(cpu_ids, self.n_jobs)
        self.serializer = check_serializer(bool(use_dill), serializer)
        self.use_dill = self.serializer == "dill"
        self.daemon = bool(daemon)
        self.shared_objects = shared_objects
        self.pass_worker_id = bool(pass_worker_id)
        self.use_worker_state = bool(use_worker_state)
        self.keep_alive = bool(keep_alive)
        self.enable_insights = bool(enable_insights)
        self.order_tasks = bool(order_tasks)
        pending = check_int("max_pending", max_pending, 1)
        # A bound past the machine's words is none: no program gets there.
        self.max_pending = None if pending is None else min(pending, sys.maxsize)

    def __repr__(self) -> str:
        return f"WorkerPoolParams({', '.join(f'{name}={getattr(self, name)!r}' for name in self.FIELDS)})"


class MapPlan:
    """What a map call shall do, all of it checked. Holds the iterable, but has taken nothing from it."""

    __slots__ = (
        "adapt",
        "chunk_size",
        "exit_timeout",
        "init_timeout",
        "items",
        "lifespan",
        "limit",
        "max_active",
        "n_tasks",
        "progress",
        "retries",
        "return_errors",
        "task_timeout",
        "was_array",
    )

    items: Iterator[Any]
    progress: tuple[str, dict[str, Any]] | None

    def __init__(
        self,
        n_jobs: int,
        func: Callable[..., Any],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None,
        max_tasks_active: int | None,
        chunk_size: float | None,
        n_splits: int | None,
        worker_lifespan: int | None,
        progress_bar: bool,
        worker_init: Callable[..., Any] | None,
        worker_exit: Callable[..., Any] | None,
        task_timeout: float | None,
        worker_init_timeout: float | None,
        worker_exit_timeout: float | None,
        progress_bar_options: dict[str, Any] | None,
        progress_bar_style: str | None,
        on_worker_death: str,
        max_retries: int,
        on_error: str,
    ) -> None:
        check_function("func", func, none_allowed=False)
        check_function("worker_init", worker_init)
        check_function("worker_exit", worker_exit)
        iterable_len = check_int("iterable_len", iterable_len, 0)
        max_tasks_active = check_int("max_tasks_active", max_tasks_active, 1)
        check_chunk_size(chunk_size)
        n_splits = check_int("n_splits", n_splits, 1)
        worker_lifespan = check_int("worker_lifespan", worker_lifespan, 1)
        self.task_timeout = check_timeout("task_timeout", task_timeout)
        self.init_timeout = check_timeout("worker_init_timeout", worker_init_timeout)
        self.exit_timeout = check_timeout("worker_exit_timeout", worker_exit_timeout)
        self.retries, self.return_errors = check_policy(on_worker_death, max_retries, on_error)
        self.lifespan = worker_lifespan or 0
        self.max_active = min(max_tasks_active or 0, MOST_ACTIVE)

        from tercio.tqdm_utils import check_progress_bar

        self.progress = check_progress_bar(bool(progress_bar), progress_bar_options, progress_bar_style)

        self.was_array = _numpy.is_array(iterable_of_args)
        if self.was_array:
            if iterable_of_args.ndim == 0:  # type: ignore[attr-defined]
                raise TypeError("iterable_of_args must be iterable, not an array without axes")
            from tercio.utils import apply_numpy_chunking

            iterable_of_args, iterable_len, chunk_size, n_splits = apply_numpy_chunking(
                iterable_of_args, iterable_len, chunk_size, n_splits, n_jobs
            )
        try:
            self.items = iter(iterable_of_args)
        except TypeError:
            kind = type(iterable_of_args).__name__
            raise TypeError(f"iterable_of_args must be iterable, not {kind}") from None
        self.n_tasks = length_of(iterable_of_args, iterable_len)
        # A limit past the machine's words is none: no iterator gets there.
        self.limit = iterable_len if iterable_len is not None and iterable_len <= sys.maxsize else -1
        self.adapt = False
        if chunk_size is None and self.n_tasks is not None:
            chunk_size = max(self.n_tasks / (n_splits or n_jobs * SPLITS_PER_JOB), 1)
        elif chunk_size is None:
            warn(
                f"The number of tasks is unknown, so chunks begin with {UNKNOWN_LENGTH_CHUNK} tasks and follow the "
                "measured time. Give iterable_len or chunk_size to choose",
                RuntimeWarning,
            )
            chunk_size = UNKNOWN_LENGTH_CHUNK
            self.adapt = True
        self.chunk_size = float(min(chunk_size, 2**31 - 1))
