"""Start methods, and the multiprocessing context that fits each."""

from __future__ import annotations

import sys

from tercio._core import METHODS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "DEFAULT_START_METHOD",
    "FORK_AVAILABLE",
    "METHODS",
    "RUNNING_MACOS",
    "RUNNING_WINDOWS",
    "ThreadingContext",
    "get_context",
]

FORK_AVAILABLE: bool = "fork" in METHODS
DEFAULT_START_METHOD: str = "fork" if FORK_AVAILABLE else "spawn"
# MP_CONTEXTS is there as well: see __getattr__.
RUNNING_WINDOWS: bool = sys.platform == "win32"
RUNNING_MACOS: bool = sys.platform == "darwin"


class ThreadingContext:
    """What ``pool.ctx`` is under threading: the names of a multiprocessing context, for threads of one process.

    Names that make no sense for threads come from multiprocessing's default context, whose objects threads can
    use as well.

    Examples
    --------
    >>> from tercio.context import get_context
    >>> lock = get_context("threading").Lock()
    >>> with lock:
    ...     print("mine")
    mine
    """

    _THREADING = frozenset({"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"})

    def __getattr__(self, name: str) -> Any:
        if name in self._THREADING:
            import threading

            return getattr(threading, name)
        if name in ("Queue", "SimpleQueue", "JoinableQueue"):
            import queue

            return getattr(queue, name.replace("Joinable", ""))
        if name == "Process":
            import threading

            return threading.Thread
        if name.startswith("_"):
            raise AttributeError(name)
        import multiprocessing

        return getattr(multiprocessing, name)

    def get_start_method(self, allow_none: bool = False) -> str:
        """``"threading"``.

        Examples
        --------
        >>> from tercio.context import get_context
        >>> get_context("threading").get_start_method()
        'threading'
        """
        return "threading"


def get_context(method: str) -> Any:
    """The multiprocessing context for a start method.

    Parameters
    ----------
    method : str
        One of ``METHODS``.

    Returns
    -------
    multiprocessing.context.BaseContext or ThreadingContext
        Locks, values and so on made by it can be given to workers as shared objects.

    Examples
    --------
    >>> from tercio.context import get_context
    >>> get_context("spawn").get_start_method()
    'spawn'
    """
    if method == "threading":
        return ThreadingContext()
    import multiprocessing

    return multiprocessing.get_context(method)


def __getattr__(name: str) -> Any:
    # A program that reads it needs multiprocessing anyway; others don't pay for the import.
    if name == "MP_CONTEXTS":
        processes = [method for method in METHODS if method != "threading"]
        contexts = {"mp": {method: get_context(method) for method in processes}, "threading": ThreadingContext()}
        globals()[name] = contexts
        return contexts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
