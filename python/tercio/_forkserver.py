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
        Absolute names of modules, found along the ``sys.path`` that the program has when its first pool with this
        method starts workers. ``"__main__"`` is the program's main module, which then is run once and not in each
        worker. A module that can't be imported is skipped, with a ``RuntimeWarning`` on standard error.

    Raises
    ------
    TypeError
        If it isn't an iterable of str.
    ValueError
        If a name is empty or relative.
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
    for name in names:
        if "\0" in name or not all(name.split(".")):
            raise ValueError(f"preload holds {name!r}, which is no module's absolute name, such as 'package.module'")
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
        # A process that gave up its rights gets a server without them; the old one ends with the last pool of its own.
        if _server is not None and _server[0] == os.getpid() and _server[1].fits():
            return _server[1]
        from tercio import _command, _shutdown

        server = _core.Server(**_command.server(*_arguments()))
        _server = (os.getpid(), server)
        _shutdown.at_exit()
        return server


def _arguments() -> list[str]:
    """What the server is to know: `main` takes it in."""
    import marshal

    if not _preload:
        return [""]
    from tercio import _main

    described = _main.describe() if "__main__" in _preload else {}
    # Modules may look at the arguments of the program while they are imported.
    program = [str(argument).replace("\0", "") for argument in sys.argv]
    return [marshal.dumps({"names": list(_preload), "main": described}).hex(), *program]


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
    preload, *program, argument = arguments
    import faulthandler  # noqa: F401

    from tercio import _names, _pickling, _postmortem, _worker  # noqa: F401

    _worker.prepare_fork()

    if preload:
        _import_all(bytes.fromhex(preload), program)
    _core.worker_main(argument)


def _import_all(packed: bytes, program: list[str]) -> None:
    import marshal
    from importlib import import_module

    from tercio import _worker

    data = marshal.loads(packed)
    sys.argv[:] = program
    for name in data["names"]:
        try:
            if name == "__main__":
                _worker.run_main(data["main"])
            else:
                import_module(name)
        except (Exception, SystemExit) as error:
            _warn_of(name, error)
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass


def _warn_of(name: str, error: BaseException) -> None:
    # A worker that needs the module imports it again, and then its error reaches the user with a traceback.
    from tercio._warn import warn

    try:
        warn(f"preload: the forkserver can't import {name!r}: {type(error).__name__}: {error}", RuntimeWarning)
    except RuntimeWarning as warning:  # an error by a filter, which would end the server
        if sys.stderr is not None:
            print(f"RuntimeWarning: {warning}", file=sys.stderr)
