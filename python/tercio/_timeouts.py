"""The package's TimeoutError, in a module of its own because it needs multiprocessing."""

from __future__ import annotations

import builtins
from multiprocessing.context import TimeoutError as _MultiprocessingTimeoutError

__all__ = ["TimeoutError"]


class TimeoutError(builtins.TimeoutError, _MultiprocessingTimeoutError):
    """A task, an init or exit function, or a wait took longer than its limit.

    Both the built-in ``TimeoutError`` and ``multiprocessing.TimeoutError``, so that either may be caught.

    Examples
    --------
    >>> import time
    >>> from tercio import WorkerPool
    >>> with WorkerPool(n_jobs=1) as pool:
    ...     try:
    ...         pool.apply(time.sleep, (60,), task_timeout=0.1)
    ...     except TimeoutError:
    ...         print("too long")
    too long
    """


TimeoutError.__module__ = "tercio.exception"
