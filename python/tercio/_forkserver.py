"""One forkserver for this process, started on first use, kept until the end."""

from __future__ import annotations

import _thread
import os
import sys

from tercio import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_lock = _thread.allocate_lock()
_server: tuple[int, _core.Server] | None = None  # with the process that it belongs to: a fork's copy is not ours
_preload: tuple[str, ...] = ()


def set_forkserver_preload(modules: Iterable[str]) -> None:
    """Choose modules that the forkserver imports once, so that its workers begin with them.

    Parameters
    ----------
    modules : iterable of str
        Names of modules. A module that can't be imported is skipped; the worker's own import tells why.

    Raises
    ------
    RuntimeError
        If the server runs already with other modules: there is one for a process.

    Examples
    --------
    >>> import tercio
    >>> tercio.set_forkserver_preload(["json"])
    """
    global _preload
    if isinstance(modules, str):
        raise TypeError("preload must be a list of module names, not a str")
    names = tuple(modules)
    if not all(isinstance(name, str) for name in names):
        raise TypeError("preload must be a list of module names (str)")
    with _lock:
        if _server is not None and _server[0] == os.getpid() and names != _preload:
            raise RuntimeError(
                f"The forkserver of this process runs already, with preload={list(_preload)}. Set it before the first "
                "pool with start_method='forkserver' starts its workers"
            )
        _preload = names


def get_server() -> _core.Server:
    """The server, started now if need be."""
    global _server
    with _lock:
        if _server is not None and _server[0] == os.getpid():
            return _server[1]
        from tercio import _command, _shutdown

        server = _core.Server(_command.server(*_preload))
        _server = (os.getpid(), server)
        _shutdown.at_exit()
        return server


def close() -> None:
    """End the server; its pools must be gone."""
    global _server
    with _lock:
        if _server is not None and _server[0] == os.getpid():
            _server[1].close()
        _server = None


def forget() -> None:
    """In a child: the server is the parent's."""
    global _server, _lock
    _lock = _thread.allocate_lock()  # another thread of the parent may have held the old one
    _server = None


def main(arguments: list[str]) -> None:
    """The server's process: imports what its workers need, and what shall be preloaded, then serves."""
    *preload, argument = arguments
    import faulthandler  # noqa: F401

    from tercio import _names, _pickling, _postmortem, _worker  # noqa: F401

    _worker.prepare_fork()

    if preload:
        from importlib import import_module

        for name in preload:
            try:
                import_module(name)
            except Exception:
                # A worker that needs it imports it again, and its error reaches the user with a traceback.
                pass
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    _core.worker_main(argument)
