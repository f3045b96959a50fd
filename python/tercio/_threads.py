"""Worker threads as the `threading` module knows its own.

The engine starts them, so `threading` takes each for a dummy thread: until Python 3.12 such a one lacks the lock that
is released at its end, and the main thread of a child that it forks fails at its end for want of that.
"""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HAS_HANDLES = sys.version_info >= (3, 13)


class WorkerThread(threading.Thread):
    """A thread that another one started. It is a daemon: the pool waits for it, not the interpreter."""

    def __init__(self, worker_id: int) -> None:
        super().__init__(name=f"Worker-{worker_id}", daemon=True)

    def _enter(self) -> None:
        own: Any = self
        module: Any = threading
        own._set_ident()
        if _HAS_HANDLES:
            own._handle = module._make_thread_handle(own._ident)
        else:
            own._set_tstate_lock()
        own._set_native_id()
        own._started.set()
        with module._active_limbo_lock:
            module._active[own._ident] = self

    def _leave(self) -> None:
        own: Any = self
        own._delete()
        if _HAS_HANDLES:
            own._handle._set_done()  # before that, the end of the thread's state does the like

    # In a child that this thread forked it is the main thread.

    def _become_main(self) -> None:
        self._name = "MainThread"
        self._daemonic = False

    def _reset_internal_locks(self, is_alive: bool) -> None:  # until Python 3.12
        if is_alive:
            self._become_main()
        super()._reset_internal_locks(is_alive)  # type: ignore[misc]

    def _after_fork(self, new_ident: int | None = None) -> None:  # from Python 3.13 on
        if new_ident is not None:
            self._become_main()
        super()._after_fork(new_ident=new_ident)  # type: ignore[misc]


def enter(worker_id: int) -> None:
    """Make the thread that calls this known to `threading`."""
    WorkerThread(worker_id)._enter()


def leave() -> None:
    """Take it out again."""
    thread: Any = getattr(threading, "_active", {}).get(threading.get_ident())
    if isinstance(thread, WorkerThread):
        thread._leave()
