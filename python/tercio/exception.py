"""The exceptions a user of the package may meet."""

from __future__ import annotations

import signal as _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tercio._timeouts import TimeoutError as TimeoutError

__all__ = [
    "CannotPickleExceptionError",
    "RemoteTraceback",
    "TimeoutError",
    "WorkerDiedError",
    "highlight_traceback",
    "remove_highlighting",
]


class CannotPickleExceptionError(Exception):
    """A task raised an exception that can't travel between processes.

    Its text is the ``repr`` of the original; its ``__cause__`` holds the worker's traceback.

    Examples
    --------
    >>> from tercio.exception import CannotPickleExceptionError
    >>> issubclass(CannotPickleExceptionError, Exception)
    True
    """


class RemoteTraceback(Exception):
    """What happened in the worker, as text: the ``__cause__`` of every exception that a worker sends home.

    Parameters
    ----------
    text : str
        The worker, the arguments of the task and the traceback.

    Examples
    --------
    >>> from tercio import WorkerPool
    >>> with WorkerPool(n_jobs=1, start_method="threading") as pool:
    ...     try:
    ...         pool.map(int, ["x"])
    ...     except ValueError as error:
    ...         print(str(error.__cause__).splitlines()[1])
    Arg 0: 'x'
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class WorkerDiedError(RuntimeError):
    """A worker ended without saying goodbye: killed, crashed or left by ``os._exit``.

    Parameters
    ----------
    message : str
        The text.
    worker_id, pid, signal, exit_code, args_repr, peak_rss, stack, out_of_memory
        See the attributes.

    Attributes
    ----------
    worker_id : int
        Index of the worker, from 0.
    pid : int
        Its process id.
    signal : int or None
        The signal that killed it, a `signal.Signals` where it has a name; None if none did or it is unknown.
    exit_code : int or None
        Its exit code, None if a signal killed it or it is unknown.
    args_repr : str
        The arguments of the task that ran, as text, cut at a sane length; empty if none ran.
    peak_rss : int
        The most memory it held, in bytes; 0 if unknown.
    stack : str
        The Python stack at the time of death, where a crash handler could write one; else empty.
    out_of_memory : bool or None
        Whether the kernel killed it for memory; None if that can't be told.

    Examples
    --------
    >>> import os
    >>> from tercio import WorkerPool
    >>> from tercio.exception import WorkerDiedError
    >>> with WorkerPool(n_jobs=1) as pool:
    ...     try:
    ...         pool.apply(os._exit, (3,))
    ...     except WorkerDiedError as error:
    ...         print(error.exit_code, error.signal, error.worker_id)
    3 None 0
    """

    def __init__(
        self,
        message: str = "A worker died",
        worker_id: int = -1,
        pid: int = 0,
        signal: int | None = None,
        exit_code: int | None = None,
        args_repr: str = "",
        peak_rss: int = 0,
        stack: str = "",
        out_of_memory: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.worker_id = worker_id
        self.pid = pid
        self.signal = signal_of(signal)
        self.exit_code = exit_code
        self.args_repr = args_repr
        self.peak_rss = peak_rss
        self.stack = stack
        self.out_of_memory = out_of_memory

    # The default, type(*args) and then __dict__, fits: args holds the message alone and the others have defaults.


def highlight_traceback(traceback_str: str) -> str:
    """A traceback's text in a terminal's colours, where pygments is installed; else the text as it is.

    Parameters
    ----------
    traceback_str : str
        The text.

    Returns
    -------
    str
        The text, with escape sequences.

    Examples
    --------
    >>> from tercio.exception import highlight_traceback, remove_highlighting
    >>> remove_highlighting(highlight_traceback("ValueError: 3")).strip()
    'ValueError: 3'
    """
    try:
        from pygments import highlight
        from pygments.formatters import TerminalFormatter
        from pygments.lexers import PythonTracebackLexer
    except ImportError:
        return traceback_str
    coloured: str = highlight(traceback_str, PythonTracebackLexer(), TerminalFormatter())
    return coloured


def remove_highlighting(traceback_str: str) -> str:
    """A text without the escape sequences that colour it.

    Parameters
    ----------
    traceback_str : str
        The text.

    Returns
    -------
    str
        The text alone.

    Examples
    --------
    >>> from tercio.exception import remove_highlighting
    >>> remove_highlighting(chr(27) + "[31mred" + chr(27) + "[39m")
    'red'
    """
    import re

    # ECMA-48: a control sequence (CSI, parameters, intermediates, a final byte), or one escaped byte.
    return re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\^_])", "", traceback_str)


def signal_of(number: int | None) -> int | None:
    """The signal's member of `signal.Signals`, or the number itself for one without a name."""
    try:
        return None if number is None else _signal.Signals(number)
    except ValueError:
        return number


def signal_name(number: int) -> str:
    """The name of a signal, such as ``SIGKILL``; ``signal 77`` for one without a name."""
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def __getattr__(name: str) -> Any:
    # TimeoutError derives from multiprocessing's, whose import takes 10 ms that most programs need not pay.
    if name == "TimeoutError":
        from tercio._timeouts import TimeoutError as timeout_error

        globals()[name] = timeout_error
        return timeout_error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
