"""The bars themselves: tqdm's classes, drawing each time in one piece."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import tqdm.std

from tercio._modules import loaded


class _Lock:
    """A lock for the threads of this process; a fork gets a free one, whoever held it in the parent.

    tqdm's own is one of multiprocessing's as well, which a worker that is killed would keep for ever.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def current(self) -> Any:
        """The lock itself."""
        if self._pid != os.getpid():
            self._lock, self._pid = threading.RLock(), os.getpid()
        return self._lock

    def acquire(self, *args: Any) -> bool:
        return bool(self.current().acquire(*args))

    def release(self) -> None:
        self.current().release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


LOCK = _Lock()


class OwnRefresh:
    """Gives the lock back also when drawing fails or is interrupted; tqdm's own `refresh` would keep it for ever."""

    disable: bool

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> bool:
        """Draw the bar now; False if the lock was not to be had by `lock_args`."""
        if self.disable:
            return True
        parent: Any = super()
        if nolock:
            return bool(parent.refresh(nolock=True))
        lock = LOCK.current()
        if lock_args and not lock.acquire(*lock_args):
            return False
        with lock:
            try:
                return bool(parent.refresh(nolock=True))
            finally:
                if lock_args:
                    lock.release()


class _Whole:
    """A stream that holds back what is written in a ``with`` block, and then writes it at once."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._pieces: list[Any] = []
        self._depth = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        return bool(self._stream == getattr(other, "_stream", other))  # tqdm asks whether it is sys.stderr

    __hash__ = None  # type: ignore[assignment]

    def write(self, text: Any) -> int:
        self._pieces.append(text)
        if not self._depth:
            self._send()
        return len(text)

    def flush(self) -> None:
        if not self._depth:
            self._send()

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._send()

    def _send(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._stream.write(pieces[0][:0].join(pieces))
        flush = getattr(self._stream, "flush", None)
        if flush is not None:
            flush()


class _Screens:
    """Which lines the open bars of this process take, for each terminal. Used under the bars' lock."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lines: dict[Any, tuple[int, int, int]] = {}  # number of open bars, lowest and highest line

    def _forget_parent(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lines.clear()

    @staticmethod
    def _key(stream: Any) -> Any:
        try:
            return stream.fileno()
        except (AttributeError, OSError, ValueError):
            return f"{id(stream)}"

    def open(self, stream: Any, line: int) -> None:
        self._forget_parent()
        n, lowest, highest = self._lines.get(self._key(stream), (0, line, line))
        self._lines[self._key(stream)] = (n + 1, min(line, lowest), max(line, highest))

    def close(self, stream: Any) -> int:
        """How many lines down the cursor has to go: past all bars, when the last one is closed."""
        self._forget_parent()
        key = self._key(stream)
        n, lowest, highest = self._lines.pop(key, (1, 0, 0))
        if n > 1:
            self._lines[key] = (n - 1, lowest, highest)
            return 0
        # A worker's bars below the first line belong to a picture whose owner is the process above.
        return 0 if lowest > 0 and _is_worker() else highest + 1


_Tqdm: Any = tqdm.std.tqdm
_screens = _Screens()


def _is_worker() -> bool:
    worker = loaded("tercio._worker")
    return worker is not None and worker.state.worker_id is not None and worker.state.pid == os.getpid()


class TerminalBar(OwnRefresh, _Tqdm):  # type: ignore[misc]
    """A bar on a line of a terminal, or in a file.

    Parameters
    ----------
    file : stream, optional
        Default: ``sys.stderr`` as it is now.
    **options
        tqdm's.
    """

    # tqdm's monitor is a thread that wakes slow bars up. Ours are woken by the call that waits for results, and a
    # thread in the parent would make every fork a risk.
    monitor_interval = 0
    _lock = LOCK

    def __init__(self, *args: Any, file: Any = None, **options: Any) -> None:
        self._opened = False
        self._owner = os.getpid()
        self._stream = sys.stderr if file is None else file
        self._whole = _Whole(self._stream)
        self._terminal = bool(getattr(self._stream, "isatty", bool)())
        with self._lock, self._whole:
            super().__init__(*args, file=self._whole, **options)
            if not self.disable:
                _screens.open(self._stream, abs(self.pos))
                self._opened = True

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar on its line, and leave the cursor at the beginning of its own."""
        with self._whole:
            drawn = super().display(msg, pos)
            if self._terminal:
                self.fp.write("\r")  # what is echoed there, like ^C, doesn't wrap, and is drawn over
            return drawn

    def close(self) -> None:
        """Draw for the last time; the last bar of a terminal puts the cursor below all of them."""
        if not self._opened or self._owner != os.getpid():
            self.disable = True  # never drawn, or a fork's copy of a bar
            return
        self._opened = False
        with self._lock, self._whole:
            shown = self.last_print_t >= self.start_t + self.delay
            self._ema_dt = lambda: None  # the rate over all, not the last one
            if shown and self.leave:
                self.display()
            elif shown:
                self.display(msg="")
            self.disable = True
            self._decr_instances(self)
            down = _screens.close(self._stream)
            if shown and down:
                self.fp.write("\n" * down if self.leave else "\r")
                if self.leave and self._terminal:
                    self.fp.write("\x1b[J")  # what bars of workers may have left there


class SilentBar(OwnRefresh, _Tqdm):  # type: ignore[misc]
    """Counts, and draws nothing."""

    disable: bool
    monitor_interval = 0
    _lock = LOCK

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Nothing."""

    def close(self) -> None:
        """End without a word."""
        if not self.disable:
            self.disable = True
            with self._lock:
                self._decr_instances(self)
