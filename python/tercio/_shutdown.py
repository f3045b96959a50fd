"""Pools that live, so that none outlives the interpreter."""

from __future__ import annotations

import os
import sys

from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_live: dict[int, Any] = {}  # id -> weak reference to a WorkerPool with workers
_registered = 0  # the process whose exit runs us
_ending = 0  # the process that is at its end


def at_exit() -> None:
    """Have the end of the interpreter end workers and server."""
    global _registered
    if _registered != os.getpid():
        import atexit

        if not _registered:  # a fork inherits the registration
            atexit.register(terminate_all)
        _registered = os.getpid()


def add(pool: Any) -> None:
    """`pool` has workers now."""
    import weakref
    from functools import partial

    key = id(pool)
    # Not a function of Python's: a KeyboardInterrupt that is due would be raised in it, and get lost.
    _live[key] = weakref.ref(pool, partial(_live.pop, key))
    at_exit()


def discard(pool: Any) -> None:
    """`pool` has no workers any more."""
    _live.pop(id(pool), None)


def live() -> list[Any]:
    """The pools of this process that have workers."""
    if _registered != os.getpid():
        return []
    pools = [reference() for reference in list(_live.values())]
    return [pool for pool in pools if pool is not None]


def terminate_all() -> None:
    """End every worker that this process started. Runs at the interpreter's end and when a worker leaves."""
    global _ending
    if _registered != os.getpid():
        return
    from tercio import _core

    _ending = os.getpid()
    _core.set_ending(True)
    errors: list[Warning] = []
    for pool in live():
        import warnings

        try:
            try:
                warnings.warn(
                    f"unclosed {pool!r}: use `with`, stop_and_join() or terminate()", ResourceWarning, 1, pool
                )
            finally:
                pool.terminate()
        except Warning as error:  # the user made errors of them; all else is ended first
            errors.append(error)
    _live.clear()
    from tercio import _forkserver

    _forkserver.close()
    tracker = loaded("tercio._tracker")
    if tracker is not None:
        tracker.settle()
    if errors:
        raise errors[0]


def check() -> None:
    """Refuse to start workers where the interpreter runs no other thread any more."""
    if sys.is_finalizing():
        raise RuntimeError("can't start workers at interpreter shutdown")
    if _ending:
        stay_at_end()


def stay_at_end() -> None:
    """At the interpreter's end, keep a daemon thread here for good.

    Nobody waits for such a thread, and that its pool was terminated is no error of its program.
    """
    if _ending != os.getpid():
        return
    threading: Any = loaded("threading")
    if threading is None:
        return
    thread = threading.current_thread()
    # Threads that others have made, in C say, look like daemon ones, but somebody may join them.
    if thread.daemon and not isinstance(thread, threading._DummyThread):
        from tercio import _core

        _core.stay()


def forget() -> None:
    """In a worker: nothing of this is ours, the registration with atexit included."""
    global _registered, _ending
    _live.clear()
    _registered = 0
    if _ending:
        from tercio import _core

        _ending = 0
        _core.set_ending(False)
