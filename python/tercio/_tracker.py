"""One resource tracker for a program and all of its workers.

multiprocessing has a process, the resource tracker, that removes what a program has left behind: blocks of shared
memory, named semaphores. Each process that registers such a resource starts a tracker of its own unless it has the
writing end of another one's pipe, and a tracker removes all that is registered with it when the last writing end is
closed: a worker's own tracker would remove the parent's blocks at the worker's end.

Few programs need a tracker, and its start takes longer than a pool's. So the parent makes the pipe alone, and hands it
on to the workers. The first process of the family that has something to register starts the tracker, which reads from
that pipe, also what was written to it before. A tracker that was started before the pool goes on: then the workers get
the writing end of its pipe.

A socket's abstract name is there once. The process that starts the tracker binds it and leaves the socket to the
tracker: it is the right to read from the pipe, and the system gives it back when its holder dies, at whatever point.
"""

from __future__ import annotations

import os
import sys

from tercio import _worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tercio._descriptors import Handed

MODULE = "multiprocessing.resource_tracker"


# ---- In the parent ----------------------------------------------------------------------------------------------


def prepare() -> None:
    """Have this process and the workers that it starts from now on use one tracker."""
    state = _worker.state
    module: Any = sys.modules.get(MODULE)
    if module is not None:
        from importlib import import_module

        module = import_module(MODULE)  # another thread may be in the midst of it
    tracker = getattr(module, "_resource_tracker", None)
    running = None if tracker is None or _is_shared(tracker) else tracker._fd
    if running is not None:
        if state.tracker is None or not _is_same_pipe(running, state.tracker[0]):
            state.tracker = (os.dup(running), -1, "")
    elif state.tracker is None or not _is_intact(state.tracker):
        _make(state.tracker)
    if module is not None:
        dress(module)
    else:
        _worker.dress_later(MODULE)


def _make(lost: object) -> None:
    reader, writer = os.pipe()
    made = (writer, reader, f"tercio-tracker-{os.urandom(16).hex()}")
    if lost is not None:
        _worker.state.tracker = made
    elif vars(_worker.state).setdefault("tracker", made) is not made:  # another thread was quicker
        os.close(reader)
        os.close(writer)


def hand(handed: Handed) -> tuple[int, int, str] | None:
    """What fresh workers need of it; ``_worker.enter`` takes it in."""
    known = _worker.state.tracker
    if known is None:
        return None
    writer, reader, name = known
    return handed.add(writer), handed.add(reader) if reader >= 0 else -1, name


def settle() -> None:
    """At this process's end: see to it that what was sent has a reader.

    A process that was killed while it started the tracker has left its messages in the pipe.
    """
    known = _worker.state.tracker
    if known is None or known[1] < 0 or not _is_intact(known):
        return
    import select

    poll = select.poll()
    poll.register(known[1], select.POLLIN)
    if poll.poll(0):
        _start(known[1], known[2])


# ---- In every process -------------------------------------------------------------------------------------------


def dress(module: Any) -> None:
    """Have multiprocessing's module, once it is imported, use the family's tracker."""
    state, tracker = _worker.state, module._resource_tracker
    if state.tracker is None:
        return
    writer, reader, _ = state.tracker
    if state.worker_id is not None:
        tracker._pid = None  # it is no child of this process
        if state.method == "fork":
            tracker._lock._at_fork_reinit()  # another thread of the parent may have held it
    if reader < 0:
        # A fork's copy may be newer. A forkserver's own is not the family's.
        if (tracker._fd is None or state.method == "forkserver") and _is_intact(state.tracker):
            tracker._fd = os.dup(writer)
    elif not _is_shared(tracker):
        tracker.__class__ = _shared(type(tracker))
        tracker._fd = tracker._pid = None
        module.ensure_running = tracker.ensure_running


def _shared(kind: Any) -> Any:
    """A tracker's class as multiprocessing has it, which sees to it before each message that the family's runs."""

    class ResourceTracker(kind):  # type: ignore[misc]
        shared_by_tercio = True
        seen = ""  # the name of the one that this process has found running, or started

        if hasattr(kind, "_ensure_running_and_write"):

            def _ensure_running_and_write(self, *arguments: Any) -> Any:
                _see_to(self)
                return super()._ensure_running_and_write(*arguments)

        else:

            def ensure_running(self) -> Any:
                _see_to(self)
                return super().ensure_running()

    return ResourceTracker


def _is_shared(tracker: Any) -> bool:
    return getattr(tracker, "shared_by_tercio", False)


def _see_to(tracker: Any) -> None:
    known = _worker.state.tracker
    if getattr(sys, "meta_path", None) is None:
        return  # the interpreter is being taken apart; what is sent now was registered before
    if known is None or not _is_intact(known):
        # The program has closed it. Then multiprocessing starts one for this process.
        if tracker._fd is not None and not _is_same_pipe(tracker._fd, tracker._fd):
            tracker._fd = None
        return
    if tracker._fd is None or not _is_same_pipe(tracker._fd, known[0]):
        tracker._fd, tracker._pid = os.dup(known[0]), None
    if _start(known[1], known[2]) and tracker.seen == known[2]:
        from tercio._warn import warn

        warn("The resource tracker has died and is started anew; what it knew of may leak", RuntimeWarning)
    tracker.seen = known[2]


def _start(reader: int, name: str) -> bool:
    """Start the tracker unless there is one."""
    import _socket
    import errno

    right = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        try:
            right.bind(f"\0{name}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        _run(_command(reader, right.fileno()), (reader, right.fileno()))
    finally:
        right.close()
    return True


def _run(argv: list[str], fds: tuple[int, int]) -> None:
    import signal
    import subprocess

    # Until it has its handlers these must not end it. In a session of its own it is none of what a worker has started,
    # which goes with the worker when that is killed.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        process = subprocess.Popen(argv, pass_fds=fds, start_new_session=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    process.returncode = 0  # nobody waits for it: it outlives this process


def _command(reader: int, right: int) -> list[str]:
    from tercio import _command, _frozen

    if _frozen.is_frozen():  # freeze_support knows multiprocessing's own command
        code = f"from multiprocessing.resource_tracker import main;main({reader})"
        return [_command.executable(), *_command.interpreter_flags(), "-c", code]
    return _command.command("tracker", str(reader), str(right), flags=_command.interpreter_flags())


def _is_intact(known: tuple[int, int, str]) -> bool:
    """Whether both ends are open, and not another file that has got the number."""
    writer, reader, _ = known
    return _is_same_pipe(writer, reader if reader >= 0 else writer)


def _is_same_pipe(one: int, other: int) -> bool:
    import stat

    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return stat.S_ISFIFO(first.st_mode) and (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


# ---- In the tracker's process -----------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    """Be the tracker: ``arguments`` are the descriptors of the pipe and of the right to read from it, to be kept."""
    from multiprocessing import resource_tracker

    resource_tracker.main(int(arguments[0]))
