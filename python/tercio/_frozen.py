"""Programs that were frozen into an executable of their own: by PyInstaller, cx_Freeze, Nuitka and their like.

Such a program has no interpreter that could run our own first code, so a fresh process is the program itself, started
in the way of multiprocessing: its command line is ``--multiprocessing-fork pipe_handle=N``, by which `freeze_support`
knows it (the standard library's, or what the freezing tool has in its place), and in that pipe are two pickles: what
multiprocessing prepares the process by, here nothing, and an object, in whose place `begin` is called.
"""

from __future__ import annotations

import sys

from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CURE = (
    "This program is frozen, and its workers are started by running it again: it must call tercio.freeze_support(), "
    'or multiprocessing.freeze_support(), first of all under `if __name__ == "__main__":`'
)
_FLAG = "--multiprocessing-fork"
_MOST = 3500  # bytes; the engine takes some more with its argument


def freeze_support() -> None:
    """Become a worker, if this process is a frozen program that was started to be one.

    A program that is frozen (by PyInstaller, cx_Freeze, Nuitka, ...) and uses the start method ``spawn`` or
    ``forkserver`` calls this first of all under ``if __name__ == "__main__":``. In a worker it doesn't return. In
    every other process it does nothing. ``multiprocessing.freeze_support()`` does the same where the tool that froze
    the program makes it work on this platform.

    Examples
    --------
    >>> import tercio
    >>> if __name__ == "__main__":
    ...     tercio.freeze_support()
    """
    # multiprocessing's own helpers are started by -c, and the tools' versions of its function see to them.
    if _FLAG in sys.argv[1:2] or (is_frozen() and "-c" in sys.argv):
        from multiprocessing.spawn import freeze_support

        freeze_support()


def is_frozen() -> bool:
    """Whether the program's executable runs that program alone."""
    return bool(getattr(sys, "frozen", False)) or _compiled() is not None


def _compiled() -> Any:
    """Nuitka's description of the program; None: it isn't compiled."""
    return getattr(sys.modules.get("__main__"), "__compiled__", None)


def check() -> None:
    """Refuse to start a pool in a process that was started to be a worker: it would start itself without end."""
    if _FLAG in sys.argv[1:2] and is_frozen():
        raise RuntimeError(f"A worker of this program runs the program. {CURE}")


def command(become: str, *arguments: str) -> dict[str, Any]:
    """How a fresh process is started; see ``_command.command``.

    Returns
    -------
    dict
        ``argv``, and ``pipe``: what is in the pipe before and behind the engine's argument.
    """
    from tercio._command import executable

    path = getattr(_compiled(), "process_exe", None) or executable()
    # The engine's argument is ASCII without a line end, as pickle's oldest opcode for a str wants it.
    head = b"}.ctercio._frozen\nbegin\n(" + b"".join(map(_pickled, (become, *arguments))) + b"V"
    if len(head) > _MOST:
        if len(arguments) <= 1:
            raise ValueError("preload has too many names for a frozen program, which can import them by itself")
        return command(become, arguments[0])  # without those of the program
    return {"argv": [path, _FLAG, "pipe_handle="], "pipe": (head, b"\ntR.")}


def _pickled(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def begin(become: str, *arguments: str) -> None:
    """Be what the parent wants; called while the pipe is read."""
    import os

    for argument in sys.argv:
        name, _, number = argument.partition("=")
        if name == "pipe_handle":
            os.set_inheritable(int(number), False)  # it stays open, as those who read from it never come back to it
    process: Any = loaded("multiprocessing.process")
    if process is not None:
        process.current_process().__dict__.pop("_inheriting", None)  # pools may be started now
    if become == "worker":
        from tercio import _core

        _core.worker_main(arguments[0])
    else:
        from tercio import _forkserver

        _forkserver.main(list(arguments))


def _imports_of_the_extension() -> None:
    """Never called. Tools that freeze programs find here what the extension in C imports by name."""
    import asyncio  # noqa: F401
    import concurrent.futures  # noqa: F401
    import gc  # noqa: F401
    import threading  # noqa: F401

    from tercio import _errors, _names, _pickling, _serialize, _worker  # noqa: F401
