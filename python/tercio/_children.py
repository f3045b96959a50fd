"""Workers among ``multiprocessing.active_children()``.

multiprocessing keeps its children in a set of its own. Ours aren't started by it, come and go by themselves, and are
asked for when somebody looks: its set is replaced by one that knows of them. Only where multiprocessing is in use.
"""

from __future__ import annotations

import os

from tercio import _shutdown
from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tercio._session import Session


def show() -> None:
    """Have `active_children` tell of our workers, if its module is imported."""
    process: Any = loaded("multiprocessing.process")
    if process is None or type(process._children).__name__ == "ChildrenAndWorkers":
        return

    class ChildrenAndWorkers(set):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            util = loaded("multiprocessing.util")
            if getattr(util, "_exiting", False):
                # multiprocessing's end would stop and join one worker after the other, and they'd be replaced.
                _shutdown.terminate_all()
            return iter([*super().__iter__(), *_workers(process)])

    process._children = ChildrenAndWorkers(process._children)


def _workers(process: Any) -> list[Any]:
    found = []
    for pool in _shutdown.live():
        session = pool._session
        for worker, pid in session.pids():
            child = process.BaseProcess.__new__(process.BaseProcess)
            config = {**process.current_process()._config, "daemon": session.params.daemon}
            child.__dict__.update(
                _identity=(worker + 1,),
                _config=config,
                _parent_pid=os.getpid(),
                _parent_name=process.current_process().name,
                _popen=_Worker(session, pid),
                _closed=False,
                _target=None,
                _args=(),
                _kwargs={},
                _name=f"Worker-{worker}",
            )
            found.append(child)
    return found


def _is_refusal(error: OSError) -> bool:
    """Whether the kernel is too old for a call, or a sandbox forbids it."""
    import errno

    return error.errno in (errno.ENOSYS, errno.EPERM)


class _Worker:
    """A worker as multiprocessing wants to handle a process. The pool replaces one that is ended."""

    def __init__(self, session: Session, pid: int) -> None:
        self.session = session
        self.pid = pid
        self._handle = -1

    @property
    def sentinel(self) -> int:
        if self._handle < 0:
            self._handle = os.pidfd_open(self.pid)
        return self._handle

    def poll(self) -> int | None:
        # How it ended is the pool's to know, and it may not have looked yet.
        return 0 if self.wait(0) is not None or not self._is_known() else None

    def _is_known(self) -> bool:
        return any(pid == self.pid for _, pid in self.session.pids())

    def wait(self, timeout: float | None = None) -> int | None:
        import select

        try:
            ended = select.poll()
            ended.register(self.sentinel, select.POLLIN)
        except ProcessLookupError:
            return 0
        except OSError as error:
            if not _is_refusal(error):
                raise
            return self._wait_by_number(timeout)
        return 0 if ended.poll(None if timeout is None else max(timeout, 0) * 1000) else None

    def terminate(self) -> None:
        import signal

        self._send(signal.SIGTERM)

    def kill(self) -> None:
        import signal

        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        import signal

        try:
            handle = self.sentinel
            if self._is_known():  # so the handle is of the worker, not of a later process with its number
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        except OSError as error:
            if not _is_refusal(error):
                raise
            if self._is_known():
                os.kill(self.pid, number)

    def _wait_by_number(self, timeout: float | None) -> int | None:
        """Wait where there are no pidfds; how it ended stays the pool's to collect."""
        if timeout == 0:
            return None if self._is_known() else 0

        def until_it_ends() -> None:
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                if self._is_known():  # the forkserver's child
                    raise

        if timeout is None:
            until_it_ends()
            return 0
        import threading

        waiter = threading.Thread(target=until_it_ends, daemon=True)
        waiter.start()
        waiter.join(timeout)
        return None if waiter.is_alive() else 0

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    __del__ = close
