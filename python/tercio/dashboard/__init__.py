"""A web page that shows every map call with a progress bar, live.

``start_dashboard`` serves it from a process of its own, for as long as this one lives; the shell command
``tercio dashboard`` serves it until it is stopped. A program is connected by either, by ``connect_to_dashboard`` or
by the environment variable ``TERCIO_DASHBOARD``; its workers, and their own pools, are connected with it.
"""

from __future__ import annotations

import os

from tercio.dashboard._address import VARIABLE, address, parse, set_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from typing import Any

__all__ = [
    "connect_to_dashboard",
    "get_stacklevel",
    "set_stacklevel",
    "shutdown_dashboard",
    "start_dashboard",
]

_started: tuple[int, subprocess.Popen[bytes], dict[str, Any]] | None = None  # the process that started it comes first
_stacklevel = 1


def start_dashboard(port_range: Sequence[int] = range(8080, 8100)) -> dict[str, Any]:
    """Serve the dashboard, and connect this program to it.

    The server is a process of its own that ends with this one. A second call returns what the first one did.

    Parameters
    ----------
    port_range : sequence of int
        The first free port is taken; 0 is any free one.

    Returns
    -------
    dict
        ``dashboard_port_nr``: where the page is; ``manager_host`` and ``manager_port_nr``: for
        ``connect_to_dashboard`` in other programs.

    Raises
    ------
    OSError
        If no port of the range is free.
    ImportError
        If the packages of the extra ``dashboard`` are missing.

    Examples
    --------
    >>> from tercio.dashboard import shutdown_dashboard, start_dashboard
    >>> sorted(start_dashboard(port_range=[0]))
    ['dashboard_port_nr', 'manager_host', 'manager_port_nr']
    >>> shutdown_dashboard()
    """
    global _started
    from tercio.dashboard._command import require, spawn

    if _started is not None and _started[0] == os.getpid() and _started[1].poll() is None:
        return dict(_started[2])
    require()
    process, port = spawn(port_range)
    details = {"dashboard_port_nr": port, "manager_host": "localhost", "manager_port_nr": port}
    _started = (os.getpid(), process, details)
    import atexit

    atexit.register(shutdown_dashboard)
    set_address("127.0.0.1", port)
    return dict(details)


def shutdown_dashboard() -> None:
    """Stop the dashboard that this program started, and disconnect. Does nothing if there is none.

    Examples
    --------
    >>> from tercio.dashboard import shutdown_dashboard, start_dashboard
    >>> port = start_dashboard(port_range=[0])["dashboard_port_nr"]
    >>> shutdown_dashboard()
    """
    global _started
    if _started is None or _started[0] != os.getpid():
        return
    _, process, _ = _started
    _started = None
    import atexit

    atexit.unregister(shutdown_dashboard)
    os.environ.pop(VARIABLE, None)
    # The server reads this pipe, and its end is the server's.
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()


def connect_to_dashboard(manager_port_nr: int, manager_host: str | bytes | None = None) -> None:
    """Report the map calls of this program, and of its workers, to a dashboard that runs already.

    Parameters
    ----------
    manager_port_nr : int
        Its port.
    manager_host : str, optional
        Its host; by default this machine.

    Raises
    ------
    ConnectionRefusedError
        If there is none.

    Examples
    --------
    >>> from tercio.dashboard import connect_to_dashboard
    >>> connect_to_dashboard(1)  # where no dashboard is
    Traceback (most recent call last):
    ConnectionRefusedError: no dashboard answers at 127.0.0.1:1: ...
    """
    import socket

    host = manager_host.decode() if isinstance(manager_host, bytes) else manager_host or "127.0.0.1"
    try:
        socket.create_connection((host, manager_port_nr), timeout=5).close()
    except OSError as error:
        raise ConnectionRefusedError(f"no dashboard answers at {host}:{manager_port_nr}: {error}") from None
    set_address(host, manager_port_nr)


def set_stacklevel(stacklevel: int) -> None:
    """Choose which caller the dashboard shows as the place that a map call came from.

    Parameters
    ----------
    stacklevel : int
        1: who called ``map``; 2: who called that function; and so on.

    Examples
    --------
    >>> from tercio.dashboard import get_stacklevel, set_stacklevel
    >>> set_stacklevel(2)
    >>> get_stacklevel()
    2
    >>> set_stacklevel(1)
    """
    if not isinstance(stacklevel, int) or isinstance(stacklevel, bool):
        raise TypeError(f"stacklevel must be an int, not {type(stacklevel).__name__}")
    if stacklevel < 1:
        raise ValueError(f"stacklevel is {stacklevel}, but must be at least 1")
    global _stacklevel
    _stacklevel = stacklevel


def get_stacklevel() -> int:
    """The number that ``set_stacklevel`` chose.

    Returns
    -------
    int
        1 unless it was changed.

    Examples
    --------
    >>> from tercio.dashboard import get_stacklevel
    >>> get_stacklevel()
    1
    """
    return _stacklevel


def _connected() -> tuple[str, int] | None:
    return parse(address())
